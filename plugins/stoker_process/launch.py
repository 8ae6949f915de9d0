"""From a start request to an order for the fork server, and from its failure to a message for people."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from dataclasses import replace

from stoker.errors import WorkerError
from stoker.model.service import Limits
from stoker.plugin.local import account_of, check_request, find_command, group_of, interpreter_of
from stoker.plugin.numa import cores_near
from stoker.plugin.ports import StartRequest
from stoker_process.fences import Fence
from stoker_process.spawner import Birth, Order

_CAP_SYS_RESOURCE = 24
_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""Errors of a full machine: worth another try."""


def order_of(request: StartRequest, log: Callable[[str], None]) -> Order:
    """What is to be executed for a request. Raises WorkerError for what cannot succeed."""
    check_request(request)
    return Order(
        path=find_command(request),
        argv=request.argv,
        env=request.environ,
        cwd=request.working_dir,
        limits=_limits(request.limits, log),
        user=_user(request),
        umask=request.umask,
        cores=cores_near(request.numa_node),
        node=request.numa_node,
    )


def fenced(order: Order, fence: Fence) -> Order:
    """The same within a fence. What that holds for the whole tree needs no limit by user."""
    limits = tuple(
        pair for pair in order.limits if "pids" not in fence.held or pair[0] != resource.RLIMIT_NPROC
    )
    return replace(order, limits=limits, groups=tuple(map(str, fence.directories)))


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
    account, uid, gid = account_of(request), os.geteuid(), os.getegid()
    wanted_uid = account.pw_uid if account else uid
    wanted_gid = group_of(request)
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
    elif number == errno.ENOENT and (interpreter := interpreter_of(order.path)):
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
