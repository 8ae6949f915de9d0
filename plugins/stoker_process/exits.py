"""How a process ended, asked through its pidfd; also for processes that are not our children."""

from __future__ import annotations

import fcntl
import os
import signal
import struct

from stoker.model.replica import ExitStatus
from stoker_process import procfs

_PIDFD_GET_INFO = 0xC040FF0B
"""ioctl of Linux 6.13; tells exits since 6.15."""
_INFO = struct.Struct("<Q52xi")
_INFO_EXIT = 1 << 3


def exit_status(pidfd: int, pid: int, start_time: int) -> ExitStatus:
    """How the process behind a readable pidfd ended; `code` None where nobody can tell. Reaps nothing."""
    raw = _of_child(pidfd)
    if raw is None:
        # Not ours (adopted). Its exit is told by the zombie until init reaps it, by the pidfd afterwards;
        # in this order and once more, because the reaping may fall between the two questions.
        raw = _of_reaped(pidfd)
    if raw is None:
        raw = _of_zombie(pid, start_time)
    if raw is None:
        raw = _of_reaped(pidfd)
    if raw is None:
        return ExitStatus()
    code = os.waitstatus_to_exitcode(raw)
    return ExitStatus(signal=-code) if code < 0 else ExitStatus(code=code)


def reap(pidfd: int) -> None:
    """Take the zombie away if it is our child."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return


def signal_pidfd(pidfd: int, signum: int) -> None:
    """Send a signal; a process that is gone is no error."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return


def _of_child(pidfd: int) -> int | None:
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status


def _of_reaped(pidfd: int) -> int | None:
    answer = bytearray(_INFO.pack(_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer)
    except OSError:
        return None  # a kernel without it, or a process that init has not reaped yet
    mask, status = _INFO.unpack(answer)
    return int(status) if mask & _INFO_EXIT else None


def _of_zombie(pid: int, start_time: int) -> int | None:
    stat = procfs.read_stat(pid)
    if stat is None or not stat.zombie or stat.start_time != start_time:
        return None
    return stat.exit_status
