"""`stoker schema`: the JSON Schema of the file."""

from __future__ import annotations

import click

from stoker.cli.quick import print_json


@click.command()
@click.option(
    "--markdown", is_flag=True, help="The reference for people instead: every key with its meaning."
)
def command(*, markdown: bool) -> None:
    """Print the JSON Schema of stoker.yaml, for editors and checks."""
    if markdown:
        from stoker.config.reference import markdown as page

        click.echo(page(), nl=False)
        return
    from stoker.config.json_schema import json_schema

    print_json(json_schema())
