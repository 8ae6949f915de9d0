"""What drivers of local processes have in common: checks before a start, the log, accounts.

The messages are for people; the conformance suite of drivers asks for them.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import re
import stat
from pathlib import Path

from stoker.errors import WorkerError
from stoker.plugin.start import StartRequest

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where a command is looked for when the worker's environment has no PATH."""
_TAIL = 4096
_BEGUN = re.compile(r"serving \S+ on http://\S+")
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
_MAGIC = (b"\x7fELF", b"#!")
DETAIL = 200
"""Longest `detail`, in characters."""


def check_request(request: StartRequest) -> None:
    """Raise WorkerError for strings no process can be given, and for a bad working directory."""
    check_strings(request)
    _check_directory(request)


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


def check_strings(request: StartRequest) -> None:
    """Raise WorkerError for strings no process can be given."""
    if not request.container.image and not (request.argv and request.argv[0]):
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


def account_of(request: StartRequest) -> pwd.struct_passwd | None:
    """The account the worker runs as, None: the daemon's own. Raises WorkerError."""
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


def group_of(request: StartRequest) -> int | None:
    """The group that was asked for, None for none. Raises WorkerError."""
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


def last_line(log_path: str) -> str:
    """The last line with text in a worker's log, at most `DETAIL` characters; "" if there is none. That the
    server of `python:` services began is no word on why it ended."""
    try:
        log = os.open(log_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""  # a log that was rotated away is no reason to lose the exit
    try:
        tail = os.pread(log, _TAIL, max(0, os.fstat(log).st_size - _TAIL))
    except OSError:
        return ""  # of a kind that cannot be read, or lost
    finally:
        os.close(log)
    lines = tail.decode(errors="replace").splitlines()
    printable = ("".join(c for c in line if c.isprintable()).strip() for line in reversed(lines))
    found = next((line for line in printable if line), "")
    return "" if _BEGUN.fullmatch(found) else found[:DETAIL]


def give_back(path: str, end: int) -> int:
    """Give the space of a file's first `end` bytes back, where the file system can; everything else stays
    where it is. Returns `end`."""
    zero, length = ctypes.c_int64(0), ctypes.c_int64(end)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        ctypes.CDLL(None).fallocate64(descriptor, _KEEP_SIZE_PUNCH_HOLE, zero, length)
    finally:
        os.close(descriptor)
    return end


def interpreter_of(command: str) -> str:
    """The program that a script's #! line names, "" for anything else."""
    try:
        with open(command, "rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    return os.fsdecode(first[2:].split()[0]) if first.startswith(b"#!") and first[2:].strip() else ""


def check_format(request: StartRequest, path: str) -> None:
    """Raise WorkerError for what cannot be executed, where who executes it would not say so itself."""
    missing = interpreter_of(path)
    if missing and not os.path.exists(missing):
        words = f"its first line asks for {missing}, which does not exist; correct that line or install it"
    elif not _is_program(path):
        words = "it is neither a program for this machine nor a script with a #! line; add one"
    else:
        return
    raise WorkerError(f"{request.service}: cannot execute {path}: {words}", permanent=True)


def _is_program(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4).startswith(_MAGIC)
    except OSError:
        return True  # may be run but not read: the kernel knows
