"""The drivers `podman` and `docker`: workers are containers, held by the engine and not by this process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from stoker.errors import WorkerError
from stoker.model.load import Usage
from stoker.model.quantity import format_bytes
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import Probe, ServiceSpec
from stoker.plugin.local import last_line
from stoker.plugin.ports import FoundWorker, PluginContext, ProbeResult, StartRequest
from stoker.plugin.processes import boot_id, children, descendants, is_zombie, measure, start_time
from stoker_podman import images
from stoker_podman.api import EngineError, EngineLostError
from stoker_podman.docker import Docker
from stoker_podman.frames import Frames
from stoker_podman.health import from_label, to_label
from stoker_podman.kind import OVER, Kind, Listed
from stoker_podman.mains import Mains
from stoker_podman.memory import account, killed
from stoker_podman.podman import Podman
from stoker_podman.spec import CHECK, LOG, MARK, RAW, container_name
from stoker_podman.starts import Preparation

LOOKING = 5.0
"""Seconds a new daemon waits for an engine that does not answer; then it holds what runs and asks again."""
HELD = 0.5
"""Seconds between two looks at the process of a worker that is held."""
FORKING = 1.0
"""Seconds the container's init gets to start the command."""
ENDING = 10.0
"""Seconds the engine gets to notice that a container has ended."""
POLL = 0.02
"""Seconds between two looks meanwhile."""
_SIGNALLED = 128


@dataclass(slots=True)
class _Container:
    """A worker's container. `init`: the first process in it, whose end is the end of all."""

    id: str
    handle: WorkerHandle
    init: int
    account: Path | None
    """Where the kernel counts processes killed for want of memory."""
    memory: int | None = None
    check: Probe | None = None
    """That of its image."""
    measured: tuple[float, float] | None = None
    """CPU seconds and the time at the last measure."""


class ContainerDriver:
    """Runs workers as containers of one kind of engine; see `stoker.plugin.ports.WorkerDriver`.

    The command runs below a small init, so that signals and exit codes are those of any process; the kernel
    ends everything in the container with that init. Exit codes above 128 are read as signals, as a shell
    gives them. The option `socket` names the engine's; else CONTAINER_HOST or DOCKER_HOST does, else it is
    the usual one. `nproc` goes with `limits.nofile` where podman lacks CAP_SYS_RESOURCE and could not hold
    its default.
    """

    def __init__(self, context: PluginContext, kind: Kind) -> None:
        self._instance = context.instance
        self._kind = kind
        self._engine = kind.engine
        place = Path(context.state_dir, kind.name)
        self._outputs = kind.outputs(place / "output")
        self._mains = Mains(place / "mains")
        self._preparation = Preparation(place / "root", place / "output", context.options.get("nproc"))
        self._checks: dict[str, Probe | None] = {}
        """Of images."""
        self._containers: dict[str, _Container] = {}
        self._dead: set[str] = set()
        """Ended, and not removed yet."""
        self._listed = False
        """Whether the containers of the daemon before are known."""

    async def prepare(self, spec: ServiceSpec, say: Callable[[str], None]) -> None:
        """Fetch the service's image, if it has one. Raises WorkerError."""
        if image := spec.container.image:
            self._checks[image] = await images.provide(self._kind, spec.container, say)

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Make a container and start it. Raises WorkerError."""
        name = container_name(self._instance, request.replica, time.monotonic_ns())
        check = self._checks.get(request.container.image)
        place = replace(self._preparation.place(request, name), check=to_label(check))
        with anyio.CancelScope(shield=True):
            try:
                made = await self._kind.create(request, self._instance, name, place)
                try:
                    await self._begin(made)
                    state = await self._state(made)
                except EngineError:
                    await self._remove(made)
                    raise
            except EngineError as error:
                raise self._kind.failure(request, error) from error
            except EngineLostError as error:
                raise WorkerError(f"{request.service}: {error}; it will be tried again") from error
        pid = await self._main(state["Pid"])
        handle = WorkerHandle(
            driver=self._kind.name,
            pid=pid,
            start_time=start_time(pid),
            boot_id=boot_id(),
            extra=(("container", made), ("log", request.log_path), ("raw", place.raw)),
        )
        self._mains.note(made, pid, start_time(pid))
        self._outputs.follow(made, place.raw, request.log_path)
        self._containers[made] = _Container(
            made, handle, state["Pid"], account(state["Pid"]), request.limits.memory, check
        )
        return handle

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when nothing of the container is left. Cancelling leaves the worker as it is."""
        while (one := self._of(handle)) is None:
            if self._listed:
                raise WorkerError(f"worker {handle.pid} is not known to this driver")
            if start_time(handle.pid) != handle.start_time:
                return ExitStatus(detail=f"it has ended while {self._kind.name} could not be asked")
            await anyio.sleep(HELD)
        await _gone(one.init)
        oom = killed(one.account)
        state = await self._ended(one)
        extra = dict(handle.extra)
        await self._outputs.leave(one.id)
        status = _status(self._kind.name, state, extra["log"], one.memory, oom=oom)
        await self._bury(one.id)
        self._containers.pop(one.id, None)
        self._mains.forget(one.id)
        return status

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Send a signal to the command, by way of its init."""
        await self._kill(handle, signum)

    async def kill(self, handle: WorkerHandle) -> None:
        """SIGKILL to the init: the kernel ends the rest with it."""
        await self._kill(handle, signal.SIGKILL)

    async def find(self) -> Sequence[FoundWorker]:
        """Running containers of this instance. Others of it are removed on the way."""
        found = []
        for entry in await self._until_listed():
            pid = await self._main(entry.init)
            pid, start = self._mains.of(entry.id) or (pid, start_time(pid))
            # What has just ended may be listed as running still.
            if not (entry.init and start) or start_time(pid) != start or is_zombie(pid):
                await self._remove(entry.id)
                continue
            log, raw = entry.labels.get(LOG, ""), entry.labels.get(RAW, "")
            handle = WorkerHandle(
                driver=self._kind.name,
                pid=pid,
                start_time=start,
                boot_id=boot_id(),
                extra=(("container", entry.id), ("log", log), ("raw", raw)),
            )
            self._containers[entry.id] = _Container(
                entry.id,
                handle,
                entry.init,
                account(entry.init),
                check=from_label(entry.labels.get(CHECK, "")),
            )
            found.append(FoundWorker(handle=handle, mark=entry.labels.get(MARK, "")))
        self._listed = True
        self._mains.forget_others(self._containers)
        self._outputs.forget_others(dict(one.handle.extra)["raw"] for one in self._containers.values())
        return found

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found container over, and its output from where the daemon before has left it."""
        extra = dict(found.handle.extra)
        self._outputs.follow(extra["container"], extra["raw"], extra["log"])
        return found.handle

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """CPU and memory of all processes below each init; at the first asking the mean over its life."""
        found: dict[int, Usage] = {}
        for one in filter(None, map(self._of, handles)):
            seconds, memory = measure(descendants(one.init))
            now = anyio.current_time()
            before, since = one.measured or (0.0, one.handle.start_time / os.sysconf("SC_CLK_TCK"))
            one.measured = seconds, now
            cpu = max(0.0, seconds - before) / (now - since) if now > since else 0.0
            found[one.handle.pid] = Usage(cpu=cpu, memory=memory, at=now)
        return found

    async def ask(self, handle: WorkerHandle, argv: Sequence[str]) -> ProbeResult:
        """Run a probe's command in the container."""
        one = self._of(handle)
        if one is None:
            return ProbeResult(ok=False, detail="its container is gone")
        said, frames = bytearray(), Frames()
        try:
            body = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
            made = (await self._engine.call("POST", f"/containers/{one.id}/exec", body))["Id"]
            await self._engine.stream(
                "POST",
                f"/exec/{made}/start",
                lambda piece: said.extend(b"".join(frames.feed(piece))),
                {"Detach": False},
            )
            code = (await self._engine.call("GET", f"/exec/{made}/json"))["ExitCode"]
        except (EngineError, EngineLostError) as error:
            return ProbeResult(ok=False, detail=str(error)[:200])
        last = "".join(
            c for c in said.decode(errors="replace").strip().rpartition("\n")[2] if c.isprintable()
        )
        what = "its image's HEALTHCHECK" if one.check and one.check.exec == tuple(argv) else argv[0]
        words = f": {last[:200]}" if last else ""
        return ProbeResult(ok=code == 0, detail=f"{what} gave exit code {code}{words}")

    def own_check(self, handle: WorkerHandle) -> Probe | None:
        """The HEALTHCHECK of its image, as it was when the container was made."""
        one = self._of(handle)
        return one.check if one is not None else None

    async def aclose(self) -> None:
        """Let go of the outputs; containers go on."""
        self._outputs.close()
        self._containers.clear()

    def _of(self, handle: WorkerHandle) -> _Container | None:
        return self._containers.get(dict(handle.extra).get("container", ""))

    async def _begin(self, container: str) -> None:
        try:
            await self._engine.call("POST", f"/containers/{container}/start")
        except EngineError as error:
            # It began and had ended by then: how is read as of any other that ended.
            if OVER not in str(error):
                raise

    async def _state(self, container: str) -> dict[str, Any]:
        """What the engine says of it. Raises EngineError."""
        patience = ENDING / POLL
        while True:
            try:
                return dict((await self._engine.call("GET", f"/containers/{container}/json"))["State"])
            except EngineError as error:
                patience -= 1
                if OVER not in str(error) or patience < 0:
                    raise
                await anyio.sleep(POLL)

    async def _main(self, init: int) -> int:
        """The command's process: the child of the init, or the only one."""
        if not self._kind.init or not init:
            return init
        with anyio.move_on_after(FORKING):
            while start_time(init):
                for pid in children(init):
                    return pid
                await anyio.sleep(0.002)
        return init

    async def _kill(self, handle: WorkerHandle, signum: int) -> None:
        one = self._of(handle)
        if one is None or not start_time(one.init):
            return
        try:
            await self._engine.call("POST", f"/containers/{one.id}/kill", signal=str(int(signum)))
        except EngineLostError:
            if not _sent_past(one, signum):
                raise
        except EngineError as error:
            if error.status not in (404, 409) and start_time(one.init):
                raise WorkerError(
                    f"{self._kind.name} cannot signal container {one.id[:12]}: {error}"
                ) from error

    async def _ended(self, one: _Container) -> Mapping[str, Any]:
        """How the engine says that it ended; {} if it does not know it any more, or is away for long."""
        with anyio.move_on_after(ENDING):
            while True:
                try:
                    state = await self._state(one.id)
                except EngineLostError:  # perhaps it is being restarted
                    await anyio.sleep(HELD)
                    continue
                except EngineError as error:
                    if error.status == 404:
                        return {}
                    raise
                if state["Status"] not in ("running", "stopping"):
                    return state
                await anyio.sleep(POLL)
        return {}

    async def _remove(self, container: str) -> None:
        try:
            how = {"force": "true", "timeout": "0", "v": "true", "volumes": "true"}  # both engines' words
            await self._engine.call("DELETE", f"/containers/{container}", **how)
        except EngineError as error:
            if error.status != 404:
                raise

    async def _bury(self, container: str) -> None:
        """Remove what has ended; what cannot be removed now is at the next end, or by the next daemon."""
        dead = [container, *self._dead]
        self._dead.clear()
        for one in dead:
            try:
                await self._remove(one)
            except (EngineError, EngineLostError):
                self._dead.add(one)

    async def _until_listed(self) -> list[Listed]:
        """Asked patiently: an engine that comes up a little later than the daemon is waited for. Raises
        WorkerError: what it holds is held until it tells."""
        until = anyio.current_time() + LOOKING
        while True:
            try:
                found = await self._kind.listed(self._instance)
            except EngineLostError as error:
                if anyio.current_time() >= until:
                    raise WorkerError(str(error)) from error
                await anyio.sleep(0.2)
            else:
                return found


class PodmanDriver(ContainerDriver):
    """`backend: podman`."""

    def __init__(self, context: PluginContext) -> None:
        super().__init__(context, Podman(context))


class DockerDriver(ContainerDriver):
    """`backend: docker`."""

    def __init__(self, context: PluginContext) -> None:
        super().__init__(context, Docker(context))


def _sent_past(one: _Container, signum: int) -> bool:
    """Signal a worker whose engine is away, where this process may. While its command lives its init does."""
    if start_time(one.handle.pid) != one.handle.start_time:
        return True
    try:
        os.kill(one.init if signum == signal.SIGKILL else one.handle.pid, signum)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True
    return True


async def _gone(pid: int) -> None:
    """Return when a process has ended."""
    try:
        descriptor = os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        return
    if descriptor < 0:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _status(kind: str, state: Mapping[str, Any], log: str, limit: int | None, *, oom: bool) -> ExitStatus:
    """How the command ended."""
    if not state:
        return ExitStatus(detail=f"{kind} does not know how it ended")
    code, oom = int(state.get("ExitCode", 0)), oom or bool(state.get("OOMKilled"))
    detail = last_line(log) if code else ""
    if oom:
        detail = "out of memory" + (f": used up its limit of {format_bytes(limit)}" if limit else "")
    if _SIGNALLED < code <= _SIGNALLED + signal.NSIG:
        return ExitStatus(signal=code - _SIGNALLED, detail=detail, oom=oom)
    return ExitStatus(code=code, detail=detail, oom=oom)
