"""Finds the workers of an earlier daemon and ends what has no worker any more."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import anyio.to_thread

from stoker.model.replica import WorkerHandle
from stoker_process import procfs
from stoker_process.cgroups import CgroupTrees
from stoker_process.fences import Fences, dismantle
from stoker_process.procfs import ProcessTable, Stat
from stoker_process.records import Record, Records
from stoker_process.worker import kill_process, until_gone

_SWEEPS = 10


class Discovery:
    """One look at the machine, before the first start of a new daemon."""

    def __init__(
        self,
        instance: str,
        records: Records,
        cgroups: CgroupTrees | None,
        fences: Fences,
        log: Callable[[str], None],
    ) -> None:
        self._prefix = f"{instance}:"
        self._records = records
        self._cgroups = cgroups
        self._fences = fences
        self._log = log
        self._dead: set[str] = set()
        """Marks whose recorded main process has ended."""
        self._tmp_dirs: set[str] = set()
        """Directories for temporary files of those."""

    async def run(self) -> tuple[list[Record], Sequence[str]]:
        """Return the live workers, and directories for temporary files that are to be removed. What else dead
        ones left (processes, records, cgroups) is ended and removed here."""
        workers: list[Record] = []
        for _ in range(_SWEEPS):
            workers, strays = await anyio.to_thread.run_sync(self._look)
            if not strays:
                break
            names = ", ".join(str(stray.pid) for stray in strays)
            self._log(f"killing processes {names}: left behind by workers that are gone")
            for stray in strays:
                kill_process(stray.pid, stray.start_time)
            await until_gone((stray.pid for stray in strays), self._log)
        if self._cgroups is not None:
            for directory in self._cgroups.abandoned(Path(worker.cgroup) for worker in workers):
                await self._cgroups.empty(directory)
        await dismantle(self._fences.abandoned(Path(path) for worker in workers for path in worker.fences))
        return workers, sorted(self._tmp_dirs - {worker.tmp_dir for worker in workers})

    def _look(self) -> tuple[list[Record], list[Stat]]:
        """The live workers, and the strays: processes whose mark is no live worker's."""
        marked = self._marked(ProcessTable())
        workers = self._recorded()
        known = {worker.mark for worker in workers} | self._dead
        for mark, stats in marked.items():
            if mark not in known and (record := self._unrecorded(mark, stats)):
                workers.append(record)
        alive = {worker.mark for worker in workers}
        strays = [found for mark, stats in marked.items() if mark not in alive for found in stats]
        return workers, strays

    def _marked(self, table: ProcessTable) -> dict[str, list[Stat]]:
        """Living processes with a mark of this instance, by mark, oldest first."""
        own = os.getpid()
        found: dict[str, list[Stat]] = {}
        for process in sorted(table.stats.values(), key=lambda stat: (stat.start_time, stat.pid)):
            mark = "" if process.zombie or process.pid == own else table.mark(process.pid)
            if mark.startswith(self._prefix):
                found.setdefault(mark, []).append(process)
        return found

    def _recorded(self) -> list[Record]:
        alive = []
        for record in self._records:
            process = procfs.same_process(_identity(record))
            if process is not None and not process.zombie:
                alive.append(record)
            else:
                self._dead.add(record.mark)
                self._tmp_dirs.add(record.tmp_dir)
                self._records.remove(record)
        return alive

    def _unrecorded(self, mark: str, stats: Iterable[Stat]) -> Record | None:
        """The worker whose daemon died between spawning and recording it: the oldest that leads a session."""
        main = next((process for process in stats if process.session == process.pid), None)
        if main is None:
            return None
        cgroup = self._cgroups.directory_of(main.pid) if self._cgroups is not None else None
        return Record(
            mark=mark,
            pid=main.pid,
            start_time=main.start_time,
            boot_id=procfs.boot_id(),
            log_path=_output_file(main.pid),
            cgroup=str(cgroup or ""),
            fences=tuple(map(str, self._fences.found(main.pid))),
            tmp_dir=self._tmp_dir(main.pid, mark),
        )

    def _tmp_dir(self, pid: int, mark: str) -> str:
        """Its directory for temporary files, only if its name says that it was made for that worker."""
        path = procfs.read_variable(pid, "TMPDIR")
        own = f"/stoker-{self._prefix[:-1]}/{mark.rpartition(':')[2]}"
        return path if own in path and re.fullmatch(r"(\.\d+)?", path.partition(own)[2]) else ""


def _output_file(pid: int) -> str:
    """The file that is the process's standard output, "" if it is none."""
    link = f"/proc/{pid}/fd/1"
    try:
        return os.readlink(link) if stat.S_ISREG(os.stat(link).st_mode) else ""
    except OSError:
        return ""


def _identity(record: Record) -> WorkerHandle:
    return WorkerHandle(driver="", pid=record.pid, start_time=record.start_time, boot_id=record.boot_id)
