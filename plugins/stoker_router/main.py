"""The router's program: `python -m stoker_router --control PATH --instance ID --state-dir DIR`.

Started by the daemon side (`stoker_router.launch`), in a session of its own; its output is its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import getopt
import os
import resource
import signal
import socket
import sys
import time
from functools import partial

import uvloop

from stoker_router.access import AccessLog
from stoker_router.control import Session
from stoker_router.inheritance import Inheritance
from stoker_router.lifetime import CHECK_EVERY, IDLE_EXIT, Lifetime
from stoker_router.program import Program
from stoker_router.reports import SAMPLE_EVERY

USAGE = (
    "usage: python -m stoker_router --control PATH --instance ID --state-dir DIR"
    " [--ready-fd N] [--sockets N,N] [--replace]"
)
RESERVED_FILES = 128
"""Open files for all but connections: listening sockets, logs."""
SIGTERM_GRACE = 10.0
"""Seconds that requests get to finish after a SIGTERM, which is not how the daemon ends the program."""


class _Usage(Exception):
    """The command line is wrong."""


def log(message: str) -> None:
    """Write one line to the log; a full disk must not end the router."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} router[{os.getpid()}] {message}\n".encode())


def main(argv: list[str]) -> int:
    """Run until told to end. 0: ended as asked; 1: could not start; 2: wrong command line."""
    try:
        options = _options(argv)
    except (_Usage, getopt.GetoptError, ValueError) as error:
        sys.stderr.write(f"{error}\n{USAGE}\n")
        return 2
    os.umask(0o077)
    _raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(options))


def _options(argv: list[str]) -> dict[str, str]:
    names = (
        "control",
        "instance",
        "state-dir",
        "ready-fd",
        "idle-exit",
        "check-every",
        "sample-every",
        "sockets",
    )
    found, rest = getopt.getopt(argv, "", [*(f"{name}=" for name in names), "replace"])
    options = {name[2:]: value for name, value in found}
    missing = [name for name in names[:3] if name not in options]
    if missing or rest:
        raise _Usage(f"missing: {', '.join(missing)}" if missing else f"unexpected: {rest[0]}")
    return options


def _raise_file_limit() -> None:
    """Two descriptors per request: take as many as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log(f"the limit of open files stays as it is: {error}")


def most_clients() -> int:
    """Half of the files that we may open: each of them may need a connection to a worker as well."""
    return max(16, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_FILES) // 2)


async def _run(options: dict[str, str]) -> int:
    loop = asyncio.get_running_loop()
    inherited = Inheritance([int(fd) for fd in options.get("sockets", "").split(",") if fd])
    program = Program(
        loop,
        float(options.get("sample-every", SAMPLE_EVERY)),
        inherited,
        access=AccessLog(loop, os.path.join(options["state-dir"], "logs", "access.log"), time.time),
        most_clients=most_clients(),
    )

    def end(reason: str) -> None:
        log(f"ending: {reason}")
        program.stop(0.0)

    lifetime = Lifetime(
        loop,
        options["state-dir"],
        has_routes=lambda: bool(program.services),
        end=end,
        idle_exit=float(options.get("idle-exit", IDLE_EXIT)),
        check_every=float(options.get("check-every", CHECK_EVERY)),
    )
    path = options["control"]
    try:
        sock = _control_socket(path, replace="replace" in options)
    except OSError as error:
        log(f"cannot open the control socket {path}: {error}")
        return 1
    identity = os.stat(path).st_ino
    door = partial(Session, program, lifetime, options["instance"])
    server = await loop.create_unix_server(door, sock=sock)  # lives as long as this reference
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.stop, SIGTERM_GRACE)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lifetime.alone()
    log(f"serving, control socket {path}")
    _say_ready(options)
    gc.collect()
    gc.freeze()
    await program.ended.wait()
    server.close()
    _unlink(path, identity)
    log("ended")
    return 0


def _control_socket(path: str, *, replace: bool) -> socket.socket:
    """A listening unix socket in place of a dead one, or to `replace` that of a live program, which goes on
    with what it has. Raises OSError, also if a live program has it that is not to be replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not replace and probe.connect_ex(path) == 0:
                raise OSError("another router serves it")
        sock.settimeout(0.0)
        fresh = f"{path}.new"
        if os.path.exists(fresh):
            os.unlink(fresh)
        sock.bind(fresh)
        os.chmod(fresh, 0o600)
        sock.listen(8)
        os.rename(fresh, path)
    except OSError:
        sock.close()
        raise
    return sock


def _say_ready(options: dict[str, str]) -> None:
    """Tell whoever started us that the control socket is open."""
    if "ready-fd" in options:
        fd = int(options["ready-fd"])
        os.write(fd, b"ready\n")
        os.close(fd)


def _unlink(path: str, identity: int) -> None:
    """Remove our control socket, but not that of a successor."""
    try:
        if os.stat(path).st_ino == identity:
            os.unlink(path)
    except FileNotFoundError:
        return
