"""How far each log has been taken: a file that is right after the death of its writer at any instruction.

Each line is `OFFSET INODE NAME`. The offset has a fixed width and is written over in place after each line
that the journal has got, so what the journal has and what the file says differ by one line for the time
between two system calls.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_WIDTH = 20


def begin(path: Path, logs: Path) -> None:
    """Make the file if there is none: what is in the logs by now is not to be forwarded. Raises OSError."""
    if path.exists():
        return
    lines = []
    for log in sorted(logs.glob("*/*/*.log")):
        with suppress(FileNotFoundError):
            found = log.stat()
            lines.append(_line(found.st_size, found.st_ino, str(log.relative_to(logs))))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(path, lines)


class Positions:
    """The file `path`, about the logs below `logs`. One process writes. Raises OSError."""

    def __init__(self, path: Path, logs: Path) -> None:
        kept = [entry for entry in _read(path) if (logs / entry[2]).exists()]
        _replace(path, [_line(*entry) for entry in kept])
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._end = 0
        self._known: dict[str, tuple[int, int, int]] = {}
        """By name: where its line begins, the inode, the offset."""
        for offset, inode, name in kept:
            self._remember(name, inode, offset)

    def of(self, name: str, inode: int) -> int:
        """How far that log has been taken. Another file of its name begins anew."""
        if name not in self._known or self._known[name][1] != inode:
            line = _line(0, inode, name)
            os.pwrite(self._file, line, self._end)
            self._remember(name, inode, 0)
        return self._known[name][2]

    def set(self, name: str, offset: int) -> None:
        """The journal has all before that offset."""
        start, inode, _ = self._known[name]
        os.pwrite(self._file, b"%0*d" % (_WIDTH, offset), start)
        self._known[name] = start, inode, offset

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _remember(self, name: str, inode: int, offset: int) -> None:
        self._known[name] = self._end, inode, offset
        self._end += len(_line(offset, inode, name))


def _line(offset: int, inode: int, name: str) -> bytes:
    return b"%0*d %0*d " % (_WIDTH, offset, _WIDTH, inode) + os.fsencode(name) + b"\n"


def _read(path: Path) -> list[tuple[int, int, str]]:
    """What is there; of two lines about one log the later counts, one that was cut off does not."""
    found: dict[str, tuple[int, int, str]] = {}
    with suppress(FileNotFoundError):
        for line in path.read_bytes().split(b"\n")[:-1]:
            offset, inode, name = line.split(b" ", 2)
            found[os.fsdecode(name)] = int(offset), int(inode), os.fsdecode(name)
    return list(found.values())


def _replace(path: Path, lines: list[bytes]) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(b"".join(lines))
    beside.replace(path)
