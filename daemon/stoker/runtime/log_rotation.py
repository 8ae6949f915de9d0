"""Keeps the logs of workers small while they are written, without losing a byte or slowing a worker down.

See `stoker.api.logtext` for how a log and its parts hang together.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from stoker.api.logtext import part_path, parts_of
from stoker.model.event import Event, WorkerAdopted, WorkerExited, WorkerSpawned
from stoker.model.service import LogRules
from stoker.runtime.inotify import FIRST_WRITE, PathWatch

GONE = 20
"""So many logs of replicas that are gone are kept for each service."""
SHORTEST, LONGEST = 1.0, 5.0
"""Seconds between two looks: as soon as a log may be full, going by how fast the logs grew of late."""
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
_SEARCH = 64 * 1024
_PIECE = 4 * 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class UnrotatableError(OSError):
    """The file system cannot make holes in files."""


@dataclass(frozen=True, slots=True)
class Growing:
    """A log that is being written, and its service's rules for it."""

    path: str
    rules: LogRules


class LogRotation:
    """Looks after the logs of live workers. `growing` lists them, `note` is told what goes wrong, once.

    While none of them grows nothing wakes up, but for the first write and workers that come or go.
    """

    def __init__(
        self,
        growing: Callable[[], Sequence[Growing]],
        note: Callable[[str], None],
        *,
        longest: float = LONGEST,
    ) -> None:
        self._growing = growing
        self._note = note
        self._longest = longest
        self._grew = False
        self._others = anyio.Event()
        """There are other workers since the last look."""
        self._sizes: dict[str, int] = {}
        self._stuck: set[str] = set()
        """Logs on a file system that cannot do it."""

    async def run(self) -> None:
        """Rotate until cancelled."""
        pause = self._longest
        while True:
            if not self._grew:
                await self._stir()
            await anyio.sleep(pause)
            self._others = anyio.Event()
            pause = await to_thread.run_sync(self.look, list(self._growing()), pause)

    def after_event(self, event: Event) -> None:
        """Workers come and go."""
        if isinstance(event, WorkerSpawned | WorkerAdopted | WorkerExited):
            self._others.set()

    async def _stir(self) -> None:
        """Wait until a log is written to or there are other workers."""
        try:
            watch = PathWatch(self._sizes, FIRST_WRITE)
        except OSError:
            return  # no inotify to be had: look from time to time
        try:
            # What was written after the last look and before the watch was there is not told.
            if await to_thread.run_sync(self._stirred) or self._others.is_set():
                return
            async with anyio.create_task_group() as tasks:

                async def until(end: Callable[[], Awaitable[object]]) -> None:
                    await end()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until, watch.changed)
                tasks.start_soon(until, self._others.wait)
        finally:
            await watch.aclose()

    def _stirred(self) -> bool:
        try:
            return any(os.stat(path).st_size != size for path, size in self._sizes.items())
        except FileNotFoundError:
            return True

    def look(self, logs: Sequence[Growing], elapsed: float) -> float:
        """Rotate what is too large; returns the seconds until the next look. Blocking."""
        sizes, pause = dict[str, int](), self._longest
        living = {log.path for log in logs}
        for folder in {os.path.dirname(path) for path in self._sizes if path not in living}:
            forget_old(folder, living)
        for log in logs:
            if log.path in self._stuck:
                continue
            try:
                kept = rotate(log.path, log.rules)
                size = os.stat(log.path).st_size
            except FileNotFoundError:
                continue
            except OSError as error:
                if isinstance(error, UnrotatableError):
                    self._stuck.add(log.path)
                self._note(
                    f"cannot rotate {log.path}: {error.strerror}; it grows until its worker is replaced"
                )
                continue
            sizes[log.path] = size
            grown = size - self._sizes.get(log.path, size)
            if grown > 0:
                pause = min(pause, max(0, log.rules.max_size - kept) / (grown / elapsed))
        self._grew, self._sizes = sizes != self._sizes, sizes
        return max(min(SHORTEST, self._longest), pause)


def rotate(path: str, rules: LogRules) -> int:
    """Move the lines of a log that has grown beyond its size to a part; returns the bytes left in it.

    Blocking. Raises UnrotatableError, OSError; nothing is lost then.
    """
    found = os.stat(path)
    if (there := min(found.st_size, found.st_blocks * 512)) < rules.max_size:
        return there  # the usual case, without a look at what lies beside
    parts = parts_of(path)
    done = parts[-1].end if parts else 0
    with open(path, "rb+", buffering=0) as log:
        size = os.fstat(log.fileno()).st_size
        if size - done < rules.max_size:
            return size - done
        _forget_strangers(path, {part.path for part in parts})
        end = _last_line_end(log.fileno(), done, size)
        newest = part_path(path, done)
        _copy(log.fileno(), done, end, newest)
        try:
            _punch(log.fileno(), end)
        except OSError:
            os.unlink(newest)
            raise
    kept = [*(part.path for part in parts), newest]
    for old in kept[: max(0, len(kept) - rules.keep)]:
        os.unlink(old)
    return size - end


def remove(path: str) -> None:
    """Remove a log with all of its parts. Gone is no error."""
    for part in sorted(Path(path).parent.glob(f"{Path(path).name}.*")):
        part.unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)


def forget_old(folder: str, living: Collection[str], keep: int = GONE) -> None:
    """Of the logs in a folder that are not of living workers keep the newest. Blocking."""
    ages: dict[str, float] = {}
    for path in Path(folder).glob("*.log"):
        if str(path) not in living:
            with suppress(FileNotFoundError):
                ages[str(path)] = path.stat().st_mtime
    for old in sorted(ages, key=lambda one: ages[one], reverse=True)[keep:]:
        remove(old)


def _forget_strangers(path: str, known: set[str]) -> None:
    """Parts of a file that somebody has replaced or cut off: their offsets mean nothing any more."""
    for beside in Path(path).parent.glob(f"{Path(path).name}.*"):
        if str(beside) not in known:
            beside.unlink(missing_ok=True)


def _last_line_end(log: int, start: int, size: int) -> int:
    """The offset behind the last line end; that of the last byte if the lines are very long."""
    at = max(start, size - _SEARCH)
    found = os.pread(log, size - at, at).rfind(b"\n")
    return at + found + 1 if found >= 0 else size


def _copy(log: int, start: int, end: int, target: str) -> None:
    """Copy a range to a new file that appears complete or not at all. Raises OSError."""
    beside = f"{target}.new"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as part:
            while start < end and (piece := os.pread(log, min(_PIECE, end - start), start)):
                part.write(piece)
                start += len(piece)
        os.rename(beside, target)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


def _punch(log: int, end: int) -> None:
    """Give the space of the first `end` bytes back; everything else stays where it is. Raises OSError."""
    length, zero = ctypes.c_int64(end), ctypes.c_int64(0)
    if _libc.fallocate64(log, _KEEP_SIZE_PUNCH_HOLE, zero, length) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise UnrotatableError(
            number, "this file system cannot make holes in files (ext4, xfs, btrfs, tmpfs can)"
        )
    raise OSError(number, os.strerror(number))
