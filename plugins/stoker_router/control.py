"""The daemon's door: JSON lines over a unix socket. One request, one answer; facts are pushed in between.

    > {"op": "hello", "instance": "x"}           < {"op": "hello", "version": 2, "pid": 9, "instance": "x"}
    > {"op": "apply", "id": 7, "routes": [...], "doors": [...]}
                                                 < {"op": "applied", "id": 7}
    > {"op": "inherit", "id": 8, "path": "..."}  < {"op": "applied", "id": 8}; what is sent to who connects to
                                                 that unix socket, an open address, is for the next table
    > {"op": "sample", "id": 9}                < {"op": "applied", "id": 9}, after samples up to now
    > {"op": "stop", "grace": 10, "patience": 0} < (the connection closes at the end)
    < {"op": "sample" | "demand" | "drained" | "bound" | "trouble", ...}
    > {"op": "record", "instance": "x", "services": ["a/b"]}
                                                 < {"op": "requests", "rows": [...], "dropped": 0} as they
                                                 end, until the connection closes; on one of its own
    > {"op": "trace", "instance": "x"}           < {"op": "spans", "rows": [...], "dropped": 0}, likewise; who
                                                 asks later takes them over
    > {"op": "sockets", "instance": "x"}         < {"op": "sockets", "services": [...], "more": false} and the
                                                 listening sockets, as SCM_RIGHTS; on a connection of its own
    < {"op": "error", "id": 7, "message": "..."}            for a line that cannot be obeyed; nothing changed

Facts go to the connection that applied a table last; all of them anew to one that does so first.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, cast

from stoker_router.inheritance import collect, hand_over
from stoker_router.lifetime import Lifetime
from stoker_router.program import Program
from stoker_router.protocol import MAX_LINE, VERSION
from stoker_router.recording import Recorder
from stoker_router.table import read_table

SPANS_EVERY = 0.5
"""Seconds between two batches of spans: nobody waits for them, and each is one message to a collector."""
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
        self._ours = False
        """It said hello and named our instance."""
        self._recorder: Recorder | None = None
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
            self._obey(line)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._recorder is not None:
            self._program.forget(self._recorder)
        if self._ours:
            self._lifetime.left()
        if self._program.reports.subscriber is self:
            self._program.reports.subscriber = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.blocked = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.blocked = False
        self._program.reports.resume()

    # --- operations ---------------------------------------------------------------------------------------

    def _obey(self, line: bytes) -> None:
        request: dict[str, Any] = {}
        try:
            request = json.loads(line)
            match request["op"]:
                case "hello":
                    self._hello(request)
                case "apply":
                    self._apply(request)
                case "sample":
                    self._program.reports.resume()
                    self.push({"op": "applied", "id": request["id"]})
                case "stop":
                    self._program.stop(float(request["grace"]), float(request.get("patience", 0.0)))
                case "record":
                    self._record(request)
                case "trace":
                    self._trace(request)
                case "inherit":
                    self._inherit(request)
                case "sockets":
                    self._hand_over(request)
                case other:
                    raise ValueError(f"unknown op {other!r}")
        except (ValueError, TypeError, KeyError) as error:
            number = request.get("id") if isinstance(request, dict) else None
            self.push({"op": "error", "id": number, "message": f"{type(error).__name__}: {error}"})

    def _hello(self, request: dict[str, Any]) -> None:
        self.push({"op": "hello", "version": VERSION, "pid": os.getpid(), "instance": self._instance})
        if (
            request["instance"] == self._instance and not self._ours
        ):  # a stranger learns whose router this is, and no more
            self._program.reports.subscriber = None  # until it has sent its table
            self._ours = True
            self._lifetime.accompanied()

    def _record(self, request: dict[str, Any]) -> None:
        recorder = self._begin_recording(request)
        self._program.record([str(name) for name in request["services"]], recorder)
        recorder.flush()

    def _trace(self, request: dict[str, Any]) -> None:
        recorder = self._begin_recording(request, op="spans", every=SPANS_EVERY)
        self._program.trace(recorder)
        recorder.flush()

    def _begin_recording(self, request: dict[str, Any], **how: Any) -> Recorder:
        if request["instance"] != self._instance or self._recorder is not None:
            raise ValueError("record once, and for the daemon whose router this is")
        loop = asyncio.get_running_loop()
        self._recorder = Recorder(loop, self.push, lambda: self.blocked, **how)
        return self._recorder

    def _hand_over(self, request: dict[str, Any]) -> None:
        if request["instance"] != self._instance:
            raise ValueError("these sockets are another daemon's")
        try:
            hand_over(self._transport.get_extra_info("socket").fileno(), self._program.listening())
        except OSError:
            self._transport.abort()

    def _inherit(self, request: dict[str, Any]) -> None:
        if not self._ours:
            raise ValueError("inherit without a good hello")
        try:
            self._program.inherited.add(collect(request["path"]))
        except OSError as error:
            raise ValueError(f"nothing to inherit: {error}") from error
        self.push({"op": "applied", "id": request["id"]})

    def _apply(self, request: dict[str, Any]) -> None:
        if not self._ours:
            raise ValueError("apply without a good hello")
        reports = self._program.reports
        self._program.apply(read_table(request["routes"], request.get("doors")))
        if reports.subscriber is not self:
            reports.subscriber = self
            self._program.reintroduce()
        self.push({"op": "applied", "id": request["id"]})
