"""From a start request to an order for the fork server, and from its failure to a message for people."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stoker.errors import WorkerError
from stoker.model.service import Limits
from stoker.plugin.ports import StartRequest
from stoker_process.fences import Fence
from stoker_process.spawner import Birth, Order

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where a command is looked for when the worker's environment has no PATH."""

_CAP_SYS_RESOURCE = 24
_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""Errors of a full machine: worth another try."""


def order_of(request: StartRequest, log: Callable[[str], None]) -> Order:
    """What is to be executed for a request. Raises WorkerError for what cannot succeed."""
    _check_strings(request)
    _check_directory(request)
    return Order(
        path=find_command(request),
        argv=request.argv,
        env=request.environ,
        cwd=request.working_dir,
        limits=_limits(request.limits, log),
        user=_user(request),
        umask=request.umask,
    )


def fenced(order: Order, fence: Fence) -> Order:
    """The same within a fence. What that holds for the whole tree needs no limit by user."""
    limits = tuple(
        pair for pair in order.limits if "pids" not in fence.held or pair[0] != resource.RLIMIT_NPROC
    )
    return replace(order, limits=limits, groups=tuple(map(str, fence.directories)))


def find_command(request: StartRequest) -> str:
    """The absolute path of the request's command, looked up with the *worker's* PATH and directory.

    Raises WorkerError: not found, or found and not executable.
    """
    name = request.argv[0]
    if "/" in name:
        candidates = [os.path.join(request.working_dir, name)]
        where = "a path is taken from the working directory"
    else:
        path = request.environ.get("PATH") or DEFAULT_PATH
        candidates = [os.path.join(request.working_dir, part, name) for part in path.split(os.pathsep)]
        where = f"looked in {path}"
    rejected = ""
    for candidate in candidates:
        try:
            if not stat.S_ISREG(os.stat(candidate).st_mode):
                continue
        except PermissionError:
            rejected = rejected or f"{candidate} may not be reached by the daemon's user"
            continue
        except OSError:
            continue  # not there; a PATH often names directories that do not exist
        if os.access(candidate, os.X_OK):
            return candidate
        rejected = rejected or f"{candidate} is not executable (chmod +x it, or name its interpreter)"
    if rejected:
        raise WorkerError(f"{request.service}: {rejected}; correct that or `command`", permanent=True)
    raise WorkerError(
        f"{request.service}: command {name!r} not found ({where}); install it, give its full path, "
        "or set PATH in `envs`",
        permanent=True,
    )


def open_log(path: str) -> int:
    """Open a worker's log for appending, creating it and its directory. Raises WorkerError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags, 0o640)
        except FileNotFoundError:
            Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            return os.open(path, flags, 0o640)
    except OSError as error:
        raise WorkerError(f"cannot open the worker's log {path}: {error.strerror}") from error


def _check_strings(request: StartRequest) -> None:
    if not request.argv or not request.argv[0]:
        raise WorkerError(f"{request.service}: the command is empty", permanent=True)
    if any("\0" in text for text in request.argv):
        raise WorkerError(f"{request.service}: the command contains a NUL character", permanent=True)
    for name, value in request.environ.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise WorkerError(
                f"{request.service}: the environment variable {name!r} cannot be given to a process "
                "(empty name, '=' in the name, or a NUL character)",
                permanent=True,
            )


def _check_directory(request: StartRequest) -> None:
    path = request.working_dir
    if not os.path.exists(path):
        trouble = "does not exist"
    elif not os.path.isdir(path):
        trouble = "is not a directory"
    elif not os.access(path, os.X_OK):
        trouble = "may not be entered by the daemon's user"
    else:
        return
    raise WorkerError(
        f"{request.service}: working_dir {path} {trouble}; create it or correct `working_dir`", permanent=True
    )


def _limits(limits: Limits, log: Callable[[str], None]) -> tuple[tuple[int, int], ...]:
    wanted = {"nofile": (resource.RLIMIT_NOFILE, limits.nofile), "pids": (resource.RLIMIT_NPROC, limits.pids)}
    found = []
    for name, (kind, value) in wanted.items():
        if value is None:
            continue
        given = value
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY and value > ceiling and not _may_raise_limits():
            log(f"limit {name} {value} is above this daemon's hard limit; workers get {ceiling}")
            given = ceiling
        found.append((kind, given))
    return tuple(found)


def _user(request: StartRequest) -> tuple[str, int, int] | None:
    """Name, uid and gid to become; None: stay as the daemon is."""
    account, uid, gid = _account(request), os.geteuid(), os.getegid()
    wanted_uid = account.pw_uid if account else uid
    wanted_gid = _group(request)
    if wanted_gid is None:
        wanted_gid = account.pw_gid if account and wanted_uid != uid else gid
    if (wanted_uid, wanted_gid) == (uid, gid):
        return None
    if uid != 0:
        key = "user" if wanted_uid != uid else "group"
        raise WorkerError(
            f"{request.service}: to run as {key} {getattr(request, key)!r} the daemon must run as root; "
            f"remove `{key}` or start the daemon as root",
            permanent=True,
        )
    return account.pw_name if account else "root", wanted_uid, wanted_gid


def _account(request: StartRequest) -> pwd.struct_passwd | None:
    if request.user is None:
        return None
    try:
        return pwd.getpwnam(request.user)
    except KeyError:
        raise WorkerError(
            f"{request.service}: there is no user {request.user!r} on this machine; create it or "
            "correct `user`",
            permanent=True,
        ) from None


def _group(request: StartRequest) -> int | None:
    if request.group is None:
        return None
    try:
        return grp.getgrnam(request.group).gr_gid
    except KeyError:
        raise WorkerError(
            f"{request.service}: there is no group {request.group!r} on this machine; create it or "
            "correct `group`",
            permanent=True,
        ) from None


def _may_raise_limits() -> bool:
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)


def birth_error(request: StartRequest, order: Order, birth: Birth) -> WorkerError:
    """Say what a failed birth means. The usual causes were ruled out before it was tried."""
    number = birth.errno
    reason = os.strerror(number)
    if number in _PASSING:
        meaning = f"the machine is out of resources ({reason}); it will be tried again"
    elif birth.step == "chdir":
        meaning = f"working_dir {order.cwd} cannot be entered: {reason}"
    elif birth.step in ("user", "limits"):
        meaning = f"`{birth.step}` cannot be set: {reason}"
    elif number == errno.ENOENT and (interpreter := _interpreter(order.path)):
        meaning = (
            f"its first line asks for {interpreter}, which does not exist; correct that line or install it"
        )
    elif number == errno.ENOEXEC:
        meaning = "it is neither a program for this machine nor a script with a #! line; add one"
    elif number == errno.E2BIG:
        meaning = "command and environment together are too long for the kernel; pass big values in files"
    else:
        meaning = f"{reason}{_as_user(order)}"
    return WorkerError(
        f"{request.service}: cannot execute {order.path}: {meaning}", permanent=number not in _PASSING
    )


def _as_user(order: Order) -> str:
    return f" by user {order.user[0]}" if order.user else ""


def _interpreter(command: str) -> str:
    """The program that a script's #! line names, "" for anything else."""
    try:
        with open(command, "rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    return os.fsdecode(first[2:].split()[0]) if first.startswith(b"#!") and first[2:].strip() else ""
