"""Holds one worker's process tree on a node, so that all of it ends with the worker or with its keeper.

Engines end what their processes have started only in part: grandchildren in sessions of their own stay,
whatever kills their parent. So the tree hangs below this program, which no process of the engine's is the
parent of: it adopts what the worker leaves behind, and kills everything when the worker has ended, or when
the line to its keeper, which answers for it, breaks.

Started as `python -c TEXT` with the line as its standard input; speaks lines of JSON. Needs no package.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
from typing import Any

SUBREAPER, PARENT_DEATH = 36, 1  # <linux/prctl.h>
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Leave the keeper's family, take the order, live as long as the worker."""
    if os.fork():
        os._exit(0)
    os.setsid()
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    line = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    reader = line.makefile("rb")
    order = json.loads(reader.readline())
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    pid, number = spawn(order)
    line.sendall(json.dumps({"pid": pid, "errno": number}).encode() + b"\n")
    status = attend(line, wake, pid) if pid else None
    while kill_all() or reap(0)[0]:
        pass
    if status is not None:
        with contextlib.suppress(OSError):  # nobody is left to tell
            line.sendall(json.dumps({"status": status}).encode() + b"\n")
    os._exit(0)


def spawn(order: dict[str, Any]) -> tuple[int, int]:
    """Begin the worker; returns its pid, or 0 and the number of what went wrong."""
    told, tells = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tells)
        number = int(os.read(told, 16) or b"0")
        os.close(told)
        return (0 if number else pid), number
    try:
        libc.prctl(PARENT_DEATH, int(signal.SIGKILL), 0, 0, 0)
        become(order, tells)
    except OSError as error:
        os.write(tells, str(error.errno).encode())
    os._exit(127)


def become(order: dict[str, Any], told: int) -> None:
    """What only the worker does: its own session, log, limits, directory, and then the command."""
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.umask(order["umask"])
    if order["nofile"] is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (order["nofile"], order["nofile"]))
    os.chdir(order["directory"])
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    environ = {os.fsencode(name): os.fsencode(value) for name, value in order["environ"].items()}
    os.closerange(3, told)
    os.closerange(told + 1, 1 << 16)
    os.execve(order["path"], order["argv"], environ)


def attend(line: socket.socket, wake: int, pid: int) -> dict[str, Any] | None:
    """Pass signals on until the worker has ended; None: its keeper is gone."""
    pending = b""
    while True:
        readable, _, _ = select.select([line.fileno(), wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            ended, status = reap(pid)
            if ended == pid:
                if os.WIFSIGNALED(status):
                    return {"code": None, "signal": os.WTERMSIG(status)}
                return {"code": os.WEXITSTATUS(status), "signal": None}
        if line.fileno() in readable:
            try:
                piece = line.recv(4096)
            except OSError:
                piece = b""
            if not piece:
                return None
            pending += piece
            *words, pending = pending.split(b"\n")
            for word in map(json.loads, words):
                if word["signal"] == int(signal.SIGKILL):
                    kill_all()
                else:
                    os.kill(pid, word["signal"])


def reap(pid: int) -> tuple[int, int]:
    """Take dead children away, until the one that matters (0: any) is among them."""
    while True:
        try:
            ended, status = os.waitpid(-1, 0 if not pid else os.WNOHANG)
        except ChildProcessError:
            return 0, 0
        if ended in (0, pid) or not pid:
            return ended, status


def kill_all() -> bool:
    """SIGKILL to every process below this one; returns whether there was any."""
    found = below(os.getpid())
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(found)


def below(pid: int) -> list[int]:
    """Descendants that still run."""
    found, ahead = [], [pid]
    while ahead:
        one = ahead.pop()
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    ahead += map(int, file.read().split())
            if one != pid:
                with open(f"/proc/{one}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] not in "ZX":
                        found.append(one)
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
