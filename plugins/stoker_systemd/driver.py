"""The `systemd` driver: workers are transient units of the system's service manager."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from stoker.errors import StokerError, WorkerError
from stoker.model.load import Usage
from stoker.model.quantity import format_bytes
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.plugin.local import last_line
from stoker.plugin.ports import FoundWorker, PluginContext, StartRequest
from stoker.plugin.processes import boot_id, measure, start_time
from stoker_systemd.bus import BusError, BusLostError
from stoker_systemd.filters import filtered
from stoker_systemd.gpus import are_own
from stoker_systemd.starts import Preparation, failure
from stoker_systemd.systemd import Systemd
from stoker_systemd.units import object_path, prefix, unit_name

NAME = "systemd"
PATIENCE = 10.0
"""Seconds a new unit gets to execute its command."""
_RUNNING = ("running", "start")
_OVER = ("dead", "failed", "exited")
_EXITED = 1
"""ExecMainCode of a process that exited; another if a signal ended it (CLD_KILLED, CLD_DUMPED)."""
_UNSET = 2**64 - 1


@dataclass(slots=True)
class _Unit:
    """A worker's unit. `news` is set when systemd has said that it changed."""

    name: str
    handle: WorkerHandle
    news: anyio.Event = field(default_factory=anyio.Event)
    measured: tuple[float, float] | None = None
    """CPU seconds and the time at the last measure."""


class SystemdDriver:
    """Runs workers as units `stoker-INSTANCE-REPLICA.N.service`; see `stoker.plugin.ports.WorkerDriver`.

    systemd holds the tree, the limits, the sandbox and the devices; it keeps the exit of a worker that ends
    while no daemon lives. The option `dynamic_user: false` lets services without `user` run as root.
    Raises StokerError where systemd does not run, or not for us.
    """

    def __init__(self, context: PluginContext) -> None:
        if not os.path.isdir("/run/systemd/system"):
            raise StokerError("backend systemd needs systemd as the service manager of this machine")
        if os.geteuid() != 0:
            raise StokerError("backend systemd needs a daemon that runs as root; use `backend: process`")
        self._instance = context.instance
        self._preparation = Preparation(
            Path(context.runtime_dir, "orders"),
            dynamic_user=bool(context.options.get("dynamic_user", True)),
            log=context.log,
        )
        self._units: dict[str, _Unit] = {}
        self._closed = False
        self._systemd = Systemd(self._changed)

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Start a unit and wait until its command is executed. Raises WorkerError."""
        name = unit_name(self._instance, request.replica, time.monotonic_ns())
        with anyio.CancelScope(shield=True), self._preparation.of(request, name) as ready:
            try:
                result = await self._systemd.start(name, ready.properties)
            except BusError as error:
                raise WorkerError(f"{request.service}: systemd refused the unit: {error}") from error
            except BusLostError as error:
                raise WorkerError(f"{request.service}: {error}; it will be tried again") from error
            state = await self._state(name)
            number = await ready.executed(PATIENCE) if result == "done" else 0
            if result != "done" or number:
                await self._remove(name)
                raise failure(request, ready.path, result, state, number)
        handle = _handle(name, state, request.log_path)
        self._units[name] = _Unit(name, handle)
        return handle

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when the unit and all of its processes are gone. Cancelling leaves the worker as it is."""
        unit = self._unit(handle)
        if unit is None:
            raise WorkerError(f"worker {handle.pid} is not known to this driver")
        while True:
            unit.news = anyio.Event()
            state = await self._state(unit.name)
            if not state or state["SubState"] in _OVER:
                break
            await unit.news.wait()
            if self._closed:
                raise WorkerError(f"the driver was closed while it waited for worker {handle.pid}")
        status = _status(state, dict(handle.extra).get("log", ""))
        await self._remove(unit.name)
        self._units.pop(unit.name, None)
        return status

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Send a signal to the main process."""
        unit = self._unit(handle)
        if unit is not None:
            await self._systemd.signal(unit.name, "main", signum)

    async def kill(self, handle: WorkerHandle) -> None:
        """SIGKILL to everything in the unit; `wait` tells when it is gone."""
        unit = self._unit(handle)
        if unit is not None:
            await self._systemd.signal(unit.name, "all", signal.SIGKILL)

    async def find(self) -> Sequence[FoundWorker]:
        """Units of an earlier daemon whose worker lives. Others are removed on the way."""
        found = []
        for name in await self._systemd.units(f"{prefix(self._instance)}*.service"):
            state = await self._state(name)
            fields = dict(bytes(one).decode().split("=", 1) for one in state.get("LogExtraFields", ()))
            mark = fields.get("STOKER_ID", "")
            if not mark.startswith(f"{self._instance}:"):
                continue
            pid = int(state["ExecMainPID"])
            if state["SubState"] not in _RUNNING or not pid:
                await self._remove(name)
                continue
            found.append(FoundWorker(handle=_handle(name, state, fields.get("STOKER_LOG", "")), mark=mark))
        return found

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found worker over. One that has ended meanwhile is taken over too: `wait` says so."""
        name = dict(found.handle.extra)["unit"]
        self._units[name] = _Unit(name, found.handle)
        return found.handle

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """CPU as systemd counts it, memory as the sum over the living; at the first asking the mean over the
        worker's life."""
        found: dict[int, Usage] = {}
        for unit in filter(None, map(self._unit, handles)):
            state = await self._state(unit.name)
            if not state:
                continue
            seconds, memory = measure(await self._systemd.processes(unit.name))
            if state["CPUUsageNSec"] != _UNSET:
                seconds = state["CPUUsageNSec"] / 1e9
            now = anyio.current_time()
            before, since = unit.measured or (0.0, state["ExecMainStartTimestampMonotonic"] / 1e6)
            unit.measured = seconds, now
            cpu = max(0.0, seconds - before) / (now - since) if now > since else 0.0
            found[unit.handle.pid] = Usage(cpu=cpu, memory=memory, at=now)
        return found

    async def aclose(self) -> None:
        """Close the connection; workers keep running, waiting tasks end with an error."""
        self._closed = True
        for unit in self._units.values():
            unit.news.set()
        self._units.clear()
        await self._systemd.close()

    def _unit(self, handle: WorkerHandle) -> _Unit | None:
        return self._units.get(dict(handle.extra).get("unit", ""))

    def _changed(self, path: str) -> None:
        for unit in self._units.values():
            if not path or object_path(unit.name) == path:
                unit.news.set()

    async def _state(self, name: str) -> dict[str, Any]:
        try:
            return await self._systemd.state(name)
        except BusLostError as error:
            raise WorkerError(str(error)) from error

    async def _remove(self, name: str) -> None:
        """End what is left in a unit, return when systemd has let go of it."""
        await self._systemd.stop(name)
        await self._systemd.forget(name)


def _handle(name: str, state: Mapping[str, Any], log_path: str) -> WorkerHandle:
    """The handle of the worker in that unit."""
    pid = int(state.get("ExecMainPID", 0))
    return WorkerHandle(
        driver=NAME,
        pid=pid,
        start_time=start_time(pid),
        boot_id=boot_id(),
        extra=(("unit", name), ("log", log_path)),
        confined=are_own(path for path, _ in state.get("DeviceAllow", ())) and filtered(pid),
    )


def _status(state: Mapping[str, Any], log_path: str) -> ExitStatus:
    """How the main process of a unit ended."""
    if not state or not state.get("ExecMainExitTimestampMonotonic"):
        return ExitStatus(detail="systemd does not know how it ended")
    number = int(state["ExecMainStatus"])
    oom = state["Result"] == "oom-kill"
    detail = last_line(log_path)
    if oom:
        limit = state["MemoryMax"]
        detail = "out of memory"
        if limit != _UNSET:
            detail += f": used up its limit of {format_bytes(limit)}"
    if int(state["ExecMainCode"]) == _EXITED:
        return ExitStatus(code=number, detail=detail if number or oom else "", oom=oom)
    return ExitStatus(signal=number, detail=detail, oom=oom)
