"""Reads traces: CSV, plain or gzipped, one request a row: `arrival_s`, `service_s` and maybe `service`."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stoker.errors import ConfigError, ConfigProblem

_GZIP = b"\x1f\x8b"
_MOST_PROBLEMS = 10
"""A file of another kind has a fault in each line; so many are enough to see it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One service's requests in order of arrival: when each came (seconds from the start) and how long it
    holds one slot of a replica (seconds)."""

    arrivals: tuple[float, ...] = ()
    services: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.arrivals)


@dataclass(slots=True)
class _Columns:
    arrival: int
    service: int
    name: int | None
    width: int


def read_trace(path: str) -> Mapping[str, Trace]:
    """Return the requests by the name in the column `service`, "" where there is no such column.

    Raises ConfigError with file and line of each bad row (at most ten), or when the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        text = (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("utf-8-sig")
        return _parse(io.StringIO(text, newline=""), path)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(ConfigProblem(f"the trace cannot be read: {reason}", file=path)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(ConfigProblem(f"the trace is no CSV text: {error}", file=path)) from error


def _parse(lines: Iterable[str], path: str) -> Mapping[str, Trace]:
    rows = csv.reader(lines)
    columns = _columns(next(rows, []), path)
    found: dict[str, tuple[list[float], list[float]]] = {}
    problems: list[ConfigProblem] = []
    last = 0.0
    for row in rows:
        if not row:
            continue
        try:
            name, arrival, service = _request(row, columns, last)
        except ValueError as error:
            problems.append(ConfigProblem(str(error), file=f"{path}:{rows.line_num}"))
            if len(problems) == _MOST_PROBLEMS:
                break
            continue
        last = arrival
        arrivals, services = found.setdefault(name, ([], []))
        arrivals.append(arrival)
        services.append(service)
    if problems:
        raise ConfigError(*problems)
    if not found:
        raise ConfigError(ConfigProblem("the trace has no request", file=path))
    return {name: Trace(tuple(arrivals), tuple(services)) for name, (arrivals, services) in found.items()}


def _columns(header: Sequence[str], path: str) -> _Columns:
    names = [name.strip() for name in header]
    missing = [name for name in ("arrival_s", "service_s") if name not in names]
    if missing:
        message = f"the header lacks {' and '.join(missing)}; it must name arrival_s and service_s"
        raise ConfigError(ConfigProblem(message, file=f"{path}:1"))
    name = names.index("service") if "service" in names else None
    return _Columns(names.index("arrival_s"), names.index("service_s"), name, len(names))


def _request(row: Sequence[str], columns: _Columns, last: float) -> tuple[str, float, float]:
    """One row. Raises ValueError saying what is wrong with it."""
    if len(row) < columns.width:
        raise ValueError(f"has {len(row)} of {columns.width} columns")
    arrival = _seconds("arrival_s", row[columns.arrival])
    service = _seconds("service_s", row[columns.service])
    if arrival < last:
        raise ValueError(f"arrival_s {arrival:g} is before the row above ({last:g}); sort the trace by time")
    name = row[columns.name].strip() if columns.name is not None else ""
    if columns.name is not None and not name:
        raise ValueError("service is empty")
    return name, arrival, service


def _seconds(column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{column} must be seconds, 0 or more; found {text.strip()!r}")
    return value
