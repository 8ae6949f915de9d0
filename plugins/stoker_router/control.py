"""The daemon's door: JSON lines over a unix socket. One request, one answer; facts are pushed in between.

    > {"op": "hello"}                            < {"op": "hello", "version": 1, "pid": 9, "instance": "..."}
    > {"op": "apply", "id": 7, "routes": [...]}  < {"op": "applied", "id": 7}
    > {"op": "stop", "grace": 10}                < (the connection closes at the end)
    < {"op": "sample" | "demand" | "drained" | "bound" | "trouble", ...}
    < {"op": "error", "message": "..."}                     for a line that is none of these

Facts go to the connection that said hello last.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, cast

from stoker_router.lifetime import Lifetime
from stoker_router.program import Program
from stoker_router.table import VERSION, read_table

MAX_LINE = 16 * 1024 * 1024
MAX_UNREAD = 1024 * 1024
"""Bytes for a daemon that does not read, beyond which it gets no load samples."""


class Session(asyncio.Protocol):
    """One connection to the control socket."""

    def __init__(self, program: Program, lifetime: Lifetime, instance: str) -> None:
        self._program = program
        self._lifetime = lifetime
        self._instance = instance
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._introduced = False
        """It has got all facts since its hello."""
        self.blocked = False

    def push(self, message: dict[str, Any]) -> None:
        """Send one line."""
        if not self._transport.is_closing():
            self._transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    # --- called by the event loop -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNREAD)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_LINE:
            self._transport.abort()
        for line in lines:
            try:
                self._obey(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self.push({"op": "error", "message": f"not understood: {type(error).__name__}: {error}"})

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        reports = self._program.reports
        if reports.subscriber is self:
            reports.subscriber = None
            self._lifetime.alone()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.blocked = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.blocked = False
        self._program.reports.resume()

    # --- operations ---------------------------------------------------------------------------------------

    def _obey(self, request: dict[str, Any]) -> None:
        match request["op"]:
            case "hello":
                self._hello()
            case "apply":
                self._apply(request)
            case "stop":
                self._program.stop(float(request["grace"]))
            case other:
                self.push({"op": "error", "message": f"unknown op {other!r}"})

    def _hello(self) -> None:
        self.push({"op": "hello", "version": VERSION, "pid": os.getpid(), "instance": self._instance})
        self._program.reports.subscriber = self
        self._introduced = False
        self._lifetime.accompanied()

    def _apply(self, request: dict[str, Any]) -> None:
        self._program.apply(read_table(request["routes"]))
        self.push({"op": "applied", "id": request["id"]})
        if not self._introduced and self._program.reports.subscriber is self:
            self._introduced = True
            self._program.reintroduce()
