"""`stoker logs`: workers' output."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any

import click

from stoker.cli.exits import UsageError
from stoker.cli.session import output_option, service_argument, session_of, session_options
from stoker.model.quantity import parse_duration

COLOURS = ("cyan", "green", "magenta", "yellow", "blue")


@click.command()
@service_argument(required=False, replicas=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they are written.")
@click.option("--since", metavar="T", help="Only what was written since: 10m, 2h, or an ISO time.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each.")
@output_option
@session_options
@click.pass_context
def command(
    context: click.Context,
    service: str | None,
    follow: bool,
    since: str | None,
    tail: int | None,
    output: str,
) -> None:
    """Show the output of a SERVICE's workers, of one replica, or of all, in the order of the lines' times.

    --since goes by the time that each line tells, at its start or in its JSON; where lines tell none, by that
    of the file. -o json gives an object for each line; in it `json` is a worker's line that is an object.
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
        if output == "json":
            sys.stdout.write(f"{json.dumps(entry | _object(entry['line']), ensure_ascii=False)}\n")
        elif replica == service:
            sys.stdout.write(f"{entry['line']}\n")
        else:
            style = colours.setdefault(replica, COLOURS[len(colours) % len(COLOURS)])
            sys.stdout.write(f"{paint(replica, style, colour=colour)} | {entry['line']}\n")
        if follow:
            sys.stdout.flush()


def _object(line: str) -> dict[str, Any]:
    """What a line adds if it is a JSON object."""
    try:
        found = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return {}
    return {"json": found} if isinstance(found, dict) else {}


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
