"""The sd_notify protocol, both ways: the daemon tells systemd, workers tell the daemon.

Both ends are one datagram of `KEY=value` lines on a unix socket. Without systemd every call of
`SystemdNotifier` does nothing; without a worker that asked for `notify: true` `WorkerNotify` holds no socket.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from stoker.errors import WorkerError

log = logging.getLogger(__name__)

SEND_PATIENCE = 0.2
"""Seconds a message may wait for a full queue. systemd empties it at once unless it hangs itself, and
then it is better to lose a status line than to stop the loop that supervises the workers."""
MAX_MESSAGE = 4096
MAX_STATUS = 200
MAX_SOCKET_PATH = 107
"""Bytes of `sun_path` without its final zero."""
CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid of the sender, filled in by the kernel."""


class SystemdNotifier:
    """Tells systemd how the daemon is. Does nothing without `NOTIFY_SOCKET`; never raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_pid = environ.get("WATCHDOG_PID", "")
        self._watchdog_usec = environ.get("WATCHDOG_USEC", "")
        self._patience = ""

    @property
    def enabled(self) -> bool:
        """Whether a service manager listens."""
        return self._address.startswith(("/", "@"))

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life: half of what systemd tolerates. None: none are expected."""
        if not self._watchdog_usec.isdecimal() or int(self._watchdog_usec) == 0:
            return None
        if self._watchdog_pid and self._watchdog_pid != str(os.getpid()):
            return None  # meant for another process that we inherited it from
        return int(self._watchdog_usec) / 1e6 / 2

    @property
    def _sign_of_life(self) -> str:
        return "WATCHDOG=1" if self.watchdog_interval is not None else ""

    def ready(self, status: str = "") -> bool:
        """Start-up, or a reload, is complete. Like all of these, False if systemd did not get it."""
        return self._send("READY=1", _status_line(status), self._sign_of_life)

    def reloading(self) -> bool:
        """A reload begins; `ready` must follow. The time stamp is what `Type=notify-reload` insists on; the
        sign of life is for a reload in which this process begins anew."""
        stamp = f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
        return self._send("RELOADING=1", stamp, self._sign_of_life)

    def stopping(self, status: str = "") -> bool:
        """The daemon is on its way out. A drain may be longer than systemd waits (`TimeoutStopSec=`), so
        from now on each sign of life asks for time until after the next one."""
        if (interval := self.watchdog_interval) is not None:
            self._patience = f"EXTEND_TIMEOUT_USEC={int(3 * interval * 1e6)}"
        return self._send("STOPPING=1", _status_line(status), self._patience)

    def status(self, text: str) -> bool:
        """The one line that `systemctl status` shows."""
        return self._send(_status_line(text))

    async def run_watchdog(self) -> None:
        """Give signs of life until cancelled; return at once if none are expected.

        Runs in the daemon's own event loop on purpose: a loop that is stuck stops giving them.
        """
        interval = self.watchdog_interval
        if not self.enabled or interval is None:
            return
        while True:
            self._send("WATCHDOG=1", self._patience)
            await anyio.sleep(interval)

    def _send(self, *lines: str) -> bool:
        if not self.enabled:
            return False
        message = "\n".join(line for line in lines if line).encode(errors="replace")
        # "@name" is systemd's spelling of the abstract namespace, which the kernel marks by a zero byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(0)
                sender.connect(address)
                try:
                    sender.send(message)
                except BlockingIOError:
                    room = select.poll()  # select refuses the descriptors of a daemon with many workers
                    room.register(sender, select.POLLOUT)
                    room.poll(SEND_PATIENCE * 1000)
                    sender.send(message)
        except OSError as error:
            log.warning("systemd did not take %r at %s: %s", lines[0], self._address, error)
            return False
        return True


@dataclass(slots=True)
class _Line:
    """One replica's socket. `main` is the worker's pid, once known."""

    path: str
    uid: int
    receiver: socket.socket
    main: int | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class WorkerNotify:
    """Listens to workers whose startup probe is `notify: true`, on one socket per replica.

    `on_ready(replica, status)` is called when a worker says READY=1; `note(replica, text)` for what else
    it says (STATUS=, STOPPING=1) and for messages that were refused.
    """

    def __init__(
        self,
        runtime_dir: str,
        on_ready: Callable[[str, str], None],
        note: Callable[[str, str], None] | None = None,
    ) -> None:
        self._directory = Path(runtime_dir) / "notify"
        self._on_ready = on_ready
        self._note = note or (lambda replica, text: log.info("%s %s", replica, text))
        self._lines: dict[str, _Line] = {}
        self._group: anyio.abc.TaskGroup | None = None

    def path_for(self, replica: str) -> str:
        """The value of the replica's NOTIFY_SOCKET, whether open or not. Pure."""
        return str(self._directory / replica)

    def open(self, replica: str, *, uid: int | None = None) -> str:
        """Bind the replica's socket, also anew, and return its path. `uid` is whom the worker runs as.

        Call it before the worker is spawned, and for an adopted one that is not ready yet.
        Raises WorkerError if the socket cannot be made.
        """
        self.close(replica)
        path = self.path_for(replica)
        owner = os.geteuid() if uid is None else uid
        if owner != os.geteuid():
            _let_through(self._directory.parent)
        line = _Line(path=path, uid=owner, receiver=_bind(path, owner))
        self._lines[replica] = line
        if self._group is not None:
            self._group.start_soon(self._listen, replica, line)
        return path

    def claim(self, replica: str, pid: int) -> None:
        """Tell the worker's main pid once it is spawned: it vouches for a worker that has overwritten its
        own environment (setproctitle does). Unknown replicas are ignored."""
        if line := self._lines.get(replica):
            line.main = pid

    def close(self, replica: str) -> None:
        """Remove the replica's socket. Closing one that is not open is no error."""
        if line := self._lines.pop(replica, None):
            Path(line.path).unlink(missing_ok=True)
            line.scope.cancel()
            if self._group is None:
                line.receiver.close()

    async def run(self) -> None:
        """Listen on every open socket, and on those opened later, until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for replica, line in self._lines.items():
                    group.start_soon(self._listen, replica, line)
                await anyio.sleep_forever()
        finally:
            self._group = None
            for replica in list(self._lines):
                self.close(replica)

    async def _listen(self, replica: str, line: _Line) -> None:
        with line.receiver, line.scope:
            while True:
                await anyio.wait_readable(line.receiver)
                self._receive(replica, line)

    def _receive(self, replica: str, line: _Line) -> None:
        try:
            # Room for the credentials alone: descriptors that a sender attaches are closed by the kernel.
            data, ancillary, _flags, _address = line.receiver.recvmsg(
                MAX_MESSAGE, socket.CMSG_SPACE(CREDENTIALS.size)
            )
        except BlockingIOError:
            return  # woken for nothing
        pid, uid = _sender(ancillary)
        if objection := _objection(line, pid, uid):
            self._note(replica, f"refused a notification from pid {pid}: {objection}")
            return
        words = dict(part.split("=", 1) for part in data.decode(errors="replace").splitlines() if "=" in part)
        status = "".join(filter(str.isprintable, words.get("STATUS", "")))[:MAX_STATUS]
        if status:
            self._note(replica, f"says: {status}")
        if words.get("STOPPING") == "1":
            self._note(replica, "says that it is stopping")
        if words.get("READY") == "1":
            self._on_ready(replica, status)


def _status_line(text: str) -> str:
    """STATUS= with the text on one line, or "" for none."""
    return f"STATUS={' '.join(text.split())}" if text else ""


def _let_through(directory: Path) -> None:
    """Workers of other users must pass through the runtime directory; they still cannot list it."""
    with contextlib.suppress(OSError):  # binding names what is wrong with it
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(directory.stat().st_mode | 0o011)


def _bind(path: str, owner: int) -> socket.socket:
    """A bound datagram socket that only `owner` (and root) may write to. Raises WorkerError."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise WorkerError(
            f"cannot make the notify socket {path}: longer than {MAX_SOCKET_PATH} bytes, the kernel's limit; "
            "choose a shorter runtime directory",
            permanent=True,
        )
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # Workers of any user must reach their own socket by name; nobody else can list the others.
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).parent.chmod(0o711)  # whatever the umask
        Path(path).unlink(missing_ok=True)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        receiver.bind(path)
        if owner != os.geteuid():
            os.chown(path, owner, -1)
        Path(path).chmod(0o600)
    except OSError as error:
        receiver.close()
        raise WorkerError(f"cannot make the notify socket {path}: {error.strerror}") from error
    return receiver


def _sender(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """The sender's pid and uid as the kernel gives them."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, uid, _gid = CREDENTIALS.unpack_from(data)
            return pid, uid
    return 0, -1


def _objection(line: _Line, pid: int, uid: int) -> str:
    """Why a message is not from this worker, "" if nothing speaks against it.

    The uid is the border that the kernel keeps. Within one uid this only catches mistakes (a process
    that talks to another replica's socket), so a sender that is gone before we look (`systemd-notify`
    does that) or hides its environment has the benefit of the doubt.
    """
    if uid not in (line.uid, 0):
        return f"it runs as uid {uid}, the worker as uid {line.uid}"
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    named = [entry for entry in environment if entry.startswith(b"NOTIFY_SOCKET=")]
    if named == [b"NOTIFY_SOCKET=" + os.fsencode(line.path)]:
        return ""
    if named:
        return "its own NOTIFY_SOCKET is another one"
    if line.main is not None and line.main not in _lineage(pid):
        return f"it does not belong to the worker (pid {line.main})"
    return ""


def _lineage(pid: int) -> set[int]:
    """The process, its session leader and its ancestors, as far as they can be seen."""
    leader: set[int] = set()
    with contextlib.suppress(OSError):
        leader.add(os.getsid(pid))
    line: set[int] = set()
    while pid > 1 and pid not in line:
        line.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            break
        # The name in parentheses may itself hold spaces and parentheses; the parent is field 4.
        pid = int(stat.rpartition(")")[2].split()[1])
    return line | leader
