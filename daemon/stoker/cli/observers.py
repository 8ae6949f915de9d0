"""What `stoker up` and `stoker daemon` show while they run: plain lines, or the live screen in a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import TextIO

from stoker.api.facade import DaemonFacade
from stoker.api.narrate import Narrator, severity
from stoker.model.event import Event
from stoker.runtime.options import Observer


def wants_screen(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the live screen can be shown. Pure but for asking the stream."""
    return stream.isatty() and environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def observers_for_terminal() -> tuple[Observer, ...]:
    """The live screen in a terminal, plain lines elsewhere."""
    if wants_screen(sys.stdout, os.environ):
        from stoker.cli.live import live_screen

        return (live_screen,)
    return (plain_lines,)


def observer_for_service() -> Observer:
    """Entries for the journal where the output goes there, plain lines elsewhere."""
    from stoker.cli.journald import is_our_output, journal_entries

    return journal_entries if is_our_output(os.environ, sys.stdout.fileno()) else plain_lines


async def plain_lines(facade: DaemonFacade) -> None:
    """One line per event that matters, with the time of day unless the journal adds it."""
    stamped = "JOURNAL_STREAM" not in os.environ
    async for line, _ in told(facade):
        try:
            sys.stdout.write(f"{line if stamped else line.partition(' ')[2]}\n")
            sys.stdout.flush()
        except OSError:
            return  # nobody reads any more; the daemon goes on


async def told(facade: DaemonFacade) -> AsyncIterator[tuple[str, str]]:
    """(line, severity) for each event that matters, from the daemon's beginning on."""
    narrator = Narrator()
    async for event in facade.events(facade.beginning):
        for text in narrator.tell(event):
            yield f"{_clock(event)} {text}", severity(event)


def _clock(event: Event) -> str:
    return time.strftime("%H:%M:%S", time.localtime(event.wall))
