"""A small mapping that survives its process, kept as one file that grows at its end.

Each line is a JSON list of a name and its present value, null for none; the last line of a name counts. To
remember one thing is one append: neither a new file nor a rename nor a flush, which on a busy disk take
milliseconds. What was written outlives the process, whatever kills it; only a power cut could take it away,
and takes what it tells of (processes of this boot) as well. A line that was cut off is passed over: then the
value before it counts. When old lines outweigh what lives, the file is written anew beside its place and
renamed.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SPARE = 2000
"""Lines that may be out of date before the file is written anew."""


class RecordLog:
    """The mapping in the file `path`; its directory is made when it is first written. One process writes."""

    def __init__(self, path: str | Path, *, spare: int = _SPARE) -> None:
        self._path = str(path)
        self._spare = spare
        self._file: int | None = None
        self._lines: dict[str, bytes] = {}
        self._stale = 0
        self._cut = False
        """Whether the last line of the file may be unfinished."""

    def read(self) -> dict[str, Any]:
        """What is there, from the file. What cannot be read is as good as never written."""
        return _replayed(self._content())

    def put(self, name: str, value: Mapping[str, Any]) -> None:
        """Remember a value, in place of the one before; one that is known already is not written again.
        Raises OSError (disk full)."""
        line, file = _line(name, value), self._open()
        if self._lines.get(name) == line:
            return
        self._write(file, line)
        self._stale += name in self._lines
        self._lines[name] = line
        self._tidy()

    def drop(self, name: str) -> None:
        """Forget a name. One that is unknown is no error. Raises OSError (disk full)."""
        if self._file is None and not os.path.exists(self._path):
            return
        file = self._open()
        if name in self._lines:
            self._write(file, _line(name, None))
            del self._lines[name]
            self._stale += 2
            self._tidy()

    def clear(self) -> None:
        """Forget everything, and the file. Raises OSError."""
        self.close()
        self._lines = {}
        Path(self._path).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the file back; it is opened again when it is needed."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, file: int, line: bytes) -> None:
        data = b"\n" + line if self._cut else line
        self._cut = True
        if os.write(file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._cut = False

    def _open(self) -> int:
        if self._file is None:
            content = self._content()
            self._lines = {name: _line(name, value) for name, value in _replayed(content).items()}
            self._stale = content.count(b"\n") - len(self._lines)
            self._cut = not content.endswith(b"\n") and bool(content)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            try:
                self._file = os.open(self._path, flags, 0o600)
            except FileNotFoundError:
                Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = os.open(self._path, flags, 0o600)
        return self._file

    def _content(self) -> bytes:
        try:
            return Path(self._path).read_bytes()
        except FileNotFoundError:
            return b""

    def _tidy(self) -> None:
        """Write the file anew if most of it is out of date. If that fails, later."""
        if self._stale < self._spare + len(self._lines):
            return
        self._stale = 0
        beside = f"{self._path}.new"
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(b"".join(self._lines.values()))
            os.replace(beside, self._path)
        except OSError:
            Path(beside).unlink(missing_ok=True)
        else:
            self.close()


def _line(name: str, value: Mapping[str, Any] | None) -> bytes:
    return json.dumps([name, value], separators=(",", ":")).encode() + b"\n"


def _replayed(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in content.splitlines():
        match _parsed(line):
            case [str(name), None]:
                found.pop(name, None)
            case [str(name), value]:
                found[name] = value
    return found


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
