"""What is remembered of each worker on disk, so that the next daemon tells a worker from its leftovers.

The mark in a worker's environment is inherited by its children and wiped by programs that rewrite their
title; a record (mark, pid, start time) is neither. A lost record costs little: the mark still finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


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


class Records:
    """A directory of one small file per live worker."""

    def __init__(self, directory: Path, log: Callable[[str], None]) -> None:
        self._directory = directory
        self._log = log

    def write(self, record: Record) -> None:
        """Remember a worker. A full disk is said and borne: the worker runs all the same."""
        path, text = self._path(record), json.dumps(asdict(record))
        try:
            try:
                path.write_text(text, encoding="utf-8")
            except FileNotFoundError:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            self._log(f"cannot record worker {record.pid} under {self._directory}: {error.strerror}")

    def remove(self, record: Record) -> None:
        """Forget a worker that is gone."""
        try:
            self._path(record).unlink(missing_ok=True)
        except OSError as error:
            self._log(f"cannot remove the record of worker {record.pid}: {error.strerror}")

    def __iter__(self) -> Iterator[Record]:
        """All records that can be read."""
        if not self._directory.is_dir():
            return
        for path in sorted(self._directory.glob("*.json")):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                yield Record(**values | {"fences": tuple(values.get("fences", ()))})
            except (OSError, ValueError, TypeError) as error:
                self._log(f"ignoring the worker record {path}: {error}")

    def _path(self, record: Record) -> Path:
        return self._directory / f"{record.pid}.{record.start_time}.json"
