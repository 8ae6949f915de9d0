"""The durable state: small JSON files, each replaced atomically, readable after a crash at any byte.

    STATE/instance            who we are: marks our workers, survives restarts
    STATE/lock                held by the living daemon
    STATE/replicas/ID.json    one worker each, written before the start it records
    STATE/overrides.json      live overrides;  addresses.json  chosen ports;  tokens.json  restarts asked for
    STATE/targets.json        the scale that was in force, so that a new daemon does not forget it

A file is written beside its place and renamed: a reader sees the old or the new one, never half. There is
no fsync: what could be lost by a power cut describes workers that died in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stoker.errors import ConflictError, StokerError
from stoker.model.device import Reservation
from stoker.model.replica import WorkerHandle
from stoker.model.service import ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """What must be known of a worker to adopt it. `created` is monotonic seconds of this boot."""

    replica: str
    service: ServiceKey
    revision: str
    driver: str
    endpoint: str
    reservations: tuple[Reservation, ...] = ()
    handle: WorkerHandle | None = None
    restarts: int = 0
    ready: bool = False
    created: float = 0.0
    devices_reason: str = ""
    depends: tuple[ServiceKey, ...] = ()


class Store:
    """The state directory of one daemon."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._lock: int | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            (self.directory / "replicas").mkdir(exist_ok=True, mode=0o750)
        except OSError as error:
            raise StokerError(
                f"cannot use the state directory {self.directory}: {error.strerror}; "
                "choose another with --state-dir or STOKER_STATE_DIR"
            ) from error

    def acquire(self) -> None:
        """Become the one daemon of this directory. Raises ConflictError naming the one that is."""
        path = self.directory / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConflictError(
                f"a daemon (pid {owner}) already uses the state directory {self.directory}; "
                "end it with `stoker down`, or choose another with --state-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def release(self) -> None:
        """Let the next daemon have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def instance(self) -> str:
        """The name that marks this directory's workers; made once."""
        path = self.directory / "instance"
        try:
            known = path.read_text().strip()
        except FileNotFoundError:
            known = ""
        if not known:
            known = secrets.token_hex(6)
            self._replace("instance", known + "\n")
        return known

    def save_worker(self, record: WorkerRecord) -> None:
        """Write a worker's record. Raises OSError (disk full)."""
        self._replace(f"replicas/{record.replica}.json", json.dumps(asdict(record)))

    def drop_worker(self, replica: str) -> None:
        """Forget a worker. One that is unknown is no error."""
        (self.directory / "replicas" / f"{replica}.json").unlink(missing_ok=True)

    def workers(self) -> list[WorkerRecord]:
        """All records; unreadable ones are removed, since nothing can be done with them."""
        records = []
        for path in sorted((self.directory / "replicas").glob("*.json")):
            try:
                records.append(_record(json.loads(path.read_text())))
            except (ValueError, TypeError, KeyError):
                path.unlink(missing_ok=True)
        return records

    def read(self, name: str) -> dict[str, Any]:
        """One of the small mappings (`overrides`, `addresses`, `tokens`, `targets`); {} if there is none."""
        try:
            value = json.loads((self.directory / f"{name}.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace one of the small mappings. Raises OSError (disk full)."""
        self._replace(f"{name}.json", json.dumps(dict(value), indent=1, sort_keys=True))

    def _replace(self, name: str, text: str) -> None:
        path = self.directory / name
        beside = path.with_name(path.name + ".new")
        try:
            beside.write_text(text)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def _record(data: dict[str, Any]) -> WorkerRecord:
    handle = data.pop("handle")
    reservations = tuple(Reservation(**item) for item in data.pop("reservations"))
    if handle is not None:
        handle["extra"] = tuple((key, value) for key, value in handle["extra"])
        handle = WorkerHandle(**handle)
    depends = tuple(data.pop("depends", ()))
    return WorkerRecord(handle=handle, reservations=reservations, depends=depends, **data)
