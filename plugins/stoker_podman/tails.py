"""From docker's record of a container's output to the worker's log, by its API, while it grows.

docker keeps the record itself, at most `KEPT` for each container. Each message has a time in nanoseconds:
that of the last one taken stands in a file, with how many of it were taken, so that the next daemon goes on
there.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import anyio

from stoker.plugin.local import open_log
from stoker_podman.api import Engine, EngineError, EngineLostError
from stoker_podman.frames import Frames

KEPT = {"max-size": "16m", "max-file": "2"}
"""What docker's log driver `json-file` keeps of a container's output."""
AGAIN = 0.5
"""Seconds until an engine that has hung up is asked again."""
RESTING = 10.0
"""Seconds the rest of a worker's output may take when it has ended."""


class Tails:
    """The outputs of all containers. Each is one request, answered for as long as the container lives."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        self.directory = directory
        self._engine = engine
        self._tails: dict[str, Tail] = {}

    def follow(self, container: str, raw: str, log: str) -> None:
        """Begin to carry to the log. Raises WorkerError."""
        self._tails[container] = Tail(self._engine, container, Path(raw), log)

    async def leave(self, container: str) -> None:
        """Carry the rest; the container has ended."""
        tail = self._tails.pop(container, None)
        if tail is not None:
            await tail.end()

    def forget_others(self, raws: Iterable[str]) -> None:
        """Remove what containers that are gone have left."""
        kept = {os.path.basename(raw) for raw in raws}
        for path in self.directory.glob("*.log"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop; the next daemon goes on where this one is."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()


class Tail:
    """One container's output. `place` holds how far it was taken."""

    def __init__(self, engine: Engine, container: str, place: Path, log: str) -> None:
        self._engine = engine
        self._path = f"/containers/{container}/logs"
        self._place = place
        self._log = open_log(log)
        self._taken = Taken(_text(place))
        self._following = asyncio.create_task(self._follow())

    async def end(self) -> None:
        """Carry all that is left, as far as the engine still has it."""
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        with suppress(EngineError, EngineLostError), anyio.move_on_after(RESTING):
            await self._read(follow="false")
        self.close()
        self._place.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the connection and the file."""
        self._following.cancel()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    async def _follow(self) -> None:
        while True:
            with suppress(EngineError, EngineLostError):
                await self._read(follow="true")
            await anyio.sleep(AGAIN)

    async def _read(self, follow: str) -> None:
        frames = Frames()
        again = self._taken.again()

        def take(piece: bytes) -> None:
            texts = [text for text in map(again.text, frames.feed(piece)) if text is not None]
            if texts and self._log >= 0:
                _write(self._log, b"".join(texts))
                self._taken = again.taken
                self._place.write_text(str(self._taken), encoding="ascii")

        query = {"stdout": "true", "stderr": "true", "timestamps": "true", "follow": follow}
        await self._engine.stream("GET", self._path, take, **query, **again.since)


class Taken:
    """The time of the last message taken, and how many of that very time."""

    def __init__(self, text: str = "") -> None:
        stamp, _, count = text.partition(" ")
        self.stamp = stamp
        self.count = int(count) if count.isdigit() else 0

    def __str__(self) -> str:
        return f"{self.stamp} {self.count}"

    def again(self) -> Again:
        """To go on behind it."""
        return Again(self)


class Again:
    """Reads messages from a time on, that time included, and leaves out what was taken. Pure."""

    def __init__(self, taken: Taken) -> None:
        self.taken = Taken(str(taken))
        self.since = {"since": seconds(taken.stamp)} if taken.stamp else {}
        self._known = taken.stamp
        self._skip = taken.count

    def text(self, message: bytes) -> bytes | None:
        """What the worker wrote of a message `TIME TEXT`, None for one that was taken before."""
        head, _, text = message.partition(b" ")
        stamp = head.decode("ascii", "replace")
        if self._skip and stamp == self._known:
            self._skip -= 1
            return None
        taken = self.taken
        taken.stamp, taken.count = stamp, taken.count + 1 if stamp == taken.stamp else 1
        return text


def seconds(stamp: str) -> str:
    """2026-12-01T12:00:00.123456789Z as docker's queries want it, 1796126400.123456789. Pure."""
    whole, _, part = stamp.removesuffix("Z").partition(".")
    return f"{calendar.timegm(time.strptime(whole, '%Y-%m-%dT%H:%M:%S'))}.{part or '0'}"


def _write(log: int, text: bytes) -> None:
    while text:
        text = text[os.write(log, text) :]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
