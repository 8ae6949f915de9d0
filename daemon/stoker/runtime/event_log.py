"""The events on disk, so that a replica's story goes on after the daemon's death.

    STATE/events.jsonl, STATE/events.1.jsonl     one event a line, as the API tells it

Written a moment after each step of the control loop, read only when somebody asks for the past. A line that
cannot be read ends the past: what lies before it has no unbroken order any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio

from stoker.api.narrate import event_document
from stoker.model.event import Event, Recorded

LARGEST = 2 * 2**20
"""Bytes of one file; there are two."""
GATHERING = 0.01
"""Seconds that an event waits for others: what it leads to, a worker's start above all, comes first."""
MOST = 5000
"""Events of the past that are read again."""
_LAST = 64 * 1024
"""Bytes at the end of the file in which the last whole event is found."""


class EventLog:
    """The events of one state directory. `trouble` is told, once, when they cannot be written."""

    def __init__(self, state_dir: str | Path, trouble: Callable[[str], None]) -> None:
        self._path = Path(state_dir) / "events.jsonl"
        self._older = Path(state_dir) / "events.1.jsonl"
        self._trouble = trouble
        self._waiting: list[Event] = []
        self._come = anyio.Event()
        self._troubled = False
        tail = _tail(self._path)
        self._torn = not tail.endswith(b"\n") if tail else False
        newest = (_documents(tail) or _documents(_tail(self._older)))[-1:]
        self.last_number = _number(newest[0]) if newest else 0
        """The number of the last event that is written."""

    def add(self, event: Event) -> None:
        """Have an event written soon. Quick."""
        self._waiting.append(event)
        self._come.set()

    async def run(self) -> None:
        """Write what comes until cancelled."""
        while True:
            await self._come.wait()
            await anyio.sleep(GATHERING)
            self._come = anyio.Event()
            self.flush()

    def flush(self) -> None:
        """Write what waits now."""
        waiting, self._waiting = self._waiting, []
        lines = [
            json.dumps(event_document(event), ensure_ascii=False, separators=(",", ":")) for event in waiting
        ]
        if not lines:
            return
        try:
            if self._size() > LARGEST:
                self._path.replace(self._older)
            with self._path.open("a", encoding="utf-8", errors="replace") as file:
                file.write("\n" * self._torn + "\n".join(lines) + "\n")
            self._torn = False
        except OSError as error:
            if not self._troubled:
                self._trouble(
                    f"cannot write events to {self._path}: {error}; the next daemon will not know them"
                )
            self._troubled = True
        else:
            self._troubled = False

    def past(self) -> list[Recorded]:
        """The events of earlier lives, oldest first, without a gap up to the last one."""
        found = _documents(_read(self._older)) + _documents(_read(self._path))
        numbered = [document for document in found if _number(document) <= self.last_number][-MOST:]
        start = 0
        for index, (one, two) in enumerate(pairwise(numbered), 1):
            if _number(two) != _number(one) + 1:
                start = index
        return [_recorded(document) for document in numbered[start:]]

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LAST))
            return file.read()
    except OSError:
        return b""


def _documents(text: bytes) -> list[dict[str, Any]]:
    """The whole events in it."""
    found = []
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue  # the first line of a tail, or the last one of a daemon that was killed while writing
        if isinstance(document, dict) and _number(document):
            found.append(document)
    return found


def _number(document: dict[str, Any]) -> int:
    digits = str(document.get("id", "")).lstrip("e")
    return int(digits) if digits.isdecimal() else 0


def _recorded(document: dict[str, Any]) -> Recorded:
    return Recorded(
        id=str(document["id"]),
        at=float(document.get("at", 0.0)),
        wall=_wall(document),
        cause=str(document.get("cause", "")),
        replica=str(document.get("replica", "")),
        document=document,
    )


def _wall(document: dict[str, Any]) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(document.get("time", ""))).timestamp()
    except ValueError:
        return 0.0
