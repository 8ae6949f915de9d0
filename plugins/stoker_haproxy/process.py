"""Starts, finds and ends HAProxy processes, and asks them by their admin sockets. anyio only."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from stoker.errors import RouterError
from stoker.plugin.processes import gone
from stoker_haproxy.places import Places

START_TIMEOUT = 20.0
"""Seconds for the admin socket to open; it takes a thirtieth of one."""
ANSWER_TIMEOUT = 5.0
"""Seconds for an answer on the admin socket."""
_STEP = 0.003
_MAX_SOCKETS = 252
_LOG_TAIL = 4096
_REQUEST = 64


class Unanswered(Exception):
    """The process does not answer on its admin socket."""


async def ask(path: str, *commands: str) -> str:
    """The answers to these commands, in one piece. Raises Unanswered."""
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            async with await anyio.connect_unix(path) as stream:
                await stream.send(";".join(commands).encode() + b"\n")
                parts = []
                while True:
                    try:
                        parts.append(await stream.receive())
                    except anyio.EndOfStream:
                        return b"".join(parts).decode(errors="replace")
    except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise Unanswered(str(error)) from error


async def start(binary: str, places: Places, log: Path, sock: socket.socket) -> int:
    """Start a process in a session of its own that serves on that socket; return its pid once it answers.
    Raises RouterError with the last line of its log.

    The socket is handed over as one HAProxy process hands it to the next (`-x`): unlike an inherited one
    (`bind fd@N`) it can be had back from it.
    """
    argv = [binary, "-db", "-f", str(places.configuration), "-x", places.gift]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        _unlink(places.gift)
        door.bind(places.gift)
        door.listen(1)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, hand_over, door, sock)
                pid = await anyio.to_thread.run_sync(_spawn, argv, log)
                answers = await _answers(pid, places.admin)
                door.shutdown(socket.SHUT_RDWR)
        finally:
            _unlink(places.gift)
    if answers:
        return pid
    kill(pid)
    await gone(pid, timeout=1.0)
    raise RouterError(f"HAProxy did not start: {await anyio.to_thread.run_sync(_last_line, log)}")


async def _answers(pid: int, admin: str) -> bool:
    """Wait until it answers; False if it ends or takes too long."""
    with anyio.move_on_after(START_TIMEOUT):
        while alive(pid):
            try:
                await ask(admin, "show version")
            except Unanswered:
                await anyio.sleep(_STEP)
            else:
                return True
    return False


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def hand_over(door: socket.socket, sock: socket.socket) -> None:
    """Give the socket to the HAProxy that connects next, in its own protocol: how many there are, then the
    descriptors, each with its namespace, interface (both of no length) and options. Blocking; returns when
    the door is shut as well."""
    with suppress(OSError):
        connection, _ = door.accept()
        with connection:
            connection.settimeout(ANSWER_TIMEOUT)
            connection.recv(_REQUEST)
            connection.sendall(struct.pack("i", 1))
            socket.send_fds(connection, [struct.pack("=BBi", 0, 0, 0)], [sock.fileno()])
            connection.recv(_REQUEST)


def _spawn(argv: list[str], log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RouterError(f"cannot write HAProxy's log {log}: {error.strerror}") from error
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            {"PATH": os.defpath, "LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, written, 1),
                (os.POSIX_SPAWN_DUP2, written, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except OSError as error:
        raise RouterError(
            f"cannot run {argv[0]}: {error.strerror}; pip install 'stoker[haproxy]' brings one"
        ) from error
    finally:
        os.close(written)


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return f"its log cannot be read: {error}"
    alerts = [line for line in lines if "[ALERT]" in line] or [line for line in lines if line]
    return f"{alerts[-1] if alerts else 'it said nothing'} (log: {log})"


def began(pid: int) -> int:
    """When the process was started, in ticks since boot; 0 if there is none. With the pid it is unique."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def alive(pid: int) -> bool:
    """Whether it runs (a zombie does not)."""
    return began(pid) != 0


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send it a signal. Gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def listening_socket(admin: str) -> socket.socket | None:
    """A copy of the socket on which the process serves; None if it does not hand one over. Blocks for at
    most a few seconds. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(ANSWER_TIMEOUT)
        door.connect(admin)
        door.sendall(b"_getsocks\n")
        door.recv(4)  # how many there are
        _, fds, _, _ = socket.recv_fds(door, 1 << 16, _MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC)
    found = None
    for fd in fds:
        sock = socket.socket(fileno=fd)
        if found is None and sock.family != socket.AF_UNIX:
            found = sock
        else:
            sock.close()
    return found
