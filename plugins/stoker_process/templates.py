"""The daemon's end of templates: processes that have imported a service's modules, and fork its replicas.

One for each service and what its replicas have in common: the interpreter, the modules, user, limits,
directory, and environment without what is each replica's own. It is made when the first replica is, which
waits for it, and dies with the daemon. The replicas do not depend on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import anyio

from stoker.errors import WorkerError
from stoker.model.service import ServiceKey
from stoker.plugin.local import open_log
from stoker.plugin.ports import StartRequest
from stoker_process import template as program
from stoker_process.cgroups import CgroupTrees
from stoker_process.exits import reap, signal_pidfd
from stoker_process.hierarchies import safe, write
from stoker_process.pythons import PythonCommand, python_command
from stoker_process.spawner import Birth, Order

PATIENCE = 120.0
"""Seconds that the imports may take before replicas are started without them."""
_AT_A_BIRTH = 10.0
"""Seconds that one replica may take to be forked; a template that takes longer hangs."""
_OWN = frozenset(
    {"STOKER_ID", "STOKER_REPLICA", "PORT", "TMPDIR", "NOTIFY_SOCKET", "CUDA_VISIBLE_DEVICES"}
    | {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_MPS_PIPE_DIRECTORY"}
)
"""Variables that are each replica's own. While modules are imported none of them is there, and no GPU."""
_LOST = (OSError, ValueError, anyio.ClosedResourceError, TimeoutError)
"""What a template that died or went mad raises here."""

Make = Callable[[Order, int, Path | None], Awaitable[Birth]]
"""Executes a command, in a cgroup if one is given, with that descriptor as its output."""


class Templates:
    """`make` brings a process into being; `call_orphans` makes the daemon a subreaper."""

    def __init__(
        self,
        make: Make,
        cgroups: CgroupTrees | None,
        *,
        call_orphans: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._make = make
        self._cgroups = cgroups
        self._call_orphans = call_orphans
        self._log = log
        self._templates: dict[str, _Template] = {}
        """By service."""
        self._refused: dict[str, str] = {}
        """By service: the kind of which no replica can be forked."""

    async def fork(self, request: StartRequest, order: Order, log: int, cgroup: Path | None) -> Birth | None:
        """Have the replica forked. None: it has to be executed, and if that is news it was said why.

        Not to be cancelled half-way.
        """
        command = python_command(request.argv) if request.preload else None
        if command is None:
            return None
        wanted = _Wanted(command, request.preload, order)
        if self._refused.get(request.service) == wanted.kind:
            return None
        found = await self._template(request, wanted)
        if found is None:
            return None
        groups = [*order.groups, *([str(cgroup)] if cgroup is not None else [])]
        try:
            with anyio.fail_after(_AT_A_BIRTH):
                return await found.fork(order, command, log, groups)
        except _LOST:
            self._log(
                f"{request.service}: the process that replicas are forked from has ended; "
                f"{request.replica} starts by itself, and the next one makes a new one"
            )
            await self._end(request.service, found)
            return None

    async def retain(self, services: Collection[ServiceKey]) -> None:
        """End those of other services than these."""
        for service, one in list(self._templates.items()):
            if service not in services:
                await self._end(service, one)

    async def aclose(self) -> None:
        """End them all; what they forked goes on."""
        for service, one in list(self._templates.items()):
            await self._end(service, one)

    async def _template(self, request: StartRequest, wanted: _Wanted) -> _Template | None:
        """The one for this kind of replica, made if there is none; None if there can be none."""
        found = self._templates.get(request.service)
        if found is not None and found.kind != wanted.kind:
            await self._end(request.service, found)
            found = None
        if found is not None:
            await found.settled.wait()
            return found if found.usable else None
        found = self._templates[request.service] = _Template(wanted.kind)
        reason = "it was given up"
        try:
            reason = await self._begin(found, request, wanted)
        finally:
            found.settled.set()
            if reason:
                await self._end(request.service, found)
        if not reason:
            self._log(f"{request.service}: replicas are forked from a process that {found.words(wanted)}")
            return found
        self._refused[request.service] = wanted.kind
        self._log(f"{request.service}: preload has no effect, each replica starts by itself: {reason}")
        return None

    async def _begin(self, one: _Template, request: StartRequest, wanted: _Wanted) -> str:
        """Start it and wait until it has imported everything; returns why that came to nothing, or ""."""
        self._call_orphans()
        one.cgroup = self._new_cgroup(request.service)
        try:
            with one.open() as output:
                birth = await self._make(wanted.order, output.fileno(), one.cgroup)
            if birth.pid:
                one.pid, one.pidfd = birth.pid, os.pidfd_open(birth.pid)
            if birth.step:
                return f"{wanted.order.path} cannot be executed: {os.strerror(birth.errno)}"
            log = open_log(request.log_path)
            try:
                with anyio.fail_after(PATIENCE):
                    return await one.imported(wanted, log)
            finally:
                os.close(log)
        except TimeoutError:
            return f"the imports were not done after {PATIENCE:.0f} s"
        except (*_LOST, WorkerError) as error:
            words = one.last_words or error
            return f"it ended over its imports ({words}); its output is in {request.log_path}"

    async def _end(self, service: str, one: _Template) -> None:
        """Kill one and take away what is left of it."""
        if self._templates.get(service) is one:
            del self._templates[service]
        with anyio.CancelScope(shield=True):
            await one.end()
            if one.cgroup is not None and self._cgroups is not None:
                await self._cgroups.empty(one.cgroup)
                one.cgroup = None

    def _new_cgroup(self, service: str) -> Path | None:
        if self._cgroups is None:
            return None
        try:
            return self._cgroups.create(f"preload-{safe(service)}")
        except OSError:
            return None


class _Wanted:
    """What a template for a kind of replica has to be."""

    def __init__(self, command: PythonCommand, modules: tuple[str, ...], order: Order) -> None:
        self.modules = modules
        self.path = order.cwd
        if command.script:
            self.path = os.path.dirname(os.path.realpath(os.path.join(order.cwd, command.script)))
        common = {name: value for name, value in order.env.items() if name not in _OWN}
        self.order = replace(
            order,
            argv=(order.argv[0], *command.options, str(Path(program.__file__))),
            env={**common, "CUDA_VISIBLE_DEVICES": ""},
            groups=(),
            cores=(),
            node=None,
        )
        whole = {one.name: getattr(self.order, one.name) for one in fields(Order)}
        self.kind = hashlib.sha256(json.dumps([whole, modules, self.path]).encode()).hexdigest()


@dataclass(slots=True)
class _Template:
    """One such process and the line to it."""

    kind: str
    settled: anyio.Event = field(default_factory=anyio.Event)
    """It is ready, or never will be."""
    usable: bool = False
    seconds: float = 0.0
    """That its imports took."""
    pid: int = 0
    pidfd: int | None = None
    cgroup: Path | None = None
    last_words: str = ""
    _link: socket.socket | None = None
    _turn: anyio.Lock = field(default_factory=anyio.Lock)
    _orders: int = 0

    def words(self, wanted: _Wanted) -> str:
        """What it is, for people."""
        return f"has imported {', '.join(wanted.modules)} in {self.seconds:.1f} s (pid {self.pid})"

    def open(self) -> socket.socket:
        """Make the line; returns the end that becomes its output."""
        self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)  # noqa: FBT003 - its argument has no name
        return other

    async def imported(self, wanted: _Wanted, log: int) -> str:
        """Tell it what to import and wait; returns why it refuses, or "". Raises OSError, ValueError."""
        paper = _written({"modules": wanted.modules, "path": wanted.path, "parent": os.getpid()})
        try:
            with suppress(BrokenPipeError):  # it has ended, maybe not without a word
                await self._send([paper, log])
        finally:
            os.close(paper)
        answer = await self._receive()
        self.seconds = answer.get("ready", 0.0)
        self.usable = "ready" in answer
        return "" if self.usable else str(answer.get("refused", "it gives no reason"))

    async def fork(self, order: Order, command: PythonCommand, log: int, groups: Iterable[str]) -> Birth:
        """Have one replica forked and put into its cgroups. Raises OSError, ValueError, TimeoutError."""
        whole = {one.name: getattr(order, one.name) for one in fields(Order)}
        whole |= {"module": command.module, "script": command.script, "arguments": command.arguments}
        paper = _written(whole)
        gate, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gate.setblocking(False)  # noqa: FBT003 - its argument has no name
        with gate:
            try:
                with inner:
                    async with self._turn:
                        await self._send([paper, log, inner.fileno()])
                        answer = await self._receive()
            finally:
                os.close(paper)
            birth = Birth(**answer)
            return birth if birth.step else await _let_through(gate, birth, groups)

    async def end(self) -> None:
        """Kill it and wait for its end."""
        self.usable = False
        if self._link is not None:
            anyio.notify_closing(self._link)
            self._link.close()
        if self.pidfd is not None:
            signal_pidfd(self.pidfd, signal.SIGKILL)
            await anyio.wait_readable(self.pidfd)
            reap(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = None

    async def _send(self, descriptors: list[int]) -> None:
        self._orders += 1
        link = self._line()
        while True:
            try:
                socket.send_fds(link, [str(self._orders).encode()], descriptors)
            except BlockingIOError:
                await anyio.wait_writable(link)
            else:
                return

    async def _receive(self) -> dict[str, Any]:
        data = await _next(self._line())
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(data)
            return found
        # What the interpreter itself has to say when it cannot run the program.
        self.last_words = data.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise ConnectionResetError(self.last_words or "it says nothing")

    def _line(self) -> socket.socket:
        if self._link is None:
            raise ConnectionResetError("it was never there")
        return self._link


async def _let_through(gate: socket.socket, birth: Birth, groups: Iterable[str]) -> Birth:
    """Put the new process, which waits at its gate, where it belongs, and let it run."""
    step = "clone"
    try:
        for group in groups:
            write(Path(group, "cgroup.procs"), str(birth.pid))
        step = "session"
        told = json.loads(await _next(gate))
        if told["step"]:
            return replace(birth, step=told["step"], errno=told["errno"])
        gate.send(b"+")
    except OSError as error:
        return replace(birth, step=step, errno=error.errno or 0)  # the gate closes, which ends it
    return birth


async def _next(link: socket.socket) -> bytes:
    """The next record of a socket. Raises OSError if there will be none."""
    while True:
        try:
            data = link.recv(8192)
        except BlockingIOError:
            await anyio.wait_readable(link)
            continue
        except ConnectionResetError:
            # It ended with an order unread, which is told once, and before the words it has left.
            continue
        if not data:
            raise ConnectionResetError("it ended")
        return data


def _written(content: dict[str, Any]) -> int:
    """As a file in memory: it may be as large as an environment, too large for a record."""
    paper = os.memfd_create("order")
    with open(paper, "wb", closefd=False) as file:
        file.write(json.dumps(content).encode())
    return paper
