"""Files that a worker needs: metrics of its own, results of tasks shared by its service's replicas.

They lie below one directory of the account's own, 0700, and not below TMPDIR, which each worker may have of
its own. A worker holds a lock on its own part, so that the next one sees which parts were left behind by
workers that were killed, and removes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BASE = "/tmp"


class Workspace:
    """The files of one worker. `owner` names the service among all of this account."""

    def __init__(self, owner: str, base: str = BASE) -> None:
        self._base = _own_directory(f"{base}/stoker-bentoml-{os.getuid()}")
        self._service = os.path.join(self._base, hashlib.sha256(owner.encode()).hexdigest()[:16])
        with _locked(os.path.join(self._base, "lock")):
            _sweep(self._base)
            self.metrics = tempfile.mkdtemp(prefix="worker-", dir=self._base)
            self._held = _lock(self.metrics, wait=False)

    @property
    def results(self) -> str:
        """The database of the service's tasks."""
        return f"{self._service}.tasks.db"

    def once(self, life: str, action: Callable[[], None]) -> None:
        """Do something unless another worker of the service has done it in the same life."""
        done = f"{self._service}.deployed"
        with _locked(f"{self._service}.lock"):
            if os.path.exists(done):
                with open(done) as file:
                    if file.read() == life:
                        return
            action()
            with open(done, "w") as file:
                file.write(life)

    def close(self) -> None:
        """Remove this worker's own files."""
        shutil.rmtree(self.metrics, ignore_errors=True)


def _own_directory(path: str) -> str:
    """That directory, which nobody else may look into. Raises OSError if it is somebody else's."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path} is not this account's own; remove it")
    return path


def _lock(path: str, *, wait: bool = True) -> int:
    """A lock on a directory or file, held until its descriptor is closed. Raises BlockingIOError."""
    flags = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """While a file is locked."""
    descriptor = _lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _sweep(base: str) -> None:
    """Remove what workers that are gone have left."""
    for name in os.listdir(base):
        path = os.path.join(base, name)
        if not name.startswith("worker-"):
            continue
        try:
            descriptor = _lock(path, wait=False)
        except OSError:
            continue  # its worker lives, or removes it itself at this moment
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)
