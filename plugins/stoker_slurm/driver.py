"""The `slurm` driver: each worker is a job of a Slurm cluster.

The nodes must see the daemon's state directory, the directories of its services and its Python where the
daemon sees them, as on a shared home: what a job has to start, and what became of it, goes through files.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from stoker.errors import WorkerError
from stoker.model.load import Usage
from stoker.model.node import Node
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.plugin.local import check_strings, open_log
from stoker.plugin.ports import FoundWorker, PluginContext, ProbeResult, StartRequest
from stoker.plugin.processes import boot_id, descendants, measure, start_time
from stoker_slurm.commands import Commands, Job, SlurmAwayError, needs
from stoker_slurm.keeper import KILL, address_of_node

NAME = "slurm"
PATIENCE = 30.0
"""Seconds Slurm gets to find a place, before the start counts as failed and is tried again."""
LOOK = 0.05
"""Seconds between two looks at the file of a worker that is about to be born or to end."""
REST = 1.0
"""Seconds between two looks whether a worker that nobody has told to end has ended."""
SURVEY = 5.0
"""Seconds between two questions to the controller, which knows of nodes that were lost."""
PARTING = 10.0
"""Seconds after a job is over in which what it has written of its worker becomes visible here."""
EVERYWHERE = "//0.0.0.0:"
NODES = 1 << 9
"""Numbers are told apart for so many other boxes."""
PASSING = frozenset({"None", "just handed in"})
"""Reasons of jobs that Slurm has not looked at yet."""
FOREIGN = 1 << 22
"""No process of this box has a number above this (the kernel's PID_MAX_LIMIT)."""
NODE_LOST = "node_fail"
"""In what Slurm says of a job whose node it has given up: nobody there will tell more."""
ALIVE = frozenset({"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "PENDING", "STOPPED", "SIGNALING"})
_SENT = (
    "replica",
    "service",
    "mark",
    "argv",
    "environ",
    "working_dir",
    "log_path",
    "endpoint",
    "umask",
    "tmp_dir",
)


class SlurmDriver:
    """See `stoker.plugin.ports.WorkerDriver`. The handle of a worker on another box has a number that no
    process of this one can have. A job is never run a second time: what a node that was cut off still runs
    has an id that nobody asks for any more."""

    def __init__(self, context: PluginContext) -> None:
        self._commands = Commands(
            f"stoker-{context.instance}",
            {**os.environ, **context.environ, **context.options.get("environ", {})},
        )
        self._spool = Path(context.state_dir) / NAME
        self._patience = float(context.options.get("patience", PATIENCE))
        self._log = context.log
        self._serial = 0
        self._box = ""
        """The address of this box, once somebody asks for it."""
        self._hurried: set[str] = set()
        """Jobs that were sent a signal: they are looked at more often."""
        self._survey: dict[str, Job] = {}
        self._surveyed = float("-inf")
        self._asking = anyio.Lock()
        self._measured: dict[str, tuple[float, float]] = {}

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Hand in a job and wait until its worker runs. Raises WorkerError."""
        check_strings(request)
        if request.user is not None or request.group is not None:
            raise WorkerError(
                f"{request.service}: a job of Slurm runs as the daemon's user; remove `user` and `group`",
                permanent=True,
            )
        os.close(open_log(request.log_path))
        with anyio.CancelScope(shield=True):
            name = await anyio.to_thread.run_sync(self._write, request)
            try:
                job = await self._submit(request, name)
                born = await self._birth(request, job)
            finally:  # its keeper has read it, or there never was one
                (self._spool / f"{name}.order").unlink(missing_ok=True)
        if "error" in born:
            raise WorkerError(str(born["error"]), permanent=bool(born["permanent"]))
        return self._handle(job, born)

    async def _submit(self, request: StartRequest, name: str) -> str:
        try:
            job = await self._commands.submit(
                self._script(name), request.mark, request.log_path, needs(request)
            )
        except SlurmAwayError as error:
            raise WorkerError(f"{request.service}: {error}") from error
        self._survey[job] = Job(job, "PENDING", "just handed in", request.mark)
        return job

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when its tree is gone, or its node is. Cancelling leaves the worker as it is."""
        job = dict(handle.extra)["job"]
        try:
            while (ended := self._read(job, "ended")) is None:
                lost = await self._lost(job, SURVEY)
                if lost is not None:
                    nothing: dict[str, Any] = {"code": None, "signal": None, "detail": lost}
                    ended = nothing if NODE_LOST in lost else await self._last_word(job) or nothing
                    break
                await anyio.sleep(LOOK if job in self._hurried else REST)
            return ExitStatus(code=ended["code"], signal=ended["signal"], detail=ended["detail"])
        finally:
            self._measured.pop(job, None)
            if self._read(job, "ended") is not None:
                self._forget(job)

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Send a signal to the main process, by its keeper. Gone is no error."""
        await self._signal(dict(handle.extra)["job"], int(signum))

    async def kill(self, handle: WorkerHandle) -> None:
        """SIGKILL to the whole tree, by its keeper."""
        await self._signal(dict(handle.extra)["job"], KILL)

    async def _signal(self, job: str, number: int) -> None:
        self._hurried.add(job)
        await self._commands.signal(job, number)

    async def find(self) -> Sequence[FoundWorker]:
        """Workers of this instance. Jobs without one are cancelled on the way. Raises WorkerError while the
        controller is away."""
        found = []
        for job in await self._commands.jobs():
            if job.state not in ALIVE:
                continue
            born = self._read(job.id, "born")
            if born is None or "error" in born:
                await self._commands.cancel(job.id)
            elif await self._lives(job.id, born):
                found.append(FoundWorker(handle=self._handle(job.id, born), mark=job.mark))
        self._tidy({dict(one.handle.extra)["job"] for one in found})
        return found

    def _tidy(self, jobs: Collection[str]) -> None:
        """Remove the files of all jobs but these."""
        for path in self._spool.glob("*"):
            if path.suffix == ".order" or path.stem not in jobs:
                path.unlink(missing_ok=True)

    async def _lives(self, job: str, born: Mapping[str, Any]) -> bool:
        """Whether a worker that was born is alive; of one that is not, nothing is left when this returns."""
        if born["boot_id"] == boot_id() and start_time(int(born["pid"])) != born["start_time"]:
            await self._last_word(job)
        return self._read(job, "ended") is None

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found worker over."""
        await anyio.lowlevel.checkpoint()
        return found.handle

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """CPU and memory of the trees on this box; at the first asking the mean over the worker's life."""
        found, now = {}, anyio.current_time()
        for handle in handles:
            if handle.pid > FOREIGN:
                continue
            job = dict(handle.extra)["job"]
            seconds, memory = await anyio.to_thread.run_sync(_measure, handle.pid)
            before, since = self._measured.get(job, (0.0, handle.start_time / os.sysconf("SC_CLK_TCK")))
            self._measured[job] = seconds, now
            cpu = max(0.0, seconds - before) / (now - since) if now > since else 0.0
            found[handle.pid] = Usage(cpu=cpu, memory=memory, at=now)
        return found

    async def ask(self, handle: WorkerHandle, argv: Sequence[str]) -> ProbeResult:
        """Run a probe's command as a step of the job, on its node."""
        try:
            code, last = await self._commands.beside(dict(handle.extra)["job"], argv)
        except OSError as error:
            return ProbeResult(ok=False, detail=str(error)[:200])
        return ProbeResult(ok=code == 0, detail=f"{argv[0]} gave exit code {code}: {last}")

    async def nodes(self) -> Sequence[Node]:
        """The nodes of the cluster. Raises WorkerError while its controller is away."""
        return await self._commands.nodes()

    async def aclose(self) -> None:
        """Nothing is held; workers go on."""
        await anyio.lowlevel.checkpoint()

    # --- files --------------------------------------------------------------------------------------------

    def _write(self, request: StartRequest) -> str:
        """Write down what to start; returns the name of that. Raises WorkerError."""
        self._serial += 1
        name = f"{request.replica}.{os.getpid()}.{self._serial}"
        wanted = request.elsewhere.resources.gpu if request.elsewhere is not None else 0
        sent = {name: getattr(request, name) for name in _SENT}
        sent["argv"], sent["environ"] = self._seen_from_nodes(request)
        order = {
            "request": sent,
            "nofile": request.limits.nofile,
            "gpus": bool(wanted),
        }
        try:
            self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._spool / f"{name}.order"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump(order, file)
        except OSError as error:
            raise WorkerError(f"{request.service}: cannot write {self._spool}: {error.strerror}") from error
        return name

    def _seen_from_nodes(self, request: StartRequest) -> tuple[list[str], dict[str, str]]:
        """Arguments and variables, with this box's own address where a service of it listens everywhere."""
        there = [*request.argv, *request.environ.values()]
        if not any(EVERYWHERE in word for word in there):
            return list(request.argv), dict(request.environ)
        self._box = self._box or address_of_node(socket.gethostname().partition(".")[0])
        here = f"//{self._box}:"
        return [word.replace(EVERYWHERE, here) for word in request.argv], {
            name: value.replace(EVERYWHERE, here) if name.startswith("STOKER_URL_") else value
            for name, value in request.environ.items()
        }

    def _script(self, name: str) -> str:
        words = [sys.executable, "-P", "-m", "stoker_slurm.keeper", str(self._spool), name]
        return f"#!/bin/sh\nexec {shlex.join(words)}\n"

    def _read(self, job: str, ending: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._spool / f"{job}.{ending}").read_text())
        except (OSError, ValueError):
            return None
        return found

    def _forget(self, job: str) -> None:
        self._hurried.discard(job)
        for ending in ("born", "ended"):
            (self._spool / f"{job}.{ending}").unlink(missing_ok=True)

    # --- a job's life -------------------------------------------------------------------------------------

    async def _birth(self, request: StartRequest, job: str) -> dict[str, Any]:
        """What its keeper tells. Raises WorkerError if the job finds no place, or ends before."""
        began = anyio.current_time()
        lost, said = None, ""
        while (born := self._read(job, "born")) is None:
            if anyio.current_time() > began + self._patience:
                found = await self._known(job, 0.0)
                await self._commands.cancel(job)
                why = found.reason if found is not None else "unknown"
                raise WorkerError(f"{request.service}: no place in Slurm within {self._patience:g} s ({why})")
            if lost is not None:
                words = f"{request.service}: job {job} has ended before its worker began: {lost}"
                raise WorkerError(f"{words}; its output is in {request.log_path}")
            await anyio.sleep(LOOK)
            lost = await self._lost(job, REST)
            waits = self._survey.get(job)
            if not said and waits is not None and waits.state == "PENDING" and waits.reason not in PASSING:
                said = waits.reason
                self._log(f"{request.service}: {request.replica} waits in Slurm as job {job}: {said}")
        return born

    async def _lost(self, job: str, period: float) -> str | None:
        """How a job that is over has ended, in Slurm's words; None while it is not, or nobody can say."""
        try:
            found = await self._known(job, period)
        except SlurmAwayError:
            return None
        if found is None:
            return "Slurm does not know the job any more"
        return None if found.state in ALIVE else f"Slurm: {found.state.lower()} ({found.reason})"

    async def _known(self, job: str, period: float) -> Job | None:
        """What the controller tells, asked for all jobs at once and so often. Raises SlurmAwayError."""
        async with self._asking:
            if anyio.current_time() > self._surveyed + period:
                self._surveyed = anyio.current_time()
                self._survey = {one.id: one for one in await self._commands.jobs()}
            return self._survey.get(job)

    async def _last_word(self, job: str) -> dict[str, Any] | None:
        """What its keeper has told at the end, for which some time is given."""
        with anyio.move_on_after(PARTING):
            while (ended := self._read(job, "ended")) is None:  # noqa: ASYNC110 - written on another box
                await anyio.sleep(LOOK)
            return ended
        return None

    def _handle(self, job: str, born: Mapping[str, Any]) -> WorkerHandle:
        pid, where = int(born["pid"]), str(born["boot_id"])
        if where != boot_id():
            pid += FOREIGN * (1 + zlib.crc32(where.encode()) % (NODES - 1))  # the same for every daemon
        return WorkerHandle(
            driver=NAME,
            pid=pid,
            start_time=int(born["start_time"]),
            boot_id=where,
            extra=(("job", job), ("node", str(born["node"]))),
            endpoint=str(born["endpoint"]),
        )


def _measure(pid: int) -> tuple[float, int]:
    return measure(descendants(pid))
