"""From the engine's record of a container's output to the worker's log, while it grows.

The engine's log driver `k8s-file` writes lines `TIME STREAM F|P TEXT` to a file that is ours; it goes on
while no daemon lives. What was taken is punched out of it, so that it takes up no space, and how far that
was stands beside it, so that the next daemon goes on there.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stoker.plugin.local import give_back, open_log

PIECE = 1 << 20
TAKEN = ".taken"
PAUSE = 0.02
"""Seconds in which writes of a worker are gathered."""
_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")
_BLOCK = 4096
_libc = ctypes.CDLL(None, use_errno=True)


class Outputs:
    """Watches the directory of these files. One inotify for all; nothing wakes up while none grows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._feeds: dict[str, Feed] = {}
        self._names: dict[str, str] = {}
        """The files of containers."""
        self._descriptor = -1

    def follow(self, container: str, raw: str, log: str) -> None:
        """Begin to carry from one file to the other. Raises WorkerError."""
        self._open()
        name = self._names[container] = os.path.basename(raw)
        feed = self._feeds[name] = Feed(raw, log)
        feed.take()

    async def leave(self, container: str) -> None:
        """Carry the rest and remove the engine's file."""
        feed = self._feeds.pop(self._names.pop(container, ""), None)
        if feed is not None:
            feed.end()

    def forget_others(self, raws: Iterable[str]) -> None:
        """Remove what containers that are gone have left."""
        kept = {os.path.basename(raw) for raw in raws}
        for path in self.directory.glob("*.log*"):
            if path.name.removesuffix(TAKEN) not in kept:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop; the next daemon goes on where this one is."""
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify: " + os.strerror(ctypes.get_errno()))
        _libc.inotify_add_watch(self._descriptor, os.fsencode(self.directory), _IN_MODIFY)
        asyncio.get_running_loop().add_reader(self._descriptor, self._stirred)

    def _stirred(self) -> None:
        with suppress(BlockingIOError):
            for name in _names(os.read(self._descriptor, 65536)):
                feed = self._feeds.get(name)
                if feed is not None:
                    feed.soon()


class Feed:
    """One container's output."""

    def __init__(self, raw: str, log: str) -> None:
        self._raw = raw
        self._log = open_log(log)
        self._mark = f"{raw}{TAKEN}"
        self._at = _number(self._mark)
        self._punched = self._at
        self._source = -1
        self._waiting: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Carry what has come, in a moment."""
        if self._waiting is None and self._log >= 0:
            self._waiting = asyncio.get_running_loop().call_later(PAUSE, self.take)

    def take(self) -> None:
        """Carry one piece; if there is more, soon the next."""
        self._waiting = None
        if self._carry():
            self.soon()

    def end(self) -> None:
        """Carry all that is left."""
        while self._carry():
            pass
        self.close()
        for path in (self._raw, self._mark):
            Path(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files."""
        if self._waiting is not None:
            self._waiting.cancel()
        for descriptor in (self._source, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._source = self._log = -1

    def _carry(self) -> bool:
        """Returns whether there may be more."""
        if self._source < 0:
            try:
                self._source = os.open(self._raw, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return False  # nothing was written yet
        piece = os.pread(self._source, PIECE, self._at)
        text, length = plain(piece)
        if not length:
            return False
        _write(self._log, text)
        self._at += length
        Path(self._mark).write_text(str(self._at), encoding="ascii")
        self._punch()
        return len(piece) == PIECE

    def _punch(self) -> None:
        end = self._at - self._at % _BLOCK
        if end - self._punched >= PIECE:
            self._punched = give_back(self._raw, end)


def plain(record: bytes) -> tuple[bytes, int]:
    """What a worker wrote, from whole lines of the record; and how long these are. Pure."""
    length = record.rfind(b"\n") + 1
    found = []
    for line in record[:length].split(b"\n")[:-1]:
        fields = line.split(b" ", 3)
        if len(fields) == 4:
            found.append(fields[3] if fields[2] == b"P" else fields[3] + b"\n")
    return b"".join(found), length


def _write(log: int, text: bytes) -> None:
    while text:
        text = text[os.write(log, text) :]


def _number(path: str) -> int:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _names(events: bytes) -> set[str]:
    found, at = set(), 0
    while at < len(events):
        _, _, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        found.add(os.fsdecode(events[at : at + length].rstrip(b"\0")))
        at += length
    return found
