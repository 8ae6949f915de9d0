"""`stoker status`: the pool table."""

from __future__ import annotations

import click

from stoker.cli.quick import tell_status
from stoker.cli.session import output_option, service_argument, session_of, session_options


@click.command()
@service_argument(required=False)
@output_option
@session_options
@click.pass_context
def command(context: click.Context, service: str | None, output: str) -> None:
    """Show services, replicas, load and the state of the configuration."""
    status = session_of(context).client().get("/v1/status", service=service)
    tell_status(status, output, everything=service is not None)
