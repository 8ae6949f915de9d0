"""Where the files of one HAProxy process are."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import RouterError
from stoker.plugin.ports import PluginContext

_LONGEST = 60
"""Bytes of the directory of sockets: the kernel takes 107 of a path, HAProxy binds to `NAME.PID.tmp`."""


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one process, whose name is unique among those of a daemon's state directory."""

    name: str
    sockets: Path
    state: Path

    @property
    def admin(self) -> str:
        """Its admin socket."""
        return str(self.sockets / f"{self.name}.a")

    @property
    def plug(self) -> str:
        """Where the request comes in that keeps the pool from being empty."""
        return str(self.sockets / f"{self.name}.p")

    @property
    def sink(self) -> str:
        """Where that request ends up."""
        return str(self.sockets / f"{self.name}.s")

    @property
    def gift(self) -> str:
        """Where its listening socket is handed to it."""
        return str(self.sockets / f"{self.name}.x")

    @property
    def record(self) -> Path:
        """What the next daemon finds it by; the process ends when this is gone."""
        return self.state / f"{self.name}.json"

    @property
    def configuration(self) -> Path:
        """Its configuration, read once."""
        return self.state / f"{self.name}.cfg"

    @property
    def certificate(self) -> Path:
        """A link to its certificate, beside one to the key, which HAProxy finds by this one's name."""
        return self.state / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        """A link to the key of the certificate."""
        return self.state / f"{self.name}.key"

    def remove(self) -> None:
        """Remove them all."""
        for path in (
            self.admin,
            self.plug,
            self.sink,
            self.configuration,
            self.certificate,
            self.key,
            self.record,
        ):
            Path(path).unlink(missing_ok=True)


class Folder:
    """All that belongs to one daemon. Raises RouterError if it cannot be made."""

    def __init__(self, context: PluginContext) -> None:
        self.sockets = _sockets(context)
        self.state = Path(context.state_dir) / "haproxy"
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RouterError(
                f"cannot make HAProxy's state directory {self.state}: {error.strerror}"
            ) from error
        self.log = Path(context.state_dir) / "logs" / "haproxy.log"
        self.ear = str(self.sockets / "ear")
        """The socket to which the processes send what they log."""
        self._serial = 0
        self.keep = str(self.sockets / "keep")
        """The socket of the process that holds the listening sockets."""

    def door(self, service: str) -> str:
        """Where doors of another router bring requests to that service: to whichever process began last."""
        return str(self.sockets / f"{_mark(service)}.d")

    def places(self, name: str) -> Places:
        """The files of the process of that name."""
        return Places(name, self.sockets, self.state)

    def new(self, service: str) -> Places:
        """The files of another process for that service."""
        self._serial = 1 + max([self._serial, *(_serial(path.stem) for path in self.state.glob("*.json"))])
        return self.places(f"{_mark(service)}-{self._serial}")

    def known(self) -> list[Places]:
        """Of all processes that left a record."""
        return [self.places(path.stem) for path in sorted(self.state.glob("*.json"))]


def _mark(service: str) -> str:
    return hashlib.sha256(service.encode()).hexdigest()[:8]


def _serial(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _sockets(context: PluginContext) -> Path:
    folder = Path(context.runtime_dir) / "haproxy"
    short = len(os.fsencode(folder)) <= _LONGEST
    if not short:
        mark = hashlib.sha256(f"{folder}\0{context.instance}".encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"stoker-h-{os.geteuid()}-{mark}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise RouterError(f"cannot make HAProxy's runtime directory {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RouterError(
            f"{folder} belongs to somebody else: remove it, or set XDG_RUNTIME_DIR to a shorter path"
        )
    return folder
