"""A process that does nothing but hold the listening sockets. Run as a script, without any package.

The daemon's copies of them bridge the end of a router's program, and the program bridges the end of the
daemon. This process bridges the end of both at once: clients wait in the backlog until the next daemon has
withdrawn the sockets and its program accepts. It lets go of a socket `PATIENCE` seconds after the last of
daemon and program has gone, since an address that stayed open for ever would neither be refused nor answered.
It ends when it is told to, or has nothing left to hold.

Standard input is its own socket, of records. A request is JSON, with descriptors as ancillary data:

    {"op": "keep", "services": [[service, host, port], ...], "first": true}    one descriptor for each
    {"op": "watch", "services": [service, ...], "first": true}      a pidfd of the program of each
    {"op": "watch"}     a pidfd of the program of all of them
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
    """`kept` are [service, host, port] and descriptor of each socket; `programs` are pidfds of routers, each
    with its service, or None for all."""

    def __init__(self, listener: socket.socket, instance: str, state_dir: str) -> None:
        self.kept: list[tuple[list[Any], int]] = []
        self.programs: dict[int, str | None] = {}
        self._instance = instance
        self._state_dir = state_dir
        self._daemons: dict[int, socket.socket] = {}
        self._born = time.monotonic()
        self._served = False
        """A daemon has come."""
        self._until: dict[str, float] = {}
        """Of each service with neither daemon nor program: when its socket is let go."""
        self._listener = listener
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Until it is told to end, or nobody is left."""
        try:
            self._serve()
        finally:
            self._drop()
            self._watch_no_more()
            for one in (self._listener, *self._daemons.values()):
                one.close()

    def _serve(self) -> None:
        deadline: float | None = self._born + PATIENCE
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            for descriptor, _ in self._poll.poll(left):
                if not self._attend(descriptor):
                    return
            now = time.monotonic()
            deadline = self._look(now)
            if not self._daemons and None not in self.programs.values():
                new = now < self._born + PATIENCE and not self._served
                if not (self.kept or new) or not os.path.isdir(self._state_dir):
                    return

    def _look(self, now: float) -> float | None:
        """Let go what has had neither daemon nor program for long enough; the time to look again."""
        tended = set(self.programs.values())
        alone = set() if self._daemons or None in tended else {place[0] for place, _ in self.kept} - tended
        self._until = {service: self._until.get(service, now + PATIENCE) for service in alone}
        over = {service for service, until in self._until.items() if until <= now}
        for _, descriptor in [one for one in self.kept if one[0][0] in over]:
            os.close(descriptor)
        self.kept = [one for one in self.kept if one[0][0] not in over]
        if not self._served:
            return self._born + PATIENCE
        return min((until for service, until in self._until.items() if service not in over), default=None)

    def _attend(self, descriptor: int) -> bool:
        """Whether to go on."""
        if descriptor == self._listener.fileno():
            daemon, _ = self._listener.accept()
            self._served = True
            self._daemons[daemon.fileno()] = daemon
            self._poll.register(daemon, select.POLLIN)
        elif descriptor in self.programs:
            self._poll.unregister(descriptor)
            del self.programs[descriptor]
            os.close(descriptor)
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
                places = list(zip(request["services"], descriptors, strict=True))
                if request["first"]:
                    self._drop()
                self.kept += places
            case "watch":
                services = request.get("services") or [None]
                pairs = list(zip(descriptors, services, strict=True))
                if request.get("first", True):
                    self._watch_no_more()
                for pidfd, service in pairs:
                    self.programs[pidfd] = service
                    self._poll.register(pidfd, select.POLLIN)
            case "sockets":
                self._hand_over(daemon)
                return
            case "end":
                self._drop()  # before the answer: then the addresses are free
            case other:
                raise ValueError(f"unknown op {other!r}")
        self._answer(daemon, {"op": request["op"]})

    def _watch_no_more(self) -> None:
        for pidfd in self.programs:
            self._poll.unregister(pidfd)
            os.close(pidfd)
        self.programs.clear()

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
