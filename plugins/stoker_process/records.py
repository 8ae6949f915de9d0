"""What is remembered of each worker on disk, so that the next daemon tells a worker from its leftovers.

The mark in a worker's environment is inherited by its children and wiped by programs that rewrite their
title; a record (mark, pid, start time) is neither. A lost record costs little: the mark still finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from stoker.plugin.record_log import RecordLog


@dataclass(frozen=True, slots=True)
class Record:
    """One worker. `cgroup` is the directory that holds its tree, "" without one; `fences` are those beside it
    that hold its limits, `tmp_dir` is its directory for temporary files."""

    mark: str
    pid: int
    start_time: int
    boot_id: str
    log_path: str = ""
    cgroup: str = ""
    fences: tuple[str, ...] = ()
    tmp_dir: str = ""


_FIELDS = fields(Record)


class Records:
    """Those of all live workers, in one file."""

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self._path = path
        self._kept = RecordLog(path)
        self._log = log

    def write(self, record: Record) -> None:
        """Remember a worker. A full disk is said and borne: the worker runs all the same."""
        try:
            self._kept.put(_name(record), {field.name: getattr(record, field.name) for field in _FIELDS})
        except OSError as error:
            self._log(f"cannot record worker {record.pid} in {self._path}: {error.strerror}")

    def remove(self, record: Record) -> None:
        """Forget a worker that is gone."""
        try:
            self._kept.drop(_name(record))
        except OSError as error:
            self._log(f"cannot remove the record of worker {record.pid} from {self._path}: {error.strerror}")

    def close(self) -> None:
        """Give the file back."""
        self._kept.close()

    def __iter__(self) -> Iterator[Record]:
        """All records that can be read."""
        try:
            found = self._kept.read()
        except OSError as error:
            self._log(f"cannot read the workers' records in {self._path}: {error.strerror}")
            return
        for name, data in found.items():
            try:
                yield Record(**data | {"fences": tuple(data.get("fences", ()))})
            except (AttributeError, TypeError) as error:
                self._log(f"ignoring the worker record {name} in {self._path}: {error}")


def _name(record: Record) -> str:
    return f"{record.pid}.{record.start_time}"
