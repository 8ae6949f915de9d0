"""Descendants of workers whose parents have ended, where they become the daemon's own children.

That is so for a daemon that is a subreaper (without cgroups) or PID 1 of a container. Only we can then
take their zombies away; zombies of others (the router's, a probe's) must be left to their owners.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from stoker_process import procfs
from stoker_process.procfs import Stat

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


@dataclass(frozen=True, slots=True)
class Orphan:
    """A living process that lost its parent. `mark` is "" if it has none, None if that is not clear now."""

    stat: Stat
    mark: str | None


class Orphans:
    """`is_worker` says which of our children are workers: not orphans, and reaped elsewhere. `is_enclosed`
    says of a pid, also a zombie's, whether it is in the cgroup of a worker."""

    def __init__(
        self, instance: str, is_worker: Callable[[int], bool], is_enclosed: Callable[[int], bool]
    ) -> None:
        self._prefix = f"{instance}:"
        self._is_worker = is_worker
        self._is_enclosed = is_enclosed
        self._session = os.getsid(0)
        self._marks: dict[tuple[int, int], str] = {}
        """Of processes that were seen alive: (pid, start time) -> mark."""
        self._seat = anyio.Lock()
        self._births = 0
        self._libc = ctypes.CDLL(None, use_errno=True)

    def call(self) -> None:
        """From now on orphans of our descendants become our children. For the life of the daemon."""
        if self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

    @property
    def come_to_us(self) -> bool:
        """Whether orphans become our children."""
        answer = ctypes.c_int()
        self._libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
        return os.getpid() == 1 or bool(answer.value)

    def expect(self, mark: str, processes: Iterable[Stat]) -> None:
        """These processes of a worker are about to die: their zombies will be ours to take away."""
        self._marks.update({(stat.pid, stat.start_time): mark for stat in processes})

    def forget(self, mark: str) -> None:
        """Nothing is left of that worker."""
        self._marks = {key: of for key, of in self._marks.items() if of != mark}

    @contextmanager
    def birth(self) -> Iterator[None]:
        """While this lasts, a child of ours may be a worker of which `is_worker` does not know yet."""
        self._births += 1
        try:
            yield
        finally:
            self._births -= 1

    def collect(self) -> list[Orphan]:
        """Take away the zombies among the orphans and return the living."""
        living = []
        for pid in procfs.children_of_main_thread():
            stat = None if self._is_worker(pid) else procfs.read_stat(pid)
            if stat is None:
                continue
            if not stat.zombie:
                living.append(Orphan(stat, self._mark(stat)))
            elif self._is_orphan(stat):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
                self._marks.pop((pid, stat.start_time), None)
        return living

    def among(self, children: Iterable[Stat]) -> Iterator[Stat]:
        """Those of our children that are not workers themselves."""
        return (stat for stat in children if not self._is_worker(stat.pid))

    async def attend(self) -> None:
        """Collect orphans as they die, until cancelled. Every waiting task runs this; one at a time acts,
        and the next takes its seat when its worker ends. Exits of workers are not learned this way."""
        if threading.current_thread() is not threading.main_thread():
            return  # signals cannot be received here; orphans are collected whenever a worker ends
        async with self._seat:
            with _bell() as bell:
                while True:
                    self.collect()
                    await anyio.wait_readable(bell)
                    os.read(bell, 4096)

    def _mark(self, stat: Stat) -> str | None:
        key = (stat.pid, stat.start_time)
        if key not in self._marks:
            mark = procfs.read_mark(stat.pid)
            if not mark or not mark.startswith(self._prefix):
                return mark
            self._marks[key] = mark
        return self._marks[key]

    def _is_orphan(self, zombie: Stat) -> bool:
        """A child that was spawned by this process is in our session or leads its own; any other came
        from elsewhere. One that leads its own is an orphan only if its mark was read while it lived."""
        if self._births and zombie.session == zombie.pid:
            return False  # left for the next time
        if zombie.session not in (zombie.pid, self._session) or self._is_enclosed(zombie.pid):
            return True
        return (zombie.pid, zombie.start_time) in self._marks


@contextmanager
def _bell() -> Iterator[int]:
    """A descriptor that gets readable when a child of ours has ended.

    The handler stays installed for good: Python complains of a signal that comes while it is removed.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _writers.add(writer)
    signal.signal(signal.SIGCHLD, _ring)
    try:
        yield reader
    finally:
        _writers.discard(writer)
        os.close(reader)
        os.close(writer)


_writers: set[int] = set()


def _ring(_signum: int, _frame: object) -> None:
    for writer in _writers:
        try:
            os.write(writer, b"!")
        except BlockingIOError:
            continue  # it rings already
