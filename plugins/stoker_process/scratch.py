"""Directories for temporary files, one for each worker, gone with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable

import anyio.to_thread

from stoker.errors import WorkerError


class Scratch:
    """Makes and removes them. All lie in one directory of the instance, which others may not list."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._held: dict[str, int] = {}
        """Descriptors of those directories of instances, locked: systemd-tmpfiles leaves alone what is
        locked, however old the files in it are."""

    async def make(self, path: str, owner: tuple[int, int] | None) -> None:
        """Make an empty directory that only `owner` (uid, gid; None: the daemon's own user) may enter.

        Raises WorkerError.
        """
        if not path:
            return
        try:
            self._hold(os.path.dirname(path))
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:  # of a worker whose daemon died before it could be removed
                await anyio.to_thread.run_sync(shutil.rmtree, path)
                os.mkdir(path, 0o700)
            if owner is not None:
                os.chown(path, *owner, follow_symlinks=False)
        except OSError as error:
            raise WorkerError(
                f"cannot make the directory {path} for temporary files: {error.strerror}"
            ) from error

    async def remove(self, path: str) -> None:
        """Remove one with all that is in it. What cannot be removed is said and left."""
        if not path:
            return
        try:
            os.rmdir(path)  # the usual case, without a thread
        except FileNotFoundError:
            pass
        except OSError:
            await anyio.to_thread.run_sync(self._clear, path)
        self._let_go(os.path.dirname(path))

    def close(self) -> None:
        """Close the descriptors."""
        for parent in list(self._held):
            os.close(self._held.pop(parent))

    def _hold(self, parent: str) -> None:
        """Have the instance's directory, and nobody else's: its name is no secret, and /tmp is everybody's.

        Raises OSError, WorkerError.
        """
        if parent in self._held:
            return
        try:
            os.mkdir(parent)
        except FileExistsError:
            found = os.lstat(parent)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise WorkerError(f"{parent} belongs to somebody else; remove it") from None
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchmod(descriptor, 0o711)  # whatever the umask
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._held[parent] = descriptor

    def _let_go(self, parent: str) -> None:
        """Remove the instance's directory when it is empty."""
        try:
            os.rmdir(parent)
        except OSError:
            return  # another worker's is in it
        if parent in self._held:
            os.close(self._held.pop(parent))

    def _clear(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            self._log(f"cannot remove everything in {path}; remove what is left there")
