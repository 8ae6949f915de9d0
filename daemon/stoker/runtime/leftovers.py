"""What a daemon that is gone has left running, as its state directory and the processes tell."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from stoker.plugin.processes import boot_id, start_time
from stoker.runtime.store import Store, WorkerRecord


@dataclass(frozen=True, slots=True)
class Leftovers:
    """How many workers, and whether a router. False where there is nothing."""

    workers: int = 0
    router: bool = False

    def __bool__(self) -> bool:
        return self.router or self.workers > 0

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else ""
        return " and ".join(filter(None, (workers, "the router" if self.router else "")))


def left_behind(state_dir: str, runtime_dir: str) -> Leftovers:
    """Look, and change nothing. What a daemon has in hand is no leftover; what may not be read is none."""
    try:
        if not (Path(state_dir) / "instance").exists() or _in_hand(Path(state_dir) / "lock"):
            return Leftovers()
        boot = boot_id()
        workers = sum(_lives(record, boot) for record in Store(state_dir).workers())
        return Leftovers(workers, any(map(_answers, Path(runtime_dir).rglob("*.sock"))))
    except OSError:
        return Leftovers()


def _in_hand(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lives(record: WorkerRecord, boot: str) -> bool:
    """As far as a pid tells; a worker without one (a container, a worker on another box) may live."""
    handle = record.handle
    if handle is None or handle.boot_id not in {boot, ""}:
        return False
    return not handle.pid or start_time(handle.pid) == handle.start_time


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1)
        try:
            line.connect(str(path))
        except OSError:
            return False
        return True
