"""The access log: one line of JSON for each request of the services that ask for it, or for some of them.

Lines are collected and written together, at most half a second later; nothing runs while nobody asks. What
cannot be written is dropped: a full disk must not stop requests. Values of queries, headers and bodies, in
which secrets travel, are not written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from stoker_router.wishes import field

FLUSH = 0.5
"""Seconds after which a line is written at the latest."""
MAX_WAITING = 64 * 1024
"""Bytes of lines that are collected at most."""
MAX_SIZE = 64 * 1024 * 1024
"""Bytes of the file, beyond which another is begun."""
KEEP = 4
"""So many older files are kept beside it."""

_ID, _AGENT, _PARENT, _HOST = field("x-request-id"), field("user-agent"), field("traceparent"), field("host")
_LINE = re.compile(rb"(\S+) ([^ ?]*)")


class Mark(NamedTuple):
    """A request in its caller's trace: ids in hexadecimal. `parent` is "" for one that begins the trace."""

    trace: str
    parent: str
    span: str


class Trail:
    """What is noted of one request on its way. `chosen`: it is written whatever comes of it."""

    __slots__ = ("began", "chosen", "failed", "head", "mark", "received", "sent", "worker")

    def __init__(self, head: bytes, *, chosen: bool) -> None:
        self.head = head
        self.chosen = chosen
        self.received = 0
        """Bytes of its body."""
        self.sent = 0
        """Bytes of the answer, its head included."""
        self.began = 0.0
        """When its answer began."""
        self.mark: Mark | None = None
        """Who it is in its caller's trace, if a span is to be told of it."""
        self.failed: list[tuple[float, str, str]] = []
        """Tries that came to nothing: when, on which worker, why."""
        self.worker = ""
        """Who had it last."""

    def fail(self, worker: str, reason: str) -> None:
        """A try has come to nothing."""
        self.worker = worker
        self.failed.append((monotonic(), worker, reason))


class Entry(NamedTuple):
    """How a request ended. Times are monotonic seconds; status 0: its client went away."""

    service: str
    client: str
    arrived: float
    waited: float
    status: int
    worker: str
    tries: int


class AccessLog:
    """The file of all services."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, wall: Callable[[], float]) -> None:
        self._loop = loop
        self._path = path
        self._wall = wall
        """Seconds since the epoch."""
        self._lines: list[bytes] = []
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._fd = -1
        self._size = 0

    def write(self, trail: Trail, entry: Entry) -> None:
        """Note a request that has ended."""
        line = json.dumps(_document(trail, entry, self._wall()), separators=(",", ":")).encode() + b"\n"
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting > MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH, self.flush)

    def flush(self) -> None:
        """Write what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data, self._lines, self._waiting = b"".join(self._lines), [], 0
        with contextlib.suppress(OSError):
            if data:
                self._open()
                self._size += os.write(self._fd, data)

    def _open(self) -> None:
        """Have the file open; begin another where it is full. Raises OSError."""
        if self._fd >= 0 and self._size < MAX_SIZE:
            return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_size >= MAX_SIZE:
                for number in range(KEEP - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
                os.rename(self._path, f"{self._path}.1")
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size


def _document(trail: Trail, entry: Entry, wall: float) -> dict[str, object]:
    now = monotonic()
    arrived = wall - (now - entry.arrived)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(arrived)) + f".{int(arrived % 1 * 1000):03d}Z"
    parent = _found(_PARENT, trail.head)
    said: dict[str, object] = {
        "time": stamp,
        "service": entry.service,
        "client": entry.client,
        **asked(trail.head),
        "status": entry.status or 499,
        "duration_ms": _ms(now - entry.arrived),
        "queue_ms": _ms(max(0.0, entry.waited)),
        "first_byte_ms": _ms(trail.began - entry.arrived) if trail.began else None,
        "bytes_in": trail.received,
        "bytes_out": trail.sent,
        "worker": entry.worker or None,
        "tries": entry.tries,
        "request_id": _found(_ID, trail.head),
        "trace_id": parent[3:35] if parent else "",
        "agent": agent_of(trail.head),
    }
    return {name: value for name, value in said.items() if value not in (None, "")}


def asked(head: bytes) -> dict[str, str]:
    """What a request line and its host say, without the query. The head is one that was parsed."""
    method, path = _LINE.match(head).groups()  # type: ignore[union-attr]
    return {
        "method": method.decode("latin1"),
        "host": _found(_HOST, head),
        "path": path.decode("latin1"),
    }


def agent_of(head: bytes) -> str:
    """What the client says that it is, as far as that is worth keeping."""
    return _found(_AGENT, head)[:200]


def _found(pattern: re.Pattern[bytes], head: bytes) -> str:
    found = pattern.search(head)
    return found[1].decode("latin1") if found is not None else ""


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
