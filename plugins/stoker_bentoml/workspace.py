"""Files that a worker needs: metrics of its own, results of tasks shared by its service's replicas.

They lie below one directory of the account's own, 0700, and not below the worker's own TMPDIR. A worker
holds a lock on its own part, so that the next one sees which parts were left behind by workers that were
killed, and removes them. What a service shares is kept for as long as BentoML keeps results.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEPT = 86_400
"""Seconds for which BentoML keeps the result of a task."""


class Workspace:
    """The files of one worker, below the directory `base`. `owner` names the service among all of this
    account."""

    def __init__(self, owner: str, base: str) -> None:
        self._base = _own_directory(f"{base}/stoker-bentoml-{os.getuid()}")
        service = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._service = os.path.join(self._base, service)
        with _locked(os.path.join(self._base, "lock")):
            _sweep(self._base)
            self.metrics = tempfile.mkdtemp(prefix=f"worker-{service}-", dir=self._base)
            self._held = _lock(self.metrics, wait=False)

    @property
    def results(self) -> str:
        """The database of the service's tasks."""
        return f"{self._service}.tasks.db"

    def once(self, life: str, action: Callable[[], None]) -> None:
        """Do something unless another worker of the service has done it in the same life."""
        path = f"{self._service}.once"
        with _locked(path):
            with open(path) as file:
                done = file.read()
            if done != life:
                action()
                with open(path, "w") as file:
                    file.write(life)

    def close(self) -> None:
        """Remove this worker's own files."""
        shutil.rmtree(self.metrics, ignore_errors=True)


def provide_home(base: str) -> None:
    """BentoML makes itself a directory below HOME; an account without a home gets one for it here."""
    if "BENTOML_HOME" in os.environ:
        return
    try:
        os.makedirs(os.path.expanduser("~/bentoml"), exist_ok=True)
    except OSError:
        home = os.path.join(_own_directory(f"{base}/stoker-bentoml-{os.getuid()}"), "home")
        os.environ["BENTOML_HOME"] = home


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
    """Remove what workers that are gone have left, and what services without any have not used for long."""
    alive = {
        name.split("-")[1] for name in os.listdir(base) if name.startswith("worker-") and _lives(base, name)
    }
    os.utime(os.path.join(base, "lock"))
    now = os.stat(os.path.join(base, "lock")).st_mtime  # by the clock that files are stamped with
    for name in os.listdir(base):
        path = os.path.join(base, name)
        shared = (
            name not in ("lock", "home")
            and not name.startswith("worker-")
            and name.partition(".")[0] not in alive
        )
        if shared and os.stat(path).st_mtime < now - KEPT:
            os.unlink(path)


def _lives(base: str, name: str) -> bool:
    """Whether a worker still has its part; removes the part if not."""
    path = os.path.join(base, name)
    try:
        descriptor = _lock(path, wait=False)
    except OSError:
        return True  # or it removes its part itself at this moment
    shutil.rmtree(path, ignore_errors=True)
    os.close(descriptor)
    return False
