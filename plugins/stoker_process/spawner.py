"""The daemon's end of the fork server: order a process, get its pid."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from stoker.errors import WorkerError
from stoker_process import forkserver


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A process to be made: `path` is executed with `argv`. `limits` are pairs of rlimit and value, `user`
    is name, uid and gid or None."""

    path: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    limits: tuple[tuple[int, int], ...] = ()
    user: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What came of it. With a `step` it failed there with `errno`; a `pid` above 0 is then a zombie."""

    pid: int
    step: str = ""
    errno: int = 0


class Spawner:
    """Keeps one fork server running while it is open; a dead one is replaced at the next order."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._begin()

    async def spawn(self, order: Order, log: int, cgroup: int | None = None) -> Birth:
        """Have the process made. `log` and `cgroup` are descriptors; they stay the caller's.

        Not to be cancelled half-way. Raises WorkerError if the fork server is lost; the process may then
        exist all the same.
        """
        descriptors = [log] if cgroup is None else [log, cgroup]
        with anyio.CancelScope(shield=True):
            async with self._lock:
                link = self._link if self._process is not None and self._process.poll() is None else None
                link = link or self._begin()
                try:
                    await _send(link, json.dumps(asdict(order)).encode(), descriptors)
                    return Birth(**json.loads(await _receive(link)))
                except OSError as error:
                    self._end()
                    lost = error
        raise WorkerError(f"the process that starts workers has ended ({lost}); it will be tried again")

    def close(self) -> None:
        """End the fork server; the processes that it made are not concerned."""
        self._end()

    def _begin(self) -> socket.socket:
        self._end()
        link, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(forkserver.__file__))],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={"STOKER_ROLE": "forkserver"},
                start_new_session=True,
            )
        link.setblocking(False)  # noqa: FBT003 - its argument has no name
        self._link = link
        return link

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def _send(link: socket.socket, body: bytes, descriptors: list[int]) -> None:
    data = memoryview(forkserver.LENGTH.pack(len(body)) + body)
    while data:
        try:
            sent = socket.send_fds(link, [data], descriptors) if descriptors else link.send(data)
        except BlockingIOError:
            await anyio.wait_writable(link)
            continue
        data, descriptors = data[sent:], []


async def _receive(link: socket.socket) -> bytes:
    data = b""
    while len(data) < forkserver.LENGTH.size or len(data) < _whole(data):
        await anyio.wait_readable(link)
        more = link.recv(1 << 16)
        if not more:
            raise ConnectionResetError("no answer")
        data += more
    return data[forkserver.LENGTH.size :]


def _whole(data: bytes) -> int:
    return forkserver.LENGTH.size + int(forkserver.LENGTH.unpack_from(data)[0])
