"""Starts, finds and ends the router's program. The daemon's side; anyio only."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio

from stoker.errors import RouterError
from stoker.plugin.ports import PluginContext
from stoker.plugin.processes import gone

START_TIMEOUT = 30.0
"""Seconds for the program to open its control socket; it takes a tenth of one."""
_LONGEST_PATH = 100
"""Bytes of a socket path; the kernel takes 107."""


def control_path(context: PluginContext) -> str:
    """Where the control socket is; its directory exists afterwards. Raises RouterError."""
    folder = Path(context.runtime_dir)
    if len(os.fsencode(folder / "router.sock")) > _LONGEST_PATH:
        mark = hashlib.sha256(f"{folder}\0{context.instance}".encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"stoker-{os.geteuid()}-{mark}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise RouterError(f"cannot make the router's runtime directory {folder}: {error.strerror}") from error
    private = found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if str(folder) != context.runtime_dir and not private:
        raise RouterError(
            f"{folder} belongs to somebody else: remove it, or set XDG_RUNTIME_DIR to a shorter path"
        )
    return str(folder / "router.sock")


def keep_path(context: PluginContext) -> str:
    """Where the socket of the process is that holds the listening sockets. Raises RouterError."""
    return f"{control_path(context).removesuffix('.sock')}.keep"


def log_path(context: PluginContext) -> Path:
    """The program's log."""
    return Path(context.state_dir) / "logs" / "router.log"


async def start(
    context: PluginContext, control: str, sockets: Sequence[int] = (), *, replace: bool = False
) -> int:
    """Start the program in a session of its own, wait until its control socket is open, return its pid.

    `sockets`: listening sockets for it to go on with. `replace`: a live program has the control socket and is
    to lose it. Raises RouterError with the last line of its log.
    """
    inherited = ["--sockets", ",".join(map(str, sockets))] if sockets else []
    argv = [*_argv(context, control), *inherited, *(["--replace"] if replace else [])]
    pid, ready = await anyio.to_thread.run_sync(_spawn, context, argv, sockets)
    try:
        with anyio.move_on_after(START_TIMEOUT):
            await anyio.wait_readable(ready)
            if os.read(ready, 16) == b"ready\n":
                return pid
    finally:
        os.close(ready)
    kill(pid)
    await gone(pid, timeout=1.0)
    raise RouterError(f"the router did not start: {await anyio.to_thread.run_sync(_last_line, context)}")


def _spawn(context: PluginContext, argv: list[str], sockets: Sequence[int]) -> tuple[int, int]:
    """The pid, and a descriptor from which "ready" will come or the end."""
    log_file = log_path(context)
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RouterError(f"cannot write the router's log {log_file}: {error.strerror}") from error
    ready, tell = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*argv, "--ready-fd", str(tell)],
            _environment(context),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                # onto themselves: kept open across exec, and no number can be in the way of another
                *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in (tell, *sockets)),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except OSError as error:
        os.close(ready)
        raise RouterError(f"cannot run {sys.executable}: {error.strerror}") from error
    finally:
        os.close(log)
        os.close(tell)
    os.set_blocking(ready, False)
    return pid, ready


def _argv(context: PluginContext, control: str) -> list[str]:
    # -P: nothing in the directory the daemon was started in may stand in for a module
    program = [sys.executable, "-P", "-m", "stoker_router"]
    where = ["--control", control, "--instance", context.instance, "--state-dir", context.state_dir]
    return [*program, *where]


def _environment(context: PluginContext) -> dict[str, str]:
    """Next to nothing: where programs are, how text is written, and where this package is."""
    kept = {
        name: context.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in context.environ
    }
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **kept, "PYTHONPATH": str(Path(__file__).parent.parent)}


def _last_line(context: PluginContext) -> str:
    try:
        lines = log_path(context).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"its log cannot be read: {error}"
    return f"{lines[-1] if lines else 'it said nothing'} (log: {log_path(context)})"


def kill(pid: int) -> None:
    """SIGKILL it. Gone is no error."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
