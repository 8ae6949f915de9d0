"""A process that does nothing but hold the listening sockets. Run as a script, without any package.

The daemon's copies of them bridge the end of the program, and the program bridges the end of the daemon.
This process bridges the end of both at once: clients wait in the backlog until the next daemon has withdrawn
the sockets and its program accepts. It ends when it is told to, and by itself `PATIENCE` seconds after the
last of daemon and program has gone: an address that stayed open for ever would neither be refused nor
answered.

Standard input is its own socket, of records. A request is JSON, with descriptors as ancillary data:

    {"op": "keep", "services": [[service, host, port], ...], "first": true}    one descriptor for each
    {"op": "watch"}     a pidfd of the program
    {"op": "sockets"}   answered as the program answers it
    {"op": "end"}

Each has to name the `instance`, and is answered with the `pid` of this process. A connection is a daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from typing import Any

PATIENCE = 60.0
"""Seconds in which another daemon may come when neither daemon nor program is left."""
_BATCH = 64
"""Sockets in one message; the kernel takes 253."""
_LONGEST = 1 << 16


class Holder:
    """`kept` are [service, host, port] and descriptor of each socket, `program` is the router's pidfd."""

    def __init__(self, listener: socket.socket, instance: str, state_dir: str) -> None:
        self.kept: list[tuple[list[Any], int]] = []
        self.program: int | None = None
        self._instance = instance
        self._state_dir = state_dir
        self._daemons: dict[int, socket.socket] = {}
        self._listener = listener
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Until it is told to end, or nobody is left."""
        try:
            self._serve()
        finally:
            self._drop()
            self._watch(None)
            for one in (self._listener, *self._daemons.values()):
                one.close()

    def _serve(self) -> None:
        deadline: float | None = time.monotonic() + PATIENCE
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = self._poll.poll(left)
            if not ready:
                return
            for descriptor, _ in ready:
                if not self._attend(descriptor):
                    return
            if self._daemons or self.program is not None:
                deadline = None
            elif not self.kept or not os.path.isdir(self._state_dir):
                return
            elif deadline is None:
                deadline = time.monotonic() + PATIENCE

    def _attend(self, descriptor: int) -> bool:
        """Whether to go on."""
        if descriptor == self._listener.fileno():
            daemon, _ = self._listener.accept()
            self._daemons[daemon.fileno()] = daemon
            self._poll.register(daemon, select.POLLIN)
        elif descriptor == self.program:
            self._watch(None)
        elif descriptor in self._daemons:
            return self._hear(self._daemons[descriptor])
        return True

    def _hear(self, daemon: socket.socket) -> bool:
        try:
            line, descriptors, _, _ = socket.recv_fds(daemon, _LONGEST, _BATCH)
        except OSError:
            line, descriptors = b"", []
        if not line:
            self._poll.unregister(daemon)
            del self._daemons[daemon.fileno()]
            daemon.close()
            return True
        try:
            request = json.loads(line)
            if request["instance"] != self._instance:
                raise ValueError("these sockets are another daemon's")
            self._obey(daemon, request, descriptors)
        except (ValueError, KeyError, TypeError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            self._answer(daemon, {"error": f"{type(error).__name__}: {error}"})
            return True
        return bool(request["op"] != "end")

    def _obey(self, daemon: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        """Raises ValueError before it has taken a descriptor."""
        match request["op"]:
            case "keep":
                pairs = list(zip(request["services"], descriptors, strict=True))
                if request["first"]:
                    self._drop()
                self.kept += pairs
            case "watch":
                (pidfd,) = descriptors
                self._watch(pidfd)
            case "sockets":
                self._hand_over(daemon)
                return
            case "end":
                self._drop()  # before the answer: then the addresses are free
            case other:
                raise ValueError(f"unknown op {other!r}")
        self._answer(daemon, {"op": request["op"]})

    def _watch(self, pidfd: int | None) -> None:
        if self.program is not None:
            self._poll.unregister(self.program)
            os.close(self.program)
        self.program = pidfd
        if pidfd is not None:
            self._poll.register(pidfd, select.POLLIN)

    def _drop(self) -> None:
        for _, descriptor in self.kept:
            os.close(descriptor)
        self.kept.clear()

    def _hand_over(self, daemon: socket.socket) -> None:
        for start in range(0, max(len(self.kept), 1), _BATCH):
            batch = self.kept[start : start + _BATCH]
            more = start + _BATCH < len(self.kept)
            message = {"op": "sockets", "services": [place for place, _ in batch], "more": more}
            self._answer(daemon, message, [descriptor for _, descriptor in batch])

    @staticmethod
    def _answer(daemon: socket.socket, answer: dict[str, Any], descriptors: list[int] | None = None) -> None:
        line = json.dumps({**answer, "pid": os.getpid()}).encode()
        with contextlib.suppress(OSError):  # it has gone: the next reading says so
            socket.send_fds(daemon, [line], descriptors or [])


def main() -> None:
    """`holder.py INSTANCE STATE_DIR`, with the listening socket as standard input."""
    listener = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir("/")
    Holder(listener, sys.argv[1], sys.argv[2]).serve()


if __name__ == "__main__":
    main()
