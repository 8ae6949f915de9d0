"""The daemon's side of `holder`: deposits the listening sockets, withdraws those of the daemon before.

All of it blocks, for a few seconds at the very worst: call it in a thread. What goes wrong here costs the
second net only, which is why nothing is raised but RouterError where there can be no sockets at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stoker.model.service import ServiceKey
from stoker.plugin import holder
from stoker.plugin.copies import SOCKETS_PER_MESSAGE, Copy, receive_copies
from stoker.plugin.ports import PluginContext

EVERY = ""
"""In place of a service: its program is that of all."""
PATIENCE = 2.0
"""Seconds for an answer."""
BEGINNING = 15.0
"""Seconds that a new holder gets to answer: on a busy machine a Python takes its time to begin."""


class Holding:
    """The line to the holder, which is started when there is something to hold. `path` says where its socket
    is, one of each router's own, and may raise RouterError."""

    def __init__(self, context: PluginContext, path: Callable[[], str]) -> None:
        self._context = context
        self._where = path
        self._line: socket.socket | None = None
        self._held: frozenset[tuple[ServiceKey, str, int]] = frozenset()
        """What the holder has of us."""
        self._watched: Mapping[ServiceKey, int] = {}
        """The programs whose end it knows of."""

    def deposit(self, copies: Mapping[ServiceKey, Copy], programs: Mapping[ServiceKey, int]) -> None:
        """Have these held, in place of all others, and the ends of the processes watched that serve them: by
        service, or that of all by EVERY."""
        wanted = frozenset((service, copy.host, copy.port) for service, copy in copies.items())
        if self._line is None and not copies:
            return
        if wanted == self._held and programs == self._watched and self._lives():
            return
        if self._open(begin=True):
            self._keep(list(copies.items()))
            self._watch(programs)
            told = self._line is not None
            self._held, self._watched = (wanted, dict(programs)) if told else (frozenset(), {})

    def withdraw(self) -> dict[ServiceKey, Copy]:
        """Copies of what is held for the instance; they are the caller's to close. {} if there is nothing."""
        found: dict[ServiceKey, Copy] = {}
        if not self._open(begin=False):
            return found
        try:
            self._send({"op": "sockets"}, ())
            while self._line is not None and receive_copies(self._line, found):
                pass
        except (OSError, ValueError):
            self.leave()
        return found

    def end(self) -> None:
        """End it, with all that it holds."""
        if self._open(begin=False):
            answer = self._ask({"op": "end"})
            self.leave()
            _reap(int(answer.get("pid", 0)))
        Path(self._path).unlink(missing_ok=True)

    def leave(self) -> None:
        """Hang up. The holder goes on, for the next daemon."""
        if self._line is not None:
            self._line.close()
        self._line, self._held, self._watched = None, frozenset(), {}

    def _keep(self, copies: Sequence[tuple[ServiceKey, Copy]]) -> None:
        for start in range(0, max(len(copies), 1), SOCKETS_PER_MESSAGE):
            batch = copies[start : start + SOCKETS_PER_MESSAGE]
            places = [(service, copy.host, copy.port) for service, copy in batch]
            request = {"op": "keep", "services": places, "first": start == 0}
            self._ask(request, [copy.fd for _, copy in batch])

    def _watch(self, programs: Mapping[ServiceKey, int]) -> None:
        found: list[tuple[ServiceKey, int]] = []
        for service, pid in programs.items():
            with contextlib.suppress(OSError):  # it has just ended; the next is told of soon
                found.append((service, os.pidfd_open(pid)))
        for start in range(0, len(found), SOCKETS_PER_MESSAGE):
            batch = found[start : start + SOCKETS_PER_MESSAGE]
            services = [service for service, _ in batch]
            of_all = services == [EVERY]
            request = (
                {"op": "watch"} if of_all else {"op": "watch", "services": services, "first": start == 0}
            )
            self._ask(request, [pidfd for _, pidfd in batch])
        for _, pidfd in found:
            os.close(pidfd)

    # -- the line --------------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        """Raises RouterError."""
        return self._where()

    def _lives(self) -> bool:
        """Whether the holder that we know still listens to us."""
        if self._line is None:
            return False
        return not _readable(self._line.fileno(), 0)  # it says nothing unasked: readable is the end

    def _open(self, *, begin: bool) -> bool:
        """Be connected; with `begin` to a new holder if there is none."""
        if not self._lives():
            self.leave()
            self._line = self._connect() or (self._begin() if begin else None)
        return self._line is not None

    def _connect(self, patience: float = PATIENCE) -> socket.socket | None:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.settimeout(patience)
        try:
            line.connect(self._path)
        except OSError:
            line.close()
            return None
        return line

    def _begin(self) -> socket.socket | None:
        """Start a holder. Its socket is there before it, so that nobody has to wait."""
        beside = f"{self._path}.new"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                Path(beside).unlink(missing_ok=True)
                listener.bind(beside)
                os.chmod(beside, 0o600)
                listener.listen()
                os.replace(beside, self._path)
                _spawn(listener, self._context)
        except OSError:
            return None
        return self._connect(BEGINNING)

    def _send(self, request: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Raises OSError."""
        if self._line is not None:
            line = json.dumps({**request, "instance": self._context.instance}).encode()
            socket.send_fds(self._line, [line], descriptors)

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """The answer; {} if there is none, and no line any more then."""
        if self._line is None:
            return {}
        try:
            self._send(request, descriptors)
            answer: dict[str, Any] = json.loads(self._line.recv(4096))
            if "error" in answer:
                raise ValueError(answer["error"])
        except (OSError, ValueError):
            self.leave()
            return {}
        return answer


def _spawn(listener: socket.socket, context: PluginContext) -> None:
    """Raises OSError."""
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", holder.__file__, context.instance, context.state_dir],
        {"STOKER_ROLE": "holder"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, listener.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    )


def _readable(fd: int, seconds: float) -> bool:
    """Whether there is something to read within that time. By poll: a daemon with hundreds of workers has
    descriptors of which select does not want to know."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _reap(pid: int) -> None:
    """Take it away if it is our child; it is about to end."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        _readable(pidfd, PATIENCE)
        os.close(pidfd)
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)
