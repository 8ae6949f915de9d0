"""The durable state: small JSON files, each replaced atomically, readable after a crash at any byte.

    STATE/instance            who we are: marks our workers, survives restarts
    STATE/lock                held by the living daemon
    STATE/replicas.jsonl      a line for each change of a worker, written before the start it records
    STATE/overrides.json      live overrides;  addresses.json  chosen ports;  tokens.json  restarts asked for
    STATE/targets.json        the scale that was in force, so that a new daemon does not forget it
    STATE/scaling.jsonl       what policies remember (`scaling_memories.py`)
    STATE/config.json         what the files meant when they were read last (`reading.py`)

A file is written beside its place and renamed: a reader sees the old or the new one, never half; workers,
which come and go often, have a `RecordLog`. There is no fsync: what the kernel was given outlives the daemon
however it ends, and what could be lost by a power cut describes workers that died in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stoker.errors import ConflictError, StokerError
from stoker.model.device import Reservation
from stoker.model.replica import WorkerHandle
from stoker.model.service import ServiceKey
from stoker.plugin.record_log import RecordLog


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
    stopping: str = ""
    """Why it was told to stop; "" if it was not. No daemon uses it any more then."""
    leave: bool = False
    """Whether its replica goes with it."""


class Store:
    """The state directory of one daemon."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._lock: int | None = None
        self._workers = RecordLog(self.directory / "replicas.jsonl")
        self._found: list[WorkerRecord] | None = None
        """Those that were read, until one is written: a beginning asks for them several times."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StokerError:
        return StokerError(
            f"cannot use the state directory {self.directory}: {error.strerror}; "
            "choose another with --state-dir or STOKER_STATE_DIR"
        )

    def acquire(self) -> None:
        """Become the one daemon of this directory. Raises ConflictError naming the one that is, StokerError
        where nothing can be written."""
        path = self.directory / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConflictError(
                f"a daemon (pid {owner}) already uses the state directory {self.directory}; "
                "end it with `stoker down`, or choose another with --state-dir"
            ) from None
        name = f"{os.getpid()}\n".encode()
        try:
            # Shortened after it is written: its place on a full disk is not given away in between.
            os.pwrite(descriptor, name, 0)
            os.ftruncate(descriptor, len(name))
            self.instance()
        except OSError as error:
            os.close(descriptor)
            raise self._unusable(error) from error
        self._lock = descriptor

    def release(self) -> None:
        """Let the next daemon have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._workers.close()

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
        self._found = None
        self._workers.put(record.replica, _plain(record))

    def drop_worker(self, replica: str) -> None:
        """Forget a worker. One that is unknown is no error. Raises OSError (disk full)."""
        self._found = None
        self._workers.drop(replica)

    def workers(self) -> list[WorkerRecord]:
        """All records; one that is not as it should be is as good as none."""
        if self._found is None:
            self._found = self._read_workers()
        return list(self._found)

    def _read_workers(self) -> list[WorkerRecord]:
        records = []
        for data in self._workers.read().values():
            try:
                records.append(_record(data))
            except (ValueError, TypeError, KeyError):
                continue
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


def _plain(record: WorkerRecord) -> dict[str, Any]:
    """As JSON has it. By hand: `asdict` copies deeply what is never changed."""
    data: dict[str, Any] = {field.name: getattr(record, field.name) for field in _FIELDS}
    data["reservations"] = [asdict(given) for given in record.reservations]
    data["handle"] = None if record.handle is None else asdict(record.handle)
    return data


_FIELDS = fields(WorkerRecord)


def _record(data: dict[str, Any]) -> WorkerRecord:
    handle = data.pop("handle")
    reservations = tuple(Reservation(**item) for item in data.pop("reservations"))
    if handle is not None:
        handle["extra"] = tuple((key, value) for key, value in handle["extra"])
        handle = WorkerHandle(**handle)
    depends = tuple(data.pop("depends", ()))
    return WorkerRecord(handle=handle, reservations=reservations, depends=depends, **data)
