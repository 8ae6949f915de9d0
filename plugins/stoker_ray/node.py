"""What runs on a node: an actor that starts a worker below a guard and answers for it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from stoker.errors import WorkerError
from stoker.model.service import Limits
from stoker.plugin.guarded import guard_order, refuse_taken, refuse_unborn, start_guard
from stoker.plugin.local import give_back, last_line
from stoker.plugin.processes import TICKS, boot_id, descendants, measure, start_time
from stoker.plugin.start import StartRequest

LOGS = Path("/tmp") / f"stoker-ray-{os.getuid()}"
PAUSE = 0.1
"""Seconds between two looks at a log that somebody follows."""
PIECE = 1 << 20


class Worker:
    """One worker on the node that Ray has chosen. Its methods are those of an actor."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._found: dict[str, Any] = {}
        self._line: asyncio.StreamWriter | None = None
        self._status: asyncio.Task[dict[str, Any]] | None = None
        self._log = ""
        self._given_back = 0
        self._base = 0

    async def start(self, *, gpus: bool) -> dict[str, Any]:
        """Begin the worker, on the GPUs that Ray has given this actor if any were asked for. Returns who it
        is, or why there is none."""
        from ray.util import get_node_ip_address

        try:
            given = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else ""
            request = self._request(get_node_ip_address(), given)
            await self._begin(request)
        except WorkerError as error:
            return {"error": str(error), "permanent": error.permanent}
        return self._found

    async def describe(self) -> dict[str, Any]:
        """Who the worker is and where; {} when it has ended, and then nothing of it is left."""
        if self._status is None or not start_time(self._found["pid"]):
            if self._status is not None:
                await asyncio.shield(self._status)
            return {}
        return self._found

    async def wait(self) -> dict[str, Any]:
        """How it ended, once nothing of it is left."""
        assert self._status is not None
        status = dict(await asyncio.shield(self._status))
        if status["code"] is None and status["signal"] is None:
            return status
        return {**status, "detail": last_line(self._log) if status["code"] else ""}

    async def signal(self, number: int) -> None:
        """To the main process; SIGKILL to all of the tree."""
        if self._line is not None and self._status is not None and not self._status.done():
            self._line.write(json.dumps({"signal": number}).encode() + b"\n")

    async def read(self, offset: int) -> bytes:
        """What the worker has written from there on, once it has; b"" when it has ended and wrote no more."""
        while True:
            ended = self._status is None or self._status.done()
            if offset - self._given_back > PIECE:
                self._given_back = give_back(self._log, offset)
            piece = _piece(self._log, offset)
            if piece or ended:
                return piece
            await asyncio.sleep(PAUSE)

    def forget(self) -> None:
        """Its output has been carried away."""
        Path(self._log).unlink(missing_ok=True)

    async def measure(self) -> tuple[float, int, float]:
        """CPU seconds, resident bytes and age of the tree."""
        pid = self._found["pid"]
        seconds, memory = measure(descendants(pid))
        return seconds, memory, time.clock_gettime(time.CLOCK_BOOTTIME) - start_time(pid) / TICKS

    async def ask(self, argv: list[str]) -> tuple[int, str]:
        """Exit code and last line of a probe's command."""
        try:
            done = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin"},
            )
        except OSError as error:
            return 127, str(error.strerror)
        said, _ = await done.communicate()
        return int(done.returncode or 0), said.decode(errors="replace").strip().rpartition("\n")[2][:200]

    def _request(self, address: str, gpus: str) -> StartRequest:
        values = dict(self._order)
        environ = {**values["environ"], "CUDA_VISIBLE_DEVICES": gpus} if gpus else values["environ"]
        port = int(values["endpoint"].rpartition(":")[2])
        refuse_taken(values["service"], address, port)
        self._found["endpoint"] = f"{address}:{port}"
        argv = tuple(word.replace("{host}", address) for word in values["argv"])
        limits = Limits(**values.pop("limits"))
        self._base = int(values.pop("log_base"))
        return StartRequest(**{**values, "argv": argv, "environ": environ, "limits": limits})

    async def _begin(self, request: StartRequest) -> None:
        LOGS.mkdir(mode=0o700, exist_ok=True)
        self._log = str(LOGS / f"{request.replica}.{os.getpid()}.log")
        environ = dict(request.environ)
        if request.tmp_dir and environ.get("TMPDIR") == request.tmp_dir:
            environ["TMPDIR"] = "/tmp"
        order = guard_order(request, self._log, environ)
        ours, theirs = socket.socketpair()
        with theirs:
            start_guard(theirs)
        reader, self._line = await asyncio.open_connection(sock=ours)
        self._line.write(json.dumps(order).encode() + b"\n")
        said = json.loads(await reader.readline())
        refuse_unborn(request.service, order["path"], said["errno"])
        pid = said["pid"]
        self._found |= {"pid": pid, "start_time": start_time(pid), "boot_id": boot_id(), "mark": request.mark}
        self._found |= {"log_path": request.log_path, "log_base": self._base}
        self._status = asyncio.create_task(self._until_over(reader))

    async def _until_over(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        text = await reader.readline()
        if not text:
            return {"code": None, "signal": None, "detail": "its guard was killed"}
        status: dict[str, Any] = json.loads(text)["status"]
        return status


def _piece(path: str, offset: int) -> bytes:
    with open(path, "rb") as log:
        log.seek(offset)
        return log.read(PIECE)
