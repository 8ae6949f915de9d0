"""The daemon's end of the fork server: order a process, get its pid."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import anyio

from stoker.errors import WorkerError
from stoker_process import forkserver
from stoker_process.exits import reap, signal_pidfd

_LOST = (OSError, anyio.ClosedResourceError)
"""What a dead fork server's socket raises."""
_ENDED = "the process that starts workers ended over an order; it will be tried again"
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
    tmp: str = ""
    """A directory that it makes for itself and its user first; "" for none."""
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


@dataclass(frozen=True, slots=True)
class Parked:
    """A child that waits for its order on the other end of `line`."""

    number: int
    line: socket.socket
    server: _Server


class Spawner:
    """Keeps one fork server running while it is open; a dead one is replaced at the next order."""

    def __init__(self) -> None:
        self._room = anyio.Semaphore(_AHEAD, fast_acquire=True)
        self._reading = anyio.Lock()
        self._numbers = itertools.count(1)
        self._births: dict[int, Birth] = {}
        self._server = _Server()

    def park(self, cgroup: int | None = None) -> Parked | None:
        """Have a child forked ahead of its order; None if that cannot be done without waiting. To be given to
        `spawn` or `dismiss`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # noqa: FBT003 - its argument has no name
        parked = Parked(next(self._numbers), ours, self._server)
        with theirs:
            descriptors = [theirs.fileno()] if cgroup is None else [theirs.fileno(), cgroup]
            if not self._server.lost and self._server.offer(f"park {parked.number}", descriptors):
                return parked
        ours.close()
        return None

    async def dismiss(self, parked: Parked) -> None:
        """Let a parked child end, which nobody needs after all."""
        with anyio.CancelScope(shield=True), parked.line as line:
            await anyio.wait_readable(line)
            pid = _told(line)
            line.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(WorkerError):
                pid = (await self._answered(parked.server, parked.number)).pid
            await _gone(pid)

    async def order(self, parked: Parked, order: Order, log: int) -> Birth | None:
        """Let a parked child become what is ordered; None if it is not there any more. Else as `spawn`."""
        with anyio.CancelScope(shield=True), parked.line as line:
            taken = _hand(line, order, log)
            try:
                birth = await self._answered(parked.server, parked.number)
            except WorkerError:
                await anyio.wait_readable(line)
                await _gone(_told(line), kill=True)  # whatever it is by now
                raise
            if not taken:
                await _gone(birth.pid)
        return birth if taken else None

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
        except _LOST:
            raise WorkerError(_ENDED) from None
        finally:
            os.close(paper)
        return await self._answered(server, number)

    async def _answered(self, server: _Server, number: int) -> Birth:
        """Raises WorkerError."""
        try:
            return await self._answer(server, number)
        except _LOST:
            raise WorkerError(_ENDED) from None

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

    def offer(self, words: str, descriptors: list[int]) -> bool:
        """Give an order if it is taken at once."""
        try:
            socket.send_fds(self._link, [words.encode()], descriptors)
        except OSError:
            return False
        return True

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


def _hand(line: socket.socket, order: Order, log: int) -> bool:
    """Give an order to a parked child, if it is there."""
    paper = _written(order)
    try:
        socket.send_fds(line, [b"0"], [paper, log])
    except OSError:
        return False
    finally:
        os.close(paper)
    return True


def _told(line: socket.socket) -> int:
    """The pid that a parked child has told; 0 if it never was there."""
    with contextlib.suppress(OSError):
        return int(line.recv(32) or b"0")
    return 0


async def _gone(pid: int, *, kill: bool = False) -> None:
    """Wait for the end of a child of ours and take it away. 0: nobody."""
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        pidfd = os.pidfd_open(pid)
        try:
            if kill:
                signal_pidfd(pidfd, signal.SIGKILL)
            await anyio.wait_readable(pidfd)
            reap(pidfd)
        finally:
            os.close(pidfd)


def _written(order: Order) -> int:
    """The order as a file in memory: it may be as large as an environment, too large for a record."""
    paper = os.memfd_create("order")
    # Not `asdict`: it would copy the whole environment.
    text = json.dumps({name: getattr(order, name) for name in _FIELDS}).encode()
    while text:  # one write may be cut short, of two gigabytes and above
        text = text[os.write(paper, text) :]
    return paper


_FIELDS = tuple(one.name for one in fields(Order))
