"""A small process of its own that gives birth to workers. Run as a script, without any package.

The daemon does not fork: it is large and has threads, and a forked child of it could be moved to its
cgroup only after it has begun to live. This process is small and has one thread, so its forks are quick
and may run Python before they execute the command; clone3 lets them be born inside their cgroup; and
CLONE_PARENT makes the daemon, not this process, their parent.

Standard input is a socket of records. An order is a number, with descriptors as ancillary data: a file
with the order's JSON, the log, and the cgroup's directory if there is one. The answer is JSON: `number`,
`pid`, and where the birth failed `step` and `errno`. Orders are not waited for: while one child is still
about to execute its command, the next is forked. The end of input is the end.

`park` before the number has a child forked that waits for its order: the descriptors are then a socket, on
which the child tells its pid and gets file and log, and the directory. The end of that socket is its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
from typing import Any

_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_CLONE3 = 435
_PR_SET_NO_NEW_PRIVS = 38
_CLONE = {"x86_64": 56}.get(os.uname().machine, 220)
_SET_MEMPOLICY = {"x86_64": 238}.get(os.uname().machine, 237)
_MPOL_PREFERRED = 1
_MASK_BITS = 64
_CLONE_ARGS = struct.Struct("=11Q")
_LIBC = ctypes.PyDLL(None, use_errno=True)
"""PyDLL: calls keep the interpreter's lock, so that a forked child finds it held by itself."""


def main() -> None:
    """Serve orders until the daemon is gone."""
    # All that can be done before a fork is not done after it, where each touched page is copied first.
    _reset_signals()
    gc.disable()
    os.umask(0o022)
    # Inherited by every worker: setuid programs gain it nothing.
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    poll = select.poll()
    poll.register(link, select.POLLIN)
    unborn: dict[int, dict[str, Any]] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in unborn:
                poll.unregister(descriptor)
                failure = os.read(descriptor, 200)
                os.close(descriptor)
                _answer(link, unborn.pop(descriptor) | json.loads(failure or b"{}"))
                continue
            words, descriptors = _receive(link)
            if not descriptors:
                return
            *parked, number = words.split()
            try:
                pid, reader = park(link, *descriptors) if parked else give_birth(*descriptors)
            except OSError as error:
                refusal = {"step": "clone", "errno": error.errno or 0}
                _answer(link, {"number": int(number), "pid": 0, **refusal})
                continue
            unborn[reader] = {"number": int(number), "pid": pid}
            poll.register(reader, select.POLLIN)


def give_birth(paper: int, log: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork a child that becomes the ordered command; closes the descriptors.

    Returns its pid and a descriptor that ends when the command was executed, and else tells of the
    failure. Raises OSError if there was no fork.
    """
    try:
        order = _read(paper)
        reader, writer = os.pipe()
        pid = _clone(cgroup, abandon=(reader, writer))
        if pid == 0:
            _become(order, log, writer)
        os.close(writer)
        return pid, reader
    finally:
        for descriptor in (paper, log, cgroup):
            if descriptor is not None:
                os.close(descriptor)


def park(server: socket.socket, line: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork a child that becomes what it is ordered on `line`, a socket; closes the descriptors.

    Returns as `give_birth` does, and raises as that does.
    """
    try:
        reader, writer = os.pipe()
        pid = _clone(cgroup, abandon=(reader, writer))
        if pid == 0:
            server.close()  # the end of the server must show, also while this one waits
            _wait(line, writer)
        os.close(writer)
        return pid, reader
    finally:
        for descriptor in (line, cgroup):
            if descriptor is not None:
                os.close(descriptor)


def _wait(line: int, failure: int) -> None:
    """In a parked child: become what is ordered, or nothing."""
    try:
        orders = socket.socket(fileno=line)
        _rehearse()
        orders.send(str(os.getpid()).encode())
        _, descriptors = _receive(orders)
        paper, log = descriptors
        order = _read(paper)
    except (OSError, ValueError):  # nobody wants it any more
        os._exit(0)
    _become(order, log, failure)


def _rehearse() -> None:
    """Touch what the order will: each page of memory is copied at its first touch after the fork."""
    order = json.loads(
        '{"path": "", "argv": ["a", "b"], "env": {"A": "b", "C": "d"}, "cwd": "/", "limits": []}'
    )
    order["env"] = {os.fsencode(name): os.fsencode(value) for name, value in order["env"].items()}
    with contextlib.suppress(OSError, ValueError):
        os.execve(order["path"], order["argv"], order["env"])


def _read(paper: int) -> dict[str, Any]:
    order: dict[str, Any] = json.loads(os.pread(paper, os.fstat(paper).st_size, 0))
    order["env"] = {os.fsencode(name): os.fsencode(value) for name, value in order["env"].items()}
    return order


def _become(order: dict[str, Any], log: int, failure: int) -> None:
    """In the child: turn into the command. Each step has a name, for the message if it fails."""
    step, number = "session", 0
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        step = "chdir"
        os.chdir(order["cwd"])
        step = "tmp"
        if order["tmp"]:
            os.mkdir(order["tmp"], 0o700)
            if order["user"]:
                os.chown(order["tmp"], *order["user"][1:], follow_symlinks=False)
        step = "limits"
        for group in order["groups"]:
            _enter(group)
        for kind, value in order["limits"]:
            resource.setrlimit(kind, (value, value))
        _settle(order["cores"], order["node"])
        step = "user"
        if order["user"]:
            _switch_user(*order["user"])
        if order["umask"] is not None:
            os.umask(order["umask"])
        step = "exec"
        os.execve(order["path"], order["argv"], order["env"])
    except OSError as error:
        number = error.errno or 0
    except ValueError:  # a limit that may not be raised, a string with a NUL
        number = errno.EPERM if step == "limits" else errno.EINVAL
    finally:
        os.write(failure, json.dumps({"step": step, "errno": number}).encode())
        os._exit(127)


def _settle(cores: list[int], node: int | None) -> None:
    """Near the devices. A preference: where the system refuses it the worker runs, only slower."""
    if cores:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
    if node is not None and 0 <= node < _MASK_BITS - 1:
        mask = ctypes.c_uint64(1 << node)
        _LIBC.syscall(_SET_MEMPOLICY, _MPOL_PREFERRED, ctypes.byref(mask), _MASK_BITS)


def _reset_signals() -> None:
    """As a fresh process has them, children inherit it: Python ignores SIGPIPE, `nohup` SIGHUP ..."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _enter(group: str) -> None:
    """Go into a cgroup, while this process may still do that. Not by clone3, which knows only v2."""
    descriptor = os.open(f"{group}/cgroup.procs", os.O_WRONLY)
    os.write(descriptor, b"0")
    os.close(descriptor)


def _join(cgroup: int, failure: int) -> None:
    """In the child: go into the cgroup of that directory, or tell why not and end."""
    try:
        descriptor = os.open("cgroup.procs", os.O_WRONLY, dir_fd=cgroup)
        os.write(descriptor, b"0")
        os.close(descriptor)
    except OSError as error:
        os.write(failure, json.dumps({"step": "clone", "errno": error.errno or 0}).encode())
        os._exit(127)


def _switch_user(name: str, uid: int, gid: int) -> None:
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _clone(cgroup: int | None, *, abandon: tuple[int, ...]) -> int:
    """Fork a sibling, in the cgroup if one is given. Raises OSError, having closed those descriptors."""
    flags = _CLONE_PARENT | (_CLONE_INTO_CGROUP if cgroup is not None else 0)
    arguments = _CLONE_ARGS.pack(flags, *[0] * 9, cgroup or 0)
    pid = _LIBC.syscall(ctypes.c_long(_CLONE3), arguments, ctypes.c_long(len(arguments)))
    if pid < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        # seccomp profiles of containers and systemd's RestrictNamespaces= forbid clone3, whose flags they
        # cannot look into. The child goes into its cgroup by itself then, before it executes anything.
        zero = ctypes.c_long(0)
        pid = _LIBC.syscall(
            ctypes.c_long(_CLONE), ctypes.c_long(_CLONE_PARENT | signal.SIGCHLD), zero, zero, zero, zero
        )
        if pid == 0 and cgroup is not None:
            _join(cgroup, abandon[1])
    if pid < 0:
        number = ctypes.get_errno()
        for descriptor in abandon:
            os.close(descriptor)
        raise OSError(number, os.strerror(number))
    return int(pid)


def _receive(link: socket.socket) -> tuple[str, list[int]]:
    """The next order: its words and its descriptors, none at the end."""
    try:
        data, descriptors, _, _ = socket.recv_fds(link, 64, 3)
    except ConnectionResetError:  # the daemon was killed with answers of ours unread
        return "", []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its arguments have no names
    return data.decode(), descriptors


def _answer(link: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):  # nobody waits for it any more: the next order is the end
        link.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
