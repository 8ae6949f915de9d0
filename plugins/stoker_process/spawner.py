"""The daemon's end of the fork server: order a process, get its pid."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import anyio

from stoker.errors import WorkerError
from stoker_process import forkserver

_LOST = (OSError, anyio.ClosedResourceError)
"""What a dead fork server's socket raises."""
_AHEAD = 16
"""Orders that may be under way at once: so many that the fork server never waits for the daemon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A process to be made: `path` is executed with `argv`. `limits` are pairs of rlimit and value, `user`
    is name, uid and gid or None, `groups` are cgroups that it enters first."""

    path: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    limits: tuple[tuple[int, int], ...] = ()
    user: tuple[str, int, int] | None = None
    umask: int | None = None
    groups: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()
    """To run on; empty: on any."""
    node: int | None = None
    """The NUMA node whose memory it takes first; None: no preference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What came of it. With a `step` it failed there with `errno`; a `pid` above 0 is then a zombie."""

    number: int
    pid: int
    step: str = ""
    errno: int = 0


class Spawner:
    """Keeps one fork server running while it is open; a dead one is replaced at the next order."""

    def __init__(self) -> None:
        self._room = anyio.Semaphore(_AHEAD)
        self._reading = anyio.Lock()
        self._numbers = itertools.count(1)
        self._births: dict[int, Birth] = {}
        self._server = _Server()

    async def spawn(self, order: Order, log: int, cgroup: int | None = None) -> Birth:
        """Have the process made. `log` and `cgroup` are descriptors; they stay the caller's.

        Not to be cancelled half-way. Raises WorkerError if the fork server is lost; the process may then
        exist all the same.
        """
        with anyio.CancelScope(shield=True):
            async with self._room:
                birth = await self._give(order, [log] if cgroup is None else [log, cgroup])
        return birth

    def close(self) -> None:
        """End the fork server; the processes that it made are not concerned."""
        self._server.end()

    async def _give(self, order: Order, descriptors: list[int]) -> Birth:
        number, paper = next(self._numbers), _written(order)
        try:
            server = await self._deliver(number, [paper, *descriptors])
            return await self._answer(server, number)
        except _LOST:
            raise WorkerError(
                "the process that starts workers ended over an order; it will be tried again"
            ) from None
        finally:
            os.close(paper)

    async def _deliver(self, number: int, descriptors: list[int]) -> _Server:
        """Give the order to the server, or to a new one if that has died meanwhile. Raises OSError."""
        server = self._living()
        try:
            await server.send(number, descriptors)
        except _LOST:
            server.lost = True
            server = self._living()
            await server.send(number, descriptors)
        return server

    def _living(self) -> _Server:
        if self._server.lost:
            self._server.end()
            self._server = _Server()
        return self._server

    async def _answer(self, server: _Server, number: int) -> Birth:
        """Wait for one answer; whoever reads another's meanwhile lays it down for them."""
        while number not in self._births:
            async with self._reading:
                if number not in self._births:
                    try:
                        birth = await server.receive()
                    except _LOST:
                        server.lost = True
                        raise
                    self._births[birth.number] = birth
        return self._births.pop(number)


class _Server:
    """One fork server and the line to it."""

    def __init__(self) -> None:
        self.lost = False
        self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)  # noqa: FBT003 - its argument has no name
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(forkserver.__file__))],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={"STOKER_ROLE": "forkserver"},
                start_new_session=True,
            )

    async def send(self, number: int, descriptors: list[int]) -> None:
        """Give an order. Raises OSError if the server is dead."""
        while True:
            try:
                socket.send_fds(self._link, [str(number).encode()], descriptors)
            except BlockingIOError:
                await anyio.wait_writable(self._link)
            else:
                return

    async def receive(self) -> Birth:
        """The next answer, whosever it is. Raises OSError if there will be none."""
        while True:
            try:
                answer = self._link.recv(4096)
            except BlockingIOError:
                await anyio.wait_readable(self._link)
                continue
            if not answer:
                raise ConnectionResetError("no answer")
            return Birth(**json.loads(answer))

    def end(self) -> None:
        """Kill it."""
        anyio.notify_closing(self._link)
        self._link.close()
        self._process.kill()
        self._process.wait()


def _written(order: Order) -> int:
    """The order as a file in memory: it may be as large as an environment, too large for a record."""
    paper = os.memfd_create("order")
    with open(paper, "wb", closefd=False) as file:
        # Not `asdict`: it would copy the whole environment.
        file.write(json.dumps({one.name: getattr(order, one.name) for one in fields(order)}).encode())
    return paper
