"""`stoker top`: the live screen over the API."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import click

from stoker.cli.client import Client
from stoker.cli.session import session_of, session_options

REFRESH = 2.0


@click.command()
@session_options
@click.pass_context
def command(context: click.Context) -> int:
    """Show pools, replicas, GPUs and events live, until q.

    A terminal that can do no more gets the table anew every two seconds; a pipe gets it once.
    """
    from stoker.cli.observers import wants_screen

    client = session_of(context).client()
    client.get("/v1/status")
    if not wants_screen(sys.stdout, os.environ) or not sys.stdin.isatty():
        return _plain(client, again=sys.stdout.isatty())
    from stoker.cli.top.app import Top

    return Top(client).run() or 0


def _plain(client: Client, *, again: bool, pause: Callable[[float], None] = time.sleep) -> int:
    from stoker.cli.status_text import show_status

    while True:
        show_status(client.get("/v1/status"), everything=False)
        sys.stdout.flush()
        if not again:
            return 0
        try:
            pause(REFRESH)
        except KeyboardInterrupt:
            return 0
        sys.stdout.write("\n")
