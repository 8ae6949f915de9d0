"""`stoker reload`: read the files again."""

from __future__ import annotations

import click

from stoker.cli.session import session_of, session_options


@click.command()
@session_options
@click.pass_context
def command(context: click.Context) -> None:
    """Read the configuration again now. A bad one is told and refused; the last good one stays in force."""
    click.echo(session_of(context).client().post("/v1/reload")["message"])
