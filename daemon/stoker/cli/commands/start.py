"""`stoker start`."""

from __future__ import annotations

import click

from stoker.cli.session import service_argument, session_of, session_options


@click.command()
@service_argument()
@session_options
@click.pass_context
def command(context: click.Context, service: str) -> None:
    """Release SERVICE that was stopped."""
    click.echo(session_of(context).client().post("/v1/start", {"service": service})["message"])
