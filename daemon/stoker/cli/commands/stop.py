"""`stoker stop`."""

from __future__ import annotations

import click

from stoker.cli.session import service_argument, session_of, session_options


@click.command()
@service_argument()
@session_options
@click.pass_context
def command(context: click.Context, service: str) -> None:
    """Hold SERVICE at zero replicas, whatever its bounds and load, until it is started."""
    click.echo(session_of(context).client().post("/v1/stop", {"service": service})["message"])
