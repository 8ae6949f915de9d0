"""One replica's output as one text of stable offsets, though its older parts have been moved aside.

A worker appends to its log file for as long as it lives; nobody can make it open another. So rotation
(`stoker.runtime.log_rotation`) copies the beginning of the file to a *part* beside it and then punches a
hole where that was: what is written meanwhile stays where it is, and so does every offset. A part carries
the offset at which it begins in its name, so reader and rotation need no further agreement, and neither
loses or repeats a byte when the other dies half-way.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TAIL = 16 * 1024
_LONGEST = 400
_PART = re.compile(r"\.(\d{15})")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` to `end` of a log."""

    start: int
    end: int
    path: str


def part_path(log_path: str, start: int) -> str:
    """Where the part that begins at that offset lies."""
    return f"{log_path}.{start:015d}"


def parts_of(log_path: str) -> list[Part]:
    """All parts of a log, oldest first; those that lie beyond its end are of another file of that name."""
    log = Path(log_path)
    try:
        size = log.stat().st_size
        names = os.listdir(log.parent)
    except OSError:
        return []
    found = []
    for name in sorted(names):
        match = _PART.fullmatch(name.removeprefix(log.name)) if name.startswith(log.name) else None
        if match is None:
            continue
        path = str(log.with_name(name))
        try:
            start, end = int(match[1]), int(match[1]) + os.stat(path).st_size
        except FileNotFoundError:
            continue  # it was the oldest
        if end <= size:
            found.append(Part(start, end, path))
    return found


class LogText:
    """Reads at any offset. Blocking; raises OSError only when it is made."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`

    @property
    def identity(self) -> tuple[int, int]:
        """Which file this is, whatever its name by now."""
        found = os.fstat(self._file.fileno())
        return found.st_dev, found.st_ino

    @property
    def size(self) -> int:
        """The offset behind the last byte."""
        return os.fstat(self._file.fileno()).st_size

    def begin(self) -> int:
        """The offset of the first byte that is still kept."""
        parts = parts_of(self.path)
        return parts[0].start if parts else 0

    def read(self, at: int, size: int) -> tuple[int, bytes]:
        """Up to `size` bytes from `at` or, where that is no longer kept, from the next offset that is; with
        the offset they begin at. b"" at the end."""
        piece = os.pread(self._file.fileno(), size, at)
        if b"\0" not in piece:
            return at, piece
        # Perhaps a hole. A part gets its name before the hole is made, so none now means there is no hole.
        end = 0
        for part in parts_of(self.path):
            end = part.end
            if part.end > at and (found := _read_part(part, at, size)):
                return max(at, part.start), found
        if end <= at:
            return at, piece
        return end, os.pread(self._file.fileno(), size, end)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_part(part: Part, at: int, size: int) -> bytes:
    try:
        with open(part.path, "rb") as file:
            file.seek(max(0, at - part.start))
            return file.read(size)
    except FileNotFoundError:
        return b""  # it became too old while we looked


def last_lines(path: str, count: int) -> list[str]:
    """The last lines with text in a log, none of them longer than people read; [] where there is no log.
    Blocking."""
    try:
        text = LogText(path)
    except OSError:
        return []
    try:
        at = max(0, text.size - _TAIL)
        start, piece = text.read(at, _TAIL)
    finally:
        text.close()
    whole = piece if start == 0 else piece.partition(b"\n")[2]
    lines = [
        "".join(c for c in line if c.isprintable() or c == "\t")
        for line in whole.decode(errors="replace").splitlines()
    ]
    return [line[:_LONGEST] for line in lines if line.strip()][-count:]
