"""From a start request to a running process with everything around it: cgroups, log, temporary files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import anyio

from stoker.errors import WorkerError
from stoker.model.service import ServiceKey
from stoker.plugin.local import open_log
from stoker.plugin.ports import StartRequest
from stoker_process import brands, procfs
from stoker_process.cgroups import CgroupTrees
from stoker_process.fences import Fence, Fences, dismantle
from stoker_process.launch import birth_error, fenced, order_of
from stoker_process.records import Record
from stoker_process.scratch import Scratch
from stoker_process.spares import Spare, Spares
from stoker_process.spawner import Birth, Order, Spawner
from stoker_process.templates import Templates
from stoker_process.worker import end_marked

IN_TIME = 1.0
"""Seconds in which a birth that was prepared has to be asked for."""


class Births:
    """Brings workers into being. `call_orphans` is called when one has to live without a cgroup."""

    def __init__(
        self,
        cgroups: CgroupTrees | None,
        fences: Fences,
        scratch: Scratch,
        *,
        call_orphans: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._cgroups = cgroups
        self._fences = fences
        self._scratch = scratch
        self._call_orphans = call_orphans
        self._log = log
        self._spawner = Spawner()
        self._spares = Spares(self._spawner, cgroups, self._new_cgroup)
        self._templates = Templates(self._order, cgroups, call_orphans=call_orphans, log=log)

    async def of(self, request: StartRequest) -> tuple[Record, int]:
        """Have the process made, in a cgroup of its own where that can be; returns its record and a pidfd.

        Raises WorkerError; nothing is left of the attempt then.
        """
        order = order_of(request, self._log)
        spare = self._spares.take(request.replica)
        if spare is not None and request.preload:
            await self._spares.dismiss(spare)  # a template forks it
            spare = None
        cgroup = spare.cgroup if spare else self._new_cgroup(request.replica)
        fence = self._fences.build(request.service, request.replica, request.limits, cgroup)
        try:
            if not request.preload and self._scratch.can_hold(request.tmp_dir):
                order = replace(order, tmp=request.tmp_dir)
            else:
                await self._scratch.make(request.tmp_dir, _owner(order))
            pid, cgroup = await self._spawn(request, fenced(order, fence), cgroup, spare)
            pidfd = _open_own(pid)
        except WorkerError:
            await dismantle(fence.directories)
            if spare is not None:
                await self._spares.dismiss(spare)
            if cgroup is not None and self._cgroups is not None:
                self._cgroups.remove(cgroup)
            self._scratch.remove(request.tmp_dir)
            raise
        return _record(request, pid, cgroup, fence), pidfd

    async def expect(self, replica: str) -> None:
        """Begin the birth of a replica that is about to be asked for; returns once it was, or was not."""
        spare = self._spares.make(replica)
        if spare is not None:
            await anyio.sleep(IN_TIME)
            await self._spares.give_up(replica, spare)

    async def retain(self, services: Collection[ServiceKey]) -> None:
        """End what is kept for other services than these."""
        await self._templates.retain(services)

    async def aclose(self) -> None:
        """End what makes the processes; they themselves go on."""
        await self._templates.aclose()
        await self._spares.aclose()
        self._spawner.close()

    async def _spawn(
        self, request: StartRequest, order: Order, cgroup: Path | None, spare: Spare | None
    ) -> tuple[int, Path | None]:
        """The pid, and the cgroup that it was born in after all. Raises WorkerError."""
        log = open_log(request.log_path)
        branded = replace(order, limits=(*order.limits, *brands.limits(request.mark)))
        try:
            birth = await self._templates.fork(request, order, log, cgroup)
            if birth is not None and cgroup is None and not birth.step:
                brands.put_on(birth.pid, request.mark)
            if birth is None and spare is not None:
                birth = await self._spares.become(spare, order, log)
            if birth is None:
                birth = await self._order(order if cgroup else branded, log, cgroup)
            if birth.step == "clone" and cgroup is not None:
                if birth.pid:
                    _bury(birth.pid)
                self._without_cgroup(request.replica, os.strerror(birth.errno), cgroup)
                cgroup = None
                birth = await self._order(branded, log, None)
            if birth.step == "tmp":
                # Something of that name was there, or the directory above is gone.
                _bury(birth.pid)
                await self._scratch.make(request.tmp_dir, _owner(order))
                birth = await self._order(replace(order if cgroup else branded, tmp=""), log, cgroup)
        except WorkerError:
            end_marked(request.mark)
            raise
        finally:
            os.close(log)
        if not birth.step:
            return birth.pid, cgroup
        if birth.pid:
            _bury(birth.pid)
        raise birth_error(request, order, birth)

    async def _order(self, order: Order, log: int, cgroup: Path | None) -> Birth:
        if cgroup is None:
            return await self._spawner.spawn(order, log)
        if self._cgroups is not None and not self._cgroups.hierarchy.unified:
            return await self._spawner.spawn(replace(order, groups=(str(cgroup), *order.groups)), log)
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await self._spawner.spawn(order, log, directory)
        finally:
            os.close(directory)

    def _new_cgroup(self, replica: str) -> Path | None:
        if self._cgroups is None:
            return None
        try:
            return self._cgroups.create(replica)
        except OSError as error:
            self._without_cgroup(replica, str(error))
            return None

    def _without_cgroup(self, replica: str, reason: str, cgroup: Path | None = None) -> None:
        self._log(f"{replica} gets no cgroup ({reason}); its tree is held by its session")
        self._call_orphans()
        if cgroup is not None and self._cgroups is not None:
            self._cgroups.remove(cgroup)


def _owner(order: Order) -> tuple[int, int] | None:
    return order.user[1:] if order.user else None


def _record(request: StartRequest, pid: int, cgroup: Path | None, fence: Fence) -> Record:
    stat = procfs.read_stat(pid)
    return Record(
        mark=request.mark,
        pid=pid,
        start_time=stat.start_time if stat else 0,
        boot_id=procfs.boot_id(),
        log_path=request.log_path,
        cgroup=str(cgroup or ""),
        fences=tuple(map(str, fence.directories)),
        tmp_dir=request.tmp_dir,
    )


def _bury(pid: int) -> None:
    """Take away our own child, which has ended or is about to."""
    os.waitpid(pid, 0)


def _open_own(pid: int) -> int:
    """A pidfd of our own new child. Without one the worker cannot be watched, so it may not run."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        _bury(pid)
        raise WorkerError(
            f"cannot watch the new worker {pid}: {error.strerror}; it was ended again"
        ) from error
