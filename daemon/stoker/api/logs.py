"""Workers' output as a stream of JSON lines: `{"service", "replica", "line"}`.

Files are read in a worker thread, a bounded piece at a time, so that a slow disk or a huge log stops
nothing else. Following looks for growth a few times a second, and only while a client is there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from io import FileIO

import anyio
from anyio import to_thread

from stoker.api.facade import LogFile
from stoker.errors import NotFoundError

PIECE = 256 * 1024
LONGEST_LINE = 64 * 1024
POLL = 0.25


class Since:
    """Lets lines through that were written at or after a moment, as far as the lines themselves tell.

    A line without a time of its own goes with the one before it. Where no line has told a time yet, all
    are let through: workers write their logs themselves, and nobody notes when.
    """

    def __init__(self, moment: float) -> None:
        self._moment = moment
        self._open = True

    def passes(self, line: str) -> bool:
        """Whether to show the line."""
        if (written := line_time(line)) is not None:
            self._open = written >= self._moment
        return self._open


def line_time(line: str) -> float | None:
    """Seconds since the epoch that an ISO date and time at the line's start stands for, else None. Pure.

    Without a zone it is local time, as log libraries write it.
    """
    match = _STAMP.match(line)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}{match[3] or ''}").timestamp()
    except (ValueError, OverflowError):
        return None  # looks like a date and is none: 2026-13-45


_STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")


class LogReader:
    """Reads one log file onwards, across rotation and truncation. Blocking: used in a thread."""

    def __init__(self, file: LogFile, *, tail: int | None, since: float | None) -> None:
        self.file = file
        self._rest = b""
        self._since = None if since is None else Since(since)
        self._stream = _open(file.path)
        if self._stream is not None:
            old = since is not None and os.fstat(self._stream.fileno()).st_mtime < since
            if old:
                self._stream.seek(0, os.SEEK_END)
            elif tail is not None:
                self._stream.seek(_start_of_tail(self._stream.fileno(), tail))

    def read(self, *, last: bool) -> list[str]:
        """The next complete lines, [] at the end. `last`: an unfinished line counts as a line."""
        while lines := self._lines(last=last):
            if self._since is None:
                return lines
            if kept := [line for line in lines if self._since.passes(line)]:
                return kept
        return []

    def _lines(self, *, last: bool) -> list[str]:
        while piece := self._piece():
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], b""
            if lines:
                return [_text(line) for line in lines]
        rest, self._rest = (self._rest, b"") if last else (b"", self._rest)
        return [_text(rest)] if rest else []

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _piece(self) -> bytes:
        if self._stream is None:
            self._stream = _open(self.file.path)
            if self._stream is None:
                return b""
        piece = self._stream.read(PIECE)
        return piece or self._after_rotation(self._stream)

    def _after_rotation(self, stream: FileIO) -> bytes:
        here = os.fstat(stream.fileno())
        with suppress(OSError):
            there = os.stat(self.file.path)
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                stream.close()
                self._stream = _open(self.file.path)
                return self._stream.read(PIECE) if self._stream else b""
        if here.st_size < stream.tell():
            stream.seek(0)
            return stream.read(PIECE)
        return b""


class LogTail:
    """Several log files as one stream. `listing` is asked again while following: replicas come and go."""

    def __init__(
        self,
        listing: Callable[[], Sequence[LogFile]],
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
    ) -> None:
        self._listing = listing
        self._follow = follow
        self._tail = tail
        self._since = since
        self._readers: dict[str, LogReader] = {}
        self._gone: set[str] = set()
        self._ended = False

    async def open(self) -> None:
        """Open the files: what is written from now on is new. Raises NotFoundError for an unknown name."""
        self._listing()
        await to_thread.run_sync(self._look, self._tail)

    async def lines(self) -> AsyncIterator[bytes]:
        """JSON lines, until the end or, following, until cancelled."""
        try:
            while True:
                lines = await to_thread.run_sync(self._round)
                if lines:
                    yield b"".join(lines)
                elif not self._follow or (self._ended and not self._readers):
                    return
                else:
                    await anyio.sleep(POLL)
                    await to_thread.run_sync(self._look, None)
        finally:
            for reader in self._readers.values():
                reader.close()

    def _look(self, tail: int | None) -> None:
        """Open files that are new, from their start (or their tail, the first time)."""
        files: Sequence[LogFile] = ()
        try:
            files = self._listing()
        except NotFoundError:
            self._ended = True  # a replica that is gone: no more of it can come
        for file in files:
            if file.path not in self._readers:
                self._readers[file.path] = LogReader(file, tail=tail, since=self._since)
        self._gone = set(self._readers) - {file.path for file in files}

    def _round(self) -> list[bytes]:
        """The next piece of each file; without following one file after the other, oldest first."""
        found = []
        for path, reader in list(self._readers.items()):
            gone = path in self._gone
            lines = reader.read(last=gone or not self._follow)
            for line in lines:
                entry = {"service": reader.file.service, "replica": reader.file.replica, "line": line}
                found.append(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            if gone and not lines:
                self._readers.pop(path).close()
            if found and not self._follow:
                break
        return found


def _open(path: str) -> FileIO | None:
    try:
        return FileIO(path, "rb")
    except OSError:
        return None  # not written yet, or just removed: looked at again in the next round


def _start_of_tail(descriptor: int, count: int) -> int:
    """The offset at which the last `count` lines begin."""
    end = os.fstat(descriptor).st_size
    position, seen = end, 0
    while position > 0:
        size = min(PIECE, position)
        block = os.pread(descriptor, size, position - size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if position - size + at + 1 != end:
                seen += 1
            if seen == count:
                return position - size + at + 1
        position -= size
    return 0 if count else end


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "replace")
