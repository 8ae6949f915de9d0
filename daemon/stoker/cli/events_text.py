"""Events (as the API gives them) as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

STYLES = {"info": "", "warning": "yellow", "error": "red"}


def clock(iso: str) -> str:
    """The local time of day of an ISO time."""
    return datetime.fromisoformat(iso).astimezone().strftime("%H:%M:%S")


def event_line(event: Mapping[str, Any]) -> str:
    """Time of day and sentence."""
    return f"{clock(event['time'])} {event['message']}"


def story_lines(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(line, style) per event, with the seconds since the one before and what caused it."""
    known = {event["id"]: event for event in events}
    before: float | None = None
    for event in events:
        gap = "" if before is None else f"+{event['at'] - before:.2f}s"
        before = event["at"]
        cause = known.get(event["cause"])
        line = f"{clock(event['time'])} {gap:>9}  {event['message']}"
        yield line, STYLES.get(event["severity"], "")
        if cause is not None and cause["subject"] != event["subject"]:
            yield f"{'':20}because {cause['message']}", "dim"
