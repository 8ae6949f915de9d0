"""`stoker top`: the live screen over the API."""

from __future__ import annotations

import os
import sys
import time

import click

from stoker.cli.session import session_of, session_options
from stoker.errors import StokerError

REFRESH = 1.0


@click.command()
@session_options
@click.pass_context
def command(context: click.Context) -> int:
    """Show the pool table live, until Ctrl-C."""
    client = session_of(context).client()
    status = client.get("/v1/status")
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise StokerError("top needs a terminal; `stoker status` prints the same once")
    from rich.console import Console
    from rich.live import Live

    from stoker.cli.live import screen

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(screen(status, width=console.width, height=console.height), refresh=True)
                time.sleep(REFRESH)
                status = client.get("/v1/status")
        except KeyboardInterrupt:
            return 0
