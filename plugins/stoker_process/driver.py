"""The `process` driver: workers are local process trees, watched through pidfds."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from stoker.errors import StokerError, WorkerError
from stoker.model.load import Usage
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import ServiceKey
from stoker.plugin.local import last_line
from stoker.plugin.ports import FoundWorker, PluginContext, StartRequest
from stoker_process import procfs
from stoker_process.births import Births
from stoker_process.cgroups import CgroupTrees
from stoker_process.discovery import Discovery
from stoker_process.exits import exit_status, reap, signal_pidfd
from stoker_process.fences import Fences, dismantle, out_of_memory
from stoker_process.orphans import Orphans
from stoker_process.records import Record, Records
from stoker_process.scratch import Scratch
from stoker_process.sessions import SessionTrees
from stoker_process.worker import Trees, Worker

NAME = "process"


class ProcessDriver:
    """Runs workers as sessions of their own; see `stoker.plugin.ports.WorkerDriver`.

    Each costs one descriptor; a fork server of some 10 MB makes them. The option `cgroup: false` forgoes
    cgroups even where they can be had, `cgroup: v1` those of v2.
    Raises StokerError on a kernel without pidfds.
    """

    def __init__(self, context: PluginContext) -> None:
        _check_kernel()
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited so, it would lose every exit code
        self._log = context.log
        self._workers: dict[int, Worker] = {}
        self._records = Records(Path(context.state_dir, "process.jsonl"), context.log)
        wanted = context.options.get("cgroup", True)
        found = (
            CgroupTrees.open(context.instance, context.log, only_v1=wanted == "v1")
            if wanted
            else "switched off by `cgroup: false`"
        )
        self._cgroups = found if isinstance(found, CgroupTrees) else None
        self._why_not = "" if isinstance(found, CgroupTrees) else found
        is_enclosed = self._cgroups.encloses if self._cgroups is not None else lambda _: False
        self._orphans = Orphans(context.instance, self._workers.__contains__, is_enclosed)
        self._sessions = SessionTrees(self._orphans, context.log)
        if self._cgroups is None:
            self._orphans.call()
        self._fences = Fences(context.instance, self._cgroups, context.log)
        self._scratch = Scratch(context.log)
        self._births = Births(
            self._cgroups, self._fences, self._scratch, call_orphans=self._orphans.call, log=context.log
        )
        self._discovery = Discovery(context.instance, self._records, self._cgroups, self._fences, context.log)

    @property
    def description(self) -> str:
        """How process trees are held on this machine, for people."""
        if self._cgroups is not None:
            return f"{self._cgroups.description} below {self._cgroups.home}"
        return f"{self._sessions.description} (no cgroups: {self._why_not})"

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Spawn the worker. Raises WorkerError."""
        with self._orphans.birth():
            record, pidfd = await self._births.of(request)
            self._workers[record.pid] = Worker(record, pidfd, child=True)
        self._records.write(record)
        return _handle(record)

    async def expect(self, replica: str) -> None:
        """See stoker.plugin.ports.ExpectantDriver."""
        await self._births.expect(replica)

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when the whole tree is gone. Cancelling leaves the worker as it is."""
        worker = self._worker(handle)
        if worker is None:
            raise WorkerError(f"worker {handle.pid} is not known to this driver")
        await self._until_exit(worker)
        status = self._status(worker)
        await self._trees(worker).clear(worker)
        await dismantle(map(Path, worker.record.fences))
        self._forget(worker)
        return status

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Send a signal to the main process."""
        worker = self._worker(handle)
        if worker is not None and worker.pidfd is not None:
            signal_pidfd(worker.pidfd, signum)
        await anyio.lowlevel.checkpoint()

    async def kill(self, handle: WorkerHandle) -> None:
        """SIGKILL the whole tree; `wait` tells when it is gone."""
        worker = self._worker(handle)
        if worker is not None:
            self._trees(worker).kill(worker)
        await anyio.lowlevel.checkpoint()

    async def find(self) -> Sequence[FoundWorker]:
        """Live workers of an earlier daemon. What dead ones left behind is killed on the way."""
        records, superfluous = await self._discovery.run()
        for path in superfluous:
            self._scratch.remove(path)
        return [FoundWorker(handle=_handle(record), mark=record.mark) for record in records]

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found worker over. One that has ended meanwhile is taken over too: `wait` says so."""
        await anyio.lowlevel.checkpoint()
        handle, extra = found.handle, dict(found.handle.extra)
        record = Record(
            mark=found.mark,
            pid=handle.pid,
            start_time=handle.start_time,
            boot_id=handle.boot_id,
            log_path=extra.get("log", ""),
            cgroup=extra.get("cgroup", ""),
            fences=tuple(filter(None, extra.get("fences", "").split(os.pathsep))),
            tmp_dir=extra.get("tmp", ""),
        )
        self._workers[handle.pid] = Worker(record, _open_pidfd(handle), child=False)
        self._records.write(record)
        return handle

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """Cores and memory of each tree; at the first asking the mean over the worker's life."""
        self._scratch.settle()
        workers = [worker for handle in handles if (worker := self._worker(handle))]
        now = anyio.current_time()
        found: dict[int, Usage] = {}
        for trees in (self._cgroups, self._sessions):
            mine = [worker for worker in workers if self._trees(worker) is trees]
            if trees is None or not mine:
                continue
            measures = await anyio.to_thread.run_sync(trees.measure, mine)
            for worker in mine:
                measure = measures.get(worker.pid)
                if measure is not None:
                    found[worker.pid] = worker.use(measure, now)
        return found

    async def retain(self, services: Collection[ServiceKey]) -> None:
        """End the templates of all other services."""
        await self._births.retain(services)

    async def aclose(self) -> None:
        """Close the descriptors; workers keep running, waiting tasks end with an error."""
        for worker in self._workers.values():
            if worker.pidfd is not None:
                anyio.notify_closing(worker.pidfd)
                os.close(worker.pidfd)
                worker.pidfd = None
        self._workers.clear()
        await self._births.aclose()
        self._scratch.close()
        self._records.close()
        await anyio.lowlevel.checkpoint()

    def _worker(self, handle: WorkerHandle) -> Worker | None:
        worker = self._workers.get(handle.pid)
        return worker if worker and worker.record.start_time == handle.start_time else None

    def _trees(self, worker: Worker) -> Trees:
        return self._cgroups if self._cgroups is not None and worker.cgroup is not None else self._sessions

    async def _until_exit(self, worker: Worker) -> None:
        """Wait for the main process to end; where orphans come to us, look after them meanwhile."""
        if worker.pidfd is None:
            return
        if self._orphans.come_to_us:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._orphans.attend)
                ended = await _ended(worker.pidfd)
                tasks.cancel_scope.cancel()
        else:
            ended = await _ended(worker.pidfd)
        if not ended:
            raise WorkerError(f"the driver was closed while it waited for worker {worker.pid}")

    def _status(self, worker: Worker) -> ExitStatus:
        if worker.pidfd is None:
            return ExitStatus(detail="it ended before it was taken over")
        status = exit_status(worker.pidfd, worker.pid, worker.record.start_time)
        if status.code == 0:
            return status
        record = worker.record
        if words := out_of_memory(Path(path) for path in (record.cgroup, *record.fences) if path):
            return replace(status, detail=words, oom=True)
        return replace(status, detail=last_line(record.log_path))

    def _forget(self, worker: Worker) -> None:
        if self._orphans.come_to_us:
            # A zombie of v1 may be out of its cgroup already, and tells nothing else of where it came from.
            self._orphans.expect(worker.mark, worker.dying)
            self._orphans.collect()
            self._orphans.forget(worker.mark)
        # The zombie was kept until now: it reserves the pid, and with it the names of session and group.
        if worker.pidfd is not None:
            reap(worker.pidfd)
            os.close(worker.pidfd)
            worker.pidfd = None
        self._workers.pop(worker.pid, None)
        self._scratch.settle()
        # Until its temporary files are gone a record says where they are, and no more: should this daemon be
        # killed first, the next one removes them.
        if worker.record.tmp_dir:
            self._records.write(replace(worker.record, mark=""))
        self._scratch.remove(worker.record.tmp_dir, partial(self._records.remove, worker.record))


async def _ended(pidfd: int) -> bool:
    """Wait for the end of a process; False if its pidfd was closed meanwhile."""
    try:
        await anyio.wait_readable(pidfd)
    except anyio.ClosedResourceError:
        return False
    return True


def _handle(record: Record) -> WorkerHandle:
    extra = {
        "log": record.log_path,
        "cgroup": record.cgroup,
        "fences": os.pathsep.join(record.fences),
        "tmp": record.tmp_dir,
    }
    return WorkerHandle(
        driver=NAME,
        pid=record.pid,
        start_time=record.start_time,
        boot_id=record.boot_id,
        extra=tuple((key, value) for key, value in extra.items() if value),
    )


def _open_pidfd(handle: WorkerHandle) -> int | None:
    """A pidfd of that very process: opened first, identified afterwards; None if it is gone."""
    try:
        pidfd = os.pidfd_open(handle.pid)
    except ProcessLookupError:
        return None
    if procfs.same_process(handle) is not None:
        return pidfd
    os.close(pidfd)
    return None


def _check_kernel() -> None:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise StokerError(
            f"the process driver needs pidfds ({error.strerror}): use Linux 5.4 or newer, "
            "or allow pidfd_open in the container's seccomp profile"
        ) from error
