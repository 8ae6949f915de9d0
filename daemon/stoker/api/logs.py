"""Workers' output as a stream of JSON lines: `{"service", "replica", "line"}`.

Files are read in a worker thread, a bounded piece at a time, so that a slow disk or a huge log stops
nothing else. Following looks for growth a few times a second, and only while a client is there.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime

import anyio
from anyio import to_thread

from stoker.api.facade import LogFile
from stoker.api.logtext import LogText
from stoker.errors import NotFoundError

PIECE = 256 * 1024
ROUND = 5000
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
    """Seconds since the epoch that a line says of itself, else None: an ISO date and time at its start, or
    the time in a JSON object. Pure.

    Without a zone it is local time, as log libraries write it.
    """
    if line.startswith("{"):
        return _object_time(line)
    return _iso_time(line)


def _iso_time(text: str) -> float | None:
    match = _STAMP.match(text)
    if match is None:
        return None
    try:
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4] or ''}").timestamp()
    except (ValueError, OverflowError):
        return None  # looks like a date and is none: 2026-13-45
    return whole + float(f"0.{match[3] or 0}")


def _object_time(line: str) -> float | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    for key in _TIME_KEYS:
        value = found.get(key)
        if isinstance(value, str):
            return _iso_time(value)
        if isinstance(value, int | float) and 0 < value < 1e14:
            return value / 1000 if value > 1e11 else float(value)
    return None


_STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\d*(Z|[+-]\d\d:?\d\d)?")
_TIME_KEYS = ("time", "ts", "timestamp", "@timestamp")
"""Where log libraries put the time of a JSON line; numbers are seconds or, when large, milliseconds."""


class LogReader:
    """Reads one log onwards, across rotation and truncation. Blocking: used in a thread."""

    def __init__(self, file: LogFile, *, tail: int | None, since: float | None) -> None:
        self.file = file
        self.time = -math.inf
        """What its last line said of its time."""
        self._rest = b""
        self._since = None if since is None else Since(since)
        self._at = 0
        self._text = _open(file.path)
        if self._text is not None:
            old = since is not None and os.stat(file.path).st_mtime < since
            if old:
                self._at = self._text.size
            elif tail is not None:
                self._at = _start_of_tail(self._text, tail)

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
        if self._text is not None:
            self._text.close()

    def _piece(self) -> bytes:
        if self._text is None:
            self._text = _open(self.file.path)
            if self._text is None:
                return b""
        at, piece = self._text.read(self._at, PIECE)
        if not piece and self._is_another(self._text):
            self._at = 0
            return self._piece() if self._text is not None else b""
        self._at = at + len(piece)
        return piece

    def _is_another(self, text: LogText) -> bool:
        """Whether somebody has put another file in its place, which is then opened, or has cut it off."""
        with suppress(OSError):
            there = os.stat(self.file.path)
            if (there.st_dev, there.st_ino) != text.identity:
                text.close()
                self._text = _open(self.file.path)
                return True
        return text.size < self._at


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
        self._waiting: dict[str, deque[str]] = {}
        """Lines that were read and not yet given."""
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
        """The next lines of all logs in the order of the times that they tell, at most `ROUND`. A log that
        has nothing more now holds nobody up; lines that tell no time go with the one before."""
        heap: list[tuple[float, int, str]] = []
        for number, path in enumerate(self._readers):
            self._offer(heap, number, path)
        found: list[bytes] = []
        while heap and len(found) < ROUND:
            _, number, path = heapq.heappop(heap)
            reader, line = self._readers[path], self._waiting[path].popleft()
            entry = {"service": reader.file.service, "replica": reader.file.replica, "line": line}
            found.append(json.dumps(entry, ensure_ascii=False).encode(errors="replace") + b"\n")
            self._offer(heap, number, path)
        for path in self._gone & {path for path in self._readers if not self._waiting.get(path)}:
            self._readers.pop(path).close()
            self._gone.discard(path)
        return found

    def _offer(self, heap: list[tuple[float, int, str]], number: int, path: str) -> None:
        """Put the next line of a log on the heap, if it has one now."""
        reader, waiting = self._readers[path], self._waiting.setdefault(path, deque())
        if not waiting:
            waiting.extend(reader.read(last=path in self._gone or not self._follow))
        if waiting:
            if len(self._readers) > 1 and (written := line_time(waiting[0])) is not None:
                reader.time = written
            heapq.heappush(heap, (reader.time, number, path))


def _open(path: str) -> LogText | None:
    try:
        return LogText(path)
    except OSError:
        return None  # not written yet, or just removed: looked at again in the next round


def _start_of_tail(text: LogText, count: int) -> int:
    """The offset at which the last `count` lines begin."""
    begin, end = text.begin(), text.size
    position, seen = end, 0
    while position > begin and count:
        start = max(begin, position - PIECE)
        block = _between(text, start, position)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at + 1 != end:
                seen += 1
            if seen == count:
                return start + at + 1
        position = start
    return begin if count else end


def _between(text: LogText, start: int, end: int) -> bytes:
    found = b""
    while start + len(found) < end:
        at, piece = text.read(start + len(found), end - start - len(found))
        if not piece:
            break
        found += b"\0" * (at - start - len(found)) + piece  # what was given up meanwhile holds no lines
    return found[: end - start]


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "replace")
