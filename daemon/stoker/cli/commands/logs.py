"""`stoker logs`: workers' output."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime

import click

from stoker.cli.exits import UsageError
from stoker.cli.session import service_argument, session_of, session_options
from stoker.model.quantity import parse_duration

COLOURS = ("cyan", "green", "magenta", "yellow", "blue")


@click.command()
@service_argument(required=False, replicas=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they are written.")
@click.option("--since", metavar="T", help="Only what was written since: 10m, 2h, or an ISO time.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each.")
@session_options
@click.pass_context
def command(
    context: click.Context, service: str | None, follow: bool, since: str | None, tail: int | None
) -> None:
    """Show the output of a SERVICE's workers, of one replica, or of all.

    --since goes by the time at the start of each line; where lines have none, by that of the file.
    """
    from stoker.cli.table import coloured, paint

    colour = coloured()
    lines = session_of(context).client().lines(
        "/v1/logs",
        service=service,
        follow="true" if follow else None,
        since=None if since is None else moment(since, time.time()),
        tail=tail,
    )  # fmt: skip
    colours: dict[str, str] = {}
    for line in lines:
        entry = json.loads(line)
        replica = entry["replica"]
        if replica == service:
            sys.stdout.write(f"{entry['line']}\n")
        else:
            style = colours.setdefault(replica, COLOURS[len(colours) % len(COLOURS)])
            sys.stdout.write(f"{paint(replica, style, colour=colour)} | {entry['line']}\n")
        if follow:
            sys.stdout.flush()


def moment(text: str, now: float) -> float:
    """Seconds since the epoch of "10m" (ago), an ISO time or a number. Raises UsageError."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(f"{text!r} is no time; write for example 10m, 2h or 2026-01-31T12:00") from None
