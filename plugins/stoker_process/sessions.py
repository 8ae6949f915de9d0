"""Process trees held without cgroups: by session, by descent, by orphans that come to us, by mark and brand.

A process that leaves the session, loses its parents and changes its environment is still branded (`brands`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence

import anyio

from stoker_process import brands
from stoker_process.exits import signal_pidfd
from stoker_process.orphans import Orphans
from stoker_process.procfs import TICKS, ProcessTable, Stat
from stoker_process.worker import Measure, Worker, kill_process, until_gone

_LOOKS = 500
_RETRY = 0.002


class SessionTrees:
    """Finds a tree when it is needed; keeps nothing."""

    description = "session, subreaper and a sweep for mark and brand"

    def __init__(self, orphans: Orphans, log: Callable[[str], None]) -> None:
        self._orphans = orphans
        self._log = log

    def kill(self, worker: Worker) -> None:
        """SIGKILL to the main process and to everything that can be found of its tree."""
        if worker.pidfd is not None:
            rest = self._rest(worker, ProcessTable(), thorough=not worker.child)
            signal_pidfd(worker.pidfd, signal.SIGKILL)
            self._kill(worker, rest)

    async def clear(self, worker: Worker) -> None:
        """Kill leftovers until none is found any more, nor anything that may turn out to be one."""
        for _ in range(_LOOKS):
            while left := self._leftovers(worker):
                self._kill(worker, left)
                await until_gone((stat.pid for stat in left), self._log)
            # One that was in the middle of its exec a moment ago may show by now whose it is.
            if not any(
                orphan.mark is None or (worker.owns(orphan.mark) and not orphan.stat.zombie)
                for orphan in self._orphans.collect()
            ):
                return
            await anyio.sleep(_RETRY)

    def measure(self, workers: Iterable[Worker]) -> Mapping[int, Measure]:
        """Sums over the living, their reaped children included; one reading of /proc for all."""
        table = ProcessTable()
        found = {}
        for worker in workers:
            main = table.stats.get(worker.pid)
            tree = self._rest(worker, table, thorough=False) + ([main] if main else [])
            seconds = sum(stat.ticks for stat in tree) / TICKS
            found[worker.pid] = Measure(seconds, sum(stat.resident for stat in tree))
        return found

    def _kill(self, worker: Worker, processes: Sequence[Stat]) -> None:
        self._orphans.expect(worker.mark, processes)
        for stat in processes:
            kill_process(stat.pid, stat.start_time)

    def _leftovers(self, worker: Worker) -> list[Stat]:
        """Living processes of a worker whose main process has ended. For our own child this is quick: its
        orphans are our children now, and with none of them there is nothing to look for."""
        if worker.child and not any(
            orphan.stat.session == worker.pid or _owns(worker, orphan.mark, orphan.stat.pid)
            for orphan in self._orphans.collect()
        ):
            return []
        return self._rest(worker, ProcessTable(), thorough=not worker.child)

    def _rest(self, worker: Worker, table: ProcessTable, *, thorough: bool) -> list[Stat]:
        """The living tree without its main process. Orphans of a child of ours are our children; those of
        an adopted worker may be anybody's, so that only `thorough` finds them, by every process's mark."""
        main = table.stats.get(worker.pid)
        roots = []
        if main is None or main.start_time == worker.record.start_time:
            roots = table.sessions.get(worker.pid, [])
        orphans = (
            table.stats.values() if thorough else self._orphans.among(table.children.get(os.getpid(), ()))
        )
        roots = [*roots, *(stat for stat in orphans if _owns(worker, table.mark(stat.pid), stat.pid))]
        tree = table.descendants(roots)
        tree.pop(worker.pid, None)
        return [stat for stat in tree.values() if not stat.zombie]


def _owns(worker: Worker, mark: str | None, pid: int) -> bool:
    return worker.owns(mark) or (not mark and brands.has(pid, worker.mark))
