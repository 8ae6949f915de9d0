"""`stoker record`: a live service's load as a trace that `stoker simulate` replays."""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click

from stoker.cli.client import Client
from stoker.cli.session import complete_names, session_of, session_options
from stoker.cli.values import DURATION
from stoker.errors import StokerError

LAST_ROWS = 0.3
"""Seconds for the rows that the router has yet to send; it does so every tenth of one."""


@dataclass
class _Recorded:
    """`rows`: (arrived, held, service). `unserved`: requests that never reached a worker; `dropped`: those
    that the router had to drop because this command did not read fast enough."""

    rows: list[tuple[float, float, str]] = field(default_factory=list)
    unserved: int = 0
    dropped: int = 0

    def add(self, request: dict[str, Any]) -> None:
        self.dropped += request.get("dropped", 0)
        if "dropped" in request:
            return
        if request["service_s"] > 0:
            self.rows.append((request["arrived"], request["service_s"], request["service"]))
        else:
            self.unserved += 1


class _TimeIsUp(Exception):
    """So much was asked for."""


@click.command()
@click.argument("service", required=False, shell_complete=complete_names())
@click.option(
    "-o", "--output", "file", metavar="CSV", type=click.Path(path_type=Path), help="Default: standard output."
)
@click.option(
    "--for", "seconds", type=DURATION, metavar="TIME", help="End after this time; default: at Ctrl-C."
)
@session_options
@click.pass_context
def command(context: click.Context, service: str | None, file: Path | None, seconds: float | None) -> None:
    """Record when requests arrive and how long each holds a worker, as a trace for stoker simulate.

    Without SERVICE all services are recorded.
    """
    client = session_of(context).client()
    file = None if file == Path("-") else file
    if file is not None and not file.parent.is_dir():
        raise StokerError(f"cannot write {file}: there is no directory {file.parent}")
    recorded = _Recorded()
    with _ended_by(seconds):
        _record(client, service, recorded)
    recorded.rows.sort()
    if file is None:
        _write(sys.stdout, recorded, several=service is None)
    else:
        with file.open("w", newline="") as out:
            _write(out, recorded, several=service is None)
    _sum_up(recorded, file)


def _record(client: Client, service: str | None, recorded: _Recorded) -> None:
    lines = client.lines("/v1/record", service=service)
    for line in lines:
        if line.strip():
            recorded.add(json.loads(line))
        else:
            sys.stderr.write("recording; Ctrl-C ends it\n")
    sys.stderr.write("the daemon or its router ended; this is what came until then\n")


@contextmanager
def _ended_by(seconds: float | None) -> Iterator[None]:
    """Ctrl-C and the time's end are ways to end, no failures. What is on its way by then still counts."""
    ending = False

    def over(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if ending:
            raise _TimeIsUp
        ending = True
        signal.setitimer(signal.ITIMER_REAL, LAST_ROWS)

    before = {
        number: signal.signal(number, over) for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)
    }
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)
    try:
        with suppress(_TimeIsUp):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, disposition in before.items():
            signal.signal(number, disposition)


def _write(out: TextIO, recorded: _Recorded, *, several: bool) -> None:
    """As `stoker simulate` reads it: seconds since the first arrival."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arrival_s", "service_s", *(["service"] if several else [])])
    began = recorded.rows[0][0] if recorded.rows else 0.0
    for arrived, held, service in recorded.rows:
        row = [f"{arrived - began:.6f}", f"{held:.6f}"]
        writer.writerow([*row, service.partition("/")[2]] if several else row)


def _sum_up(recorded: _Recorded, file: Path | None) -> None:
    count = len(recorded.rows)
    span = recorded.rows[-1][0] - recorded.rows[0][0] if recorded.rows else 0.0
    said = f"{count} requests over {span:.0f} s" + (f" in {file}" if file else "")
    missed = f"; {recorded.unserved} that no worker served are left out" if recorded.unserved else ""
    lost = f"; {recorded.dropped} MISSING: they came faster than they were read" if recorded.dropped else ""
    sys.stderr.write(f"{said}{missed}{lost}\n")
