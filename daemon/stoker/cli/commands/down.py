"""`stoker down`: drain all and end the daemon."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

import click

from stoker.cli.client import Client
from stoker.cli.exits import OK
from stoker.cli.place import Session
from stoker.cli.session import session_of, session_options
from stoker.errors import StokerError

STEP = 0.2
"""Seconds between two looks at what is left."""


@click.command()
@click.option("--no-wait", is_flag=True, help="Return at once, while the daemon drains.")
@click.option(
    "--leftovers", is_flag=True, help="Only what a daemon that is gone has left; nothing is no error."
)
@session_options
@click.pass_context
def command(context: click.Context, no_wait: bool, leftovers: bool) -> int:
    """Drain every replica, stop the workers and the router, end the daemon; waits until it is gone.

    Where the daemon is gone already, killed or crashed, what it has left running is drained and stopped.
    """
    session = session_of(context)
    client = session.client()
    if not client.alive():
        if left := session.left_behind():
            return _take_away(
                session, f"no daemon answers at {client.socket}; stopping {left} of the last one"
            )
        if leftovers:
            return OK
    elif leftovers:
        click.echo(f"a daemon answers at {client.socket}, so nothing is left over")
        return OK
    pid = int(client.get("/v1/status")["daemon"]["pid"])
    process = _open(pid)
    client.post("/v1/down")
    if no_wait:
        click.echo("draining")
        return OK
    try:
        _wait(client, process)
    finally:
        if process is not None:
            os.close(process)
    click.echo("stopped")
    return OK


def _take_away(session: Session, words: str) -> int:
    """Be a daemon for as long as it takes to stop what another has left."""
    from stoker.cli import launch

    launch.as_owner(session, "down", "--leftovers")
    with launch.loading():
        from stoker.cli.observers import observers_for_terminal
        from stoker.runtime.daemon import run_daemon

    click.echo(words)
    options = launch.options_for(session, (), leaving=True, observers=observers_for_terminal())
    code = run_daemon(options)
    click.echo("stopped")
    return code


def _open(pid: int) -> int | None:
    """A descriptor that tells of the daemon's end; None if it cannot be had (another pid namespace)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _wait(client: Client, process: int | None) -> None:
    shown = ""
    while not _gone(client, process):
        try:
            text = _left(client.get("/v1/status"))
        except StokerError:
            continue  # the socket is closed first, the process ends a moment later
        if text != shown:
            shown = text
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def _gone(client: Client, process: int | None) -> bool:
    if process is None:
        select.select([], [], [], STEP)
        return not client.alive()
    return bool(select.select([process], [], [], STEP)[0])


def _left(status: dict[str, Any]) -> str:
    phases: dict[str, int] = {}
    for service in status["services"]:
        for replica in service["replicas"]:
            phases[replica["phase"]] = phases.get(replica["phase"], 0) + 1
    parts = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    return f"waiting for {parts}" if parts else "waiting for the router"
