"""`stoker set`: live overrides on."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.exits import UsageError
from stoker.cli.session import session_of, session_options
from stoker.errors import ConfigError


@click.command()
@click.argument("assignments", metavar="K=V...", nargs=-1, required=True)
@session_options
@click.pass_context
def command(context: click.Context, assignments: tuple[str, ...]) -> None:
    """Set live overrides by dotted path, for example services.infer.scaling.max_replicas=4.

    They lie over every other layer, survive restarts of the daemon, and are kept until unset.
    """
    values = dict(parse_assignment(text) for text in assignments)
    click.echo(session_of(context).client().post("/v1/set", {"values": values})["message"])


def parse_assignment(text: str) -> tuple[str, Any]:
    """(path, value) of one K=V; the value is read as in the file. Raises UsageError, ConfigError."""
    from stoker.config.tree import Source, to_data
    from stoker.config.yaml_text import parse_value

    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"{text!r} has no value; write PATH=VALUE")
    node, problems = parse_value(value, Source("override", f"stoker set {path.strip()}"))
    if problems:
        raise ConfigError(*problems)
    return path.strip(), to_data(node)
