"""Directories for temporary files, one for each worker, gone with it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio.to_thread

from stoker.errors import WorkerError

_TRIES = 3
_LATER = 0.5
"""Seconds after a worker's end: until then its successor is on the way, and has the interpreter to itself."""


class Scratch:
    """Makes and removes them. All lie in one directory of the instance, which others may not list.

    They are removed by a thread, and a little later: on a busy disk even an empty directory takes
    milliseconds, for which no restart has to wait.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._held: dict[str, int] = {}
        """Descriptors of those directories of instances, locked: systemd-tmpfiles leaves alone what is
        locked, however old the files in it are."""
        self._remover: ThreadPoolExecutor | None = None
        self._closing = threading.Event()
        self._left: list[str] = []
        """What could not be removed and was not said yet."""
        self._after: deque[Callable[[], None]] = deque()
        """What is to be done since something was removed."""

    def can_hold(self, path: str) -> bool:
        """Whether a worker can make that directory itself, so that a busy disk keeps nobody else waiting."""
        self._complain()
        return os.path.dirname(path) in self._held

    async def make(self, path: str, owner: tuple[int, int] | None) -> None:
        """Make an empty directory that only `owner` (uid, gid; None: the daemon's own user) may enter.

        Raises WorkerError.
        """
        self._complain()
        if not path:
            return
        try:
            await self._make_empty(path)
            if owner is not None:
                os.chown(path, *owner, follow_symlinks=False)
        except OSError as error:
            raise WorkerError(
                f"cannot make the directory {path} for temporary files: {error.strerror}"
            ) from error

    def remove(self, path: str, then: Callable[[], None] = lambda: None) -> None:
        """Have one removed soon, with all that is in it. What cannot be removed is said and left. `settle`
        then calls `then`."""
        if not path:
            then()
            return
        if self._remover is None:
            self._remover = ThreadPoolExecutor(1, thread_name_prefix="scratch")
        self._remover.submit(self._remove, path, time.monotonic() + _LATER, then)

    def settle(self) -> None:
        """Do what was to be done after removals that are over by now."""
        while self._after:
            self._after.popleft()()

    def close(self) -> None:
        """Finish removing, and close the descriptors."""
        self._closing.set()
        if self._remover is not None:
            self._remover.shutdown()
        self.settle()
        self._complain()
        for parent in list(self._held):
            self._let_go(parent)

    async def _make_empty(self, path: str) -> None:
        """Raises OSError, WorkerError."""
        anew = False
        for _ in range(_TRIES):
            self._hold(os.path.dirname(path), anew=anew)
            try:
                os.mkdir(path, 0o700)
            except FileNotFoundError:  # the last worker's was removed, and the instance's with it
                anew = True
            except FileExistsError:  # of a worker whose daemon died before it could be removed
                await anyio.to_thread.run_sync(partial(shutil.rmtree, path, ignore_errors=True))
            else:
                return
        raise FileExistsError(errno.EEXIST, "it cannot be emptied")

    def _complain(self) -> None:
        """Say what the thread could not do; it may not speak itself."""
        while self._left:
            self._log(f"cannot remove everything in {self._left.pop()}; remove what is left there")

    def _hold(self, parent: str, *, anew: bool = False) -> None:
        """Have the instance's directory, and nobody else's: its name is no secret, and /tmp is everybody's.

        Raises OSError, WorkerError.
        """
        if parent in self._held:
            if not anew:
                return
            self._let_go(parent)
        try:
            os.mkdir(parent)
        except FileExistsError:
            found = os.lstat(parent)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise WorkerError(
                    f"{parent} belongs to somebody else, and workers need it for temporary files; remove it"
                ) from None
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchmod(descriptor, 0o711)  # whatever the umask
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._held[parent] = descriptor

    def _let_go(self, parent: str) -> None:
        descriptor = self._held.pop(parent, None)
        if descriptor is not None:
            os.close(descriptor)

    def _remove(self, path: str, due: float, then: Callable[[], None]) -> None:
        """In the thread: one directory, and the instance's if it was the last."""
        self._closing.wait(max(0.0, due - time.monotonic()))
        shutil.rmtree(path, ignore_errors=True)
        self._after.append(then)
        if os.path.lexists(path):
            self._left.append(path)
            return
        try:
            os.rmdir(os.path.dirname(path))
        except OSError:
            return  # another worker's is in it
