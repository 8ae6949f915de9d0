"""From a start request to a running process: what to execute, in which state it is born."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stoker.errors import WorkerError
from stoker.model.service import Limits
from stoker.plugin.ports import StartRequest

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where a command is looked for when the worker's environment has no PATH."""

_CAP_SYS_RESOURCE = 24
_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""Errors of a full machine: worth another try."""


def spawn(request: StartRequest, log: Callable[[str], None]) -> int:
    """Execute the request's command in a session of its own and return the pid. Raises WorkerError.

    The worker has the request's environment, `/dev/null` as input, its log as output, and otherwise the
    state of a fresh process: no inherited descriptors, no ignored or blocked signals. Call it in the main
    thread. The zombie is the caller's to reap.
    """
    _check_strings(request)
    _check_directory(request)
    command = find_command(request)
    argv = (*_prefix(request, log), command, *request.argv[1:])
    output = open_log(request.log_path)
    try:
        with _fresh_signals():
            process = subprocess.Popen(
                argv if argv[0] != command else request.argv,
                executable=argv[0],
                cwd=request.working_dir,
                env=request.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise _spawn_error(request, command, error) from error
    finally:
        os.close(output)
    process.returncode = 0  # tells subprocess that this child is not its own to reap
    return process.pid


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
    try:
        Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
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


def _prefix(request: StartRequest, log: Callable[[str], None]) -> tuple[str, ...]:
    """Programs that set limits and user and then execute the command; they cost an exec each, while
    code between fork and exec would cost a copy of the daemon's page tables and be unsafe beside threads."""
    return (*_limits_prefix(request.limits, log), *_user_prefix(request))


def _limits_prefix(limits: Limits, log: Callable[[str], None]) -> tuple[str, ...]:
    wanted: Mapping[str, tuple[int, int | None]] = {
        "nofile": (resource.RLIMIT_NOFILE, limits.nofile),
        "nproc": (resource.RLIMIT_NPROC, limits.pids),
    }
    options = []
    for name, (kind, value) in wanted.items():
        if value is None:
            continue
        given = value
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY and value > ceiling and not _may_raise_limits():
            log(f"limit {name} {value} is above this daemon's hard limit; workers get {ceiling}")
            given = ceiling
        options.append(f"--{name}={given}:{given}")
    return (_tool("prlimit", "limits"), *options, "--") if options else ()


def _user_prefix(request: StartRequest) -> tuple[str, ...]:
    if request.user is None:
        return ()
    try:
        entry = pwd.getpwnam(request.user)
    except KeyError:
        raise WorkerError(
            f"{request.service}: there is no user {request.user!r} on this machine; create it or "
            "correct `user`",
            permanent=True,
        ) from None
    if entry.pw_uid == os.geteuid():
        return ()
    if os.geteuid() != 0:
        raise WorkerError(
            f"{request.service}: to run as user {request.user!r} the daemon must run as root; "
            "remove `user` or start the daemon as root",
            permanent=True,
        )
    ids = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups")
    return (_tool("setpriv", "user"), *ids, "--")


def _tool(name: str, key: str) -> str:
    found = shutil.which(
        name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/bin:/bin:/usr/sbin:/sbin"))
    )
    if found is None:
        raise WorkerError(
            f"`{key}` needs the program {name}; install the package util-linux or remove `{key}`",
            permanent=True,
        )
    return found


def _may_raise_limits() -> bool:
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)


@contextmanager
def _fresh_signals() -> Iterator[None]:
    """While this lasts, a spawned process starts with every signal at its default and none blocked.

    exec keeps ignored signals ignored (`nohup stoker up`, a shell's `stoker up &`) and blocked ones
    blocked, but resets handled ones. So each ignored signal gets a handler that does nothing: the daemon
    still ignores it. subprocess itself resets SIGPIPE, SIGXFZ and SIGXFSZ.
    """
    ignored = [
        signum
        for signum in signal.valid_signals()
        if signum not in _RESET_BY_SUBPROCESS and signal.getsignal(signum) is signal.SIG_IGN
    ]
    for signum in ignored:
        signal.signal(signum, _nothing)
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum in ignored:
            signal.signal(signum, signal.SIG_IGN)


_RESET_BY_SUBPROCESS = {signal.SIGPIPE, signal.SIGXFSZ}


def _nothing(_signum: int, _frame: object) -> None:
    """Ignore a signal in a way that exec does not hand on."""


def _spawn_error(request: StartRequest, command: str, error: OSError) -> WorkerError:
    """Say what the kernel's refusal means. The usual causes were ruled out before the spawn."""
    interpreter = _interpreter(command)
    if error.errno == errno.ENOENT and interpreter:
        meaning = (
            f"its first line asks for {interpreter}, which does not exist; correct that line or install it"
        )
    elif error.errno == errno.ENOEXEC:
        meaning = "it is neither a program for this machine nor a script with a #! line; add one"
    elif error.errno == errno.E2BIG:
        meaning = "command and environment together are too long for the kernel; pass big values in files"
    elif error.errno in _PASSING:
        meaning = f"the machine is out of resources ({error.strerror}); it will be tried again"
    else:
        meaning = f"{error.strerror or error}"
    return WorkerError(
        f"{request.service}: cannot execute {command}: {meaning}", permanent=error.errno not in _PASSING
    )


def _interpreter(command: str) -> str:
    """The program that a script's #! line names, "" for anything else."""
    try:
        with open(command, "rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    return os.fsdecode(first[2:].split()[0]) if first.startswith(b"#!") and first[2:].strip() else ""


__all__: Sequence[str] = ("DEFAULT_PATH", "find_command", "open_log", "spawn")
