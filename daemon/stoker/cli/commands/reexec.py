"""`stoker reexec`: replace the daemon in place."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from stoker.cli.client import SEE_LOG
from stoker.cli.session import session_of, session_options
from stoker.errors import ConfigError, StokerError

PATIENCE = 60.0
"""Seconds the new daemon gets to put its configuration in force."""
PAUSE = 0.05


@click.command()
@session_options
@click.pass_context
def command(context: click.Context) -> None:
    """Replace the daemon in place, after an upgrade: same process, same arguments, new program.

    Workers and router go on and no request fails. Refused while the files in force are not in order.
    """
    client = session_of(context).client()
    asked = time.monotonic()
    before = client.get("/v1/status")["daemon"]
    try:
        client.post("/v1/reexec")
    except ConfigError:
        click.echo("not replaced: a new daemon could not begin with the files as they are", err=True)
        raise
    while time.monotonic() - asked < PATIENCE:
        time.sleep(PAUSE)
        try:
            after = client.get("/v1/status")["daemon"]
        except StokerError:
            _still_there(before["pid"])
            continue
        if _is_new(before, after, time.monotonic() - asked):
            click.echo(
                f"replaced in {time.monotonic() - asked:.1f} s: {after['version']}, pid {after['pid']}"
            )
            return
    raise StokerError(f"the new daemon (pid {before['pid']}) does not answer after {PATIENCE:g} s; {SEE_LOG}")


def _is_new(before: dict[str, Any], after: dict[str, Any], elapsed: float) -> bool:
    """Whether the answer is the new daemon's, its configuration in force: the old one is older than the
    time since it was asked."""
    return bool(after["config"]["generation"]) and after["uptime_s"] < elapsed + before["uptime_s"] / 2


def _still_there(pid: int) -> None:
    """Raise StokerError if the process of the daemon has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        text = "the daemon ended instead of beginning anew; its workers go on, start it again"
        raise StokerError(text) from None
    except PermissionError:
        return
