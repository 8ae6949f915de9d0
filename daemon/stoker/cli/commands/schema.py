"""`stoker schema`: the JSON Schema of the file."""

from __future__ import annotations

import click

from stoker.cli.session import print_json


@click.command()
def command() -> None:
    """Print the JSON Schema of stoker.yaml, for editors and checks."""
    from stoker.config.json_schema import json_schema

    print_json(json_schema())
