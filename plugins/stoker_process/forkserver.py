"""A small process of its own that gives birth to workers. Run as a script, without any package.

The daemon does not fork: it is large and has threads, and a forked child of it could be moved to its
cgroup only after it has begun to live. This process is small and has one thread, so its forks are quick
and may run Python before they execute the command; clone3 lets them be born inside their cgroup; and
CLONE_PARENT makes the daemon, not this process, their parent.

Standard input is a stream socket. An order is four bytes of length and a JSON document, with the log's
descriptor and, if there is one, the cgroup directory's as ancillary data. The answer has the same form:
`pid`, and where the birth failed `step` and `errno`. The end of input is the end.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import resource
import signal
import socket
import struct
from typing import Any

LENGTH = struct.Struct("!I")

_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_CLONE3 = 435
_CLONE = {"x86_64": 56}.get(os.uname().machine, 220)
_CLONE_ARGS = struct.Struct("=11Q")
_LIBC = ctypes.PyDLL(None, use_errno=True)
"""PyDLL: calls keep the interpreter's lock, so that a forked child finds it held by itself."""


def main() -> None:
    """Serve orders until the daemon is gone."""
    # All that can be done before a fork is not done after it, where each touched page is copied first.
    _reset_signals()
    gc.disable()
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while True:
        body, descriptors = _receive(link)
        if body is None:
            return
        answer = json.dumps(give_birth(json.loads(body), *descriptors)).encode()
        for descriptor in descriptors:
            os.close(descriptor)
        link.sendall(LENGTH.pack(len(answer)) + answer)


def give_birth(order: dict[str, Any], log: int, cgroup: int | None = None) -> dict[str, Any]:
    """Fork a child that becomes the ordered command; return when it has, or has failed to."""
    environ = {os.fsencode(name): os.fsencode(value) for name, value in order["env"].items()}
    reader, writer = os.pipe()
    try:
        pid = _clone(cgroup)
    except OSError as error:
        os.close(writer)
        os.close(reader)
        return {"pid": 0, "step": "clone", "errno": error.errno}
    if pid == 0:
        _become(order, environ, log, writer)
    os.close(writer)
    failure = os.read(reader, 200)
    os.close(reader)
    return {"pid": pid, **json.loads(failure or b"{}")}


def _become(order: dict[str, Any], environ: dict[bytes, bytes], log: int, failure: int) -> None:
    """In the child: turn into the command. Each step has a name, for the message if it fails."""
    step, number = "session", 0
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        step = "chdir"
        os.chdir(order["cwd"])
        step = "limits"
        for kind, value in order["limits"]:
            resource.setrlimit(kind, (value, value))
        step = "user"
        if order["user"]:
            _switch_user(*order["user"])
        step = "exec"
        os.execve(order["path"], order["argv"], environ)
    except OSError as error:
        number = error.errno or 0
    except ValueError:  # a limit that may not be raised, a string with a NUL
        number = errno.EPERM if step == "limits" else errno.EINVAL
    finally:
        os.write(failure, json.dumps({"step": step, "errno": number}).encode())
        os._exit(127)


def _reset_signals() -> None:
    """As a fresh process has them, children inherit it: Python ignores SIGPIPE, `nohup` SIGHUP ..."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _switch_user(name: str, uid: int, gid: int) -> None:
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _clone(cgroup: int | None) -> int:
    """Fork a sibling, in the cgroup if one is given. Raises OSError."""
    flags = _CLONE_PARENT | (_CLONE_INTO_CGROUP if cgroup is not None else 0)
    arguments = _CLONE_ARGS.pack(flags, *[0] * 9, cgroup or 0)
    pid = _LIBC.syscall(ctypes.c_long(_CLONE3), arguments, ctypes.c_long(len(arguments)))
    if pid < 0 and cgroup is None and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        # Containers' seccomp profiles forbid clone3, whose flags they cannot look into.
        zero = ctypes.c_long(0)
        pid = _LIBC.syscall(
            ctypes.c_long(_CLONE), ctypes.c_long(_CLONE_PARENT | signal.SIGCHLD), zero, zero, zero, zero
        )
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return int(pid)


def _receive(link: socket.socket) -> tuple[bytes | None, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(link, 1 << 16, 2)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its arguments have no names
    while data and (len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]):
        more = link.recv(1 << 20)
        if not more:
            return None, descriptors
        data += more
    return data[LENGTH.size :] if data else None, descriptors


if __name__ == "__main__":
    main()
