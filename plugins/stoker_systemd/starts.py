"""What has to be there before a unit can be started, and what is said when it cannot."""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from stoker.errors import WorkerError
from stoker.plugin.local import (
    account_of,
    check_request,
    find_command,
    group_of,
    interpreter_of,
    open_log,
)
from stoker.plugin.ports import StartRequest
from stoker_systemd import enter
from stoker_systemd.gpus import allowed
from stoker_systemd.units import Identity, Property, properties

PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
_STEPS = {
    200: "its working_dir cannot be entered by the user it runs as",
    203: "the Python that begins a worker cannot be executed",
    209: "its log cannot be opened",
    216: "its group cannot be taken on",
    217: "its user cannot be taken on",
    226: "its private view of the file system cannot be made",
    243: "its environment cannot be handed over as a credential",
}
"""Exit codes by which systemd says where a start failed."""
_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EIO}


@dataclass(frozen=True, slots=True)
class Ready:
    """A unit that can be started. `path` is the command; `line` hears whether it was executed."""

    path: str
    properties: Sequence[Property]
    line: socket.socket

    async def executed(self, patience: float) -> int:
        """Wait until the command is executed; returns the error's number if it could not be, else 0."""
        with anyio.move_on_after(patience):
            await anyio.wait_readable(self.line)
            talk, _ = self.line.accept()
            with talk:
                talk.setblocking(False)  # noqa: FBT003 - its argument has no name
                await anyio.wait_readable(talk)
                return int(talk.recv(64) or b"0")
        return 0  # it may have ended before; `wait` will say how


class Preparation:
    """Prepares units. Orders hold environments: they lie in a directory that only root may enter, and only
    until systemd has read them."""

    def __init__(self, orders: Path, *, dynamic_user: bool, log: Callable[[str], None]) -> None:
        self._orders = orders
        self._dynamic_user = dynamic_user
        self._log = log

    @contextmanager
    def of(self, request: StartRequest, unit: str) -> Iterator[Ready]:
        """While this lasts the unit can be started. Raises WorkerError for what cannot succeed."""
        check_request(request)
        path = find_command(request)
        _check_format(request, path)
        identity = self._identity(request)
        os.close(open_log(request.log_path))
        order = self._orders / f"{unit}.json"
        line = socket.socket(socket.AF_UNIX)
        try:
            line.bind(f"\0{unit}")
            line.listen(1)
            line.setblocking(False)  # noqa: FBT003 - its argument has no name
            self._write(order, path, request, identity, f"\0{unit}")
            devices = allowed((taken.uuid for taken in request.reservations), self._log)
            yield Ready(
                path,
                properties(request, identity, entry=_entry(identity), order=str(order), devices=devices),
                line,
            )
        finally:
            line.close()
            order.unlink(missing_ok=True)

    def _write(self, order: Path, path: str, request: StartRequest, identity: Identity, line: str) -> None:
        values = {
            "path": path,
            "argv": request.argv,
            "line": line,
            "environ": _environment(request, identity),
        }
        try:
            order.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            order.touch(mode=0o600)
            order.write_text(json.dumps(values), encoding="ascii")
        except OSError as error:
            raise WorkerError(f"cannot write the order {order}: {error.strerror}") from error

    def _identity(self, request: StartRequest) -> Identity:
        account = account_of(request)
        group_of(request)
        if account is not None:
            return Identity(user=account.pw_name, group=request.group or "")
        if not self._dynamic_user:
            return Identity(user="", group=request.group or "")
        return Identity(user=f"stk-{request.replica}"[:31].lower(), group=request.group or "", dynamic=True)


def failure(
    request: StartRequest, path: str, result: str, state: Mapping[str, Any], number: int
) -> WorkerError:
    """Say why a unit did not come to run."""
    step = int(state.get("ExecMainStatus", 0))
    if number == errno.ENOEXEC:
        words = "it is neither a program for this machine nor a script with a #! line; add one"
    elif number == errno.E2BIG:
        words = "command and environment together are too long for the kernel; pass big values in files"
    elif number:
        words = os.strerror(number)
    else:
        words = _STEPS.get(step, f"its unit ended with {result!r}; `journalctl -b` says more")
    permanent = number not in _PASSING and (bool(number) or step in _STEPS)
    return WorkerError(f"{request.service}: cannot execute {path}: {words}", permanent=permanent)


def _environment(request: StartRequest, identity: Identity) -> dict[str, str]:
    """As declared; but a user of the unit's own has no home, and private temporary files lie in /tmp."""
    environ = dict(request.environ)
    if request.tmp_dir and environ.get("TMPDIR") == request.tmp_dir:
        environ["TMPDIR"] = "/tmp"
    mine = pwd.getpwuid(os.geteuid())
    if identity.dynamic and environ.get("HOME") == mine.pw_dir:
        environ["HOME"] = "/"
    if identity.dynamic and environ.get("USER") == mine.pw_name:
        environ["USER"] = identity.user
    return environ


def _entry(identity: Identity) -> list[str]:
    """The command that becomes the worker's: our own text, in a Python which that user may run."""
    candidates = [sys.executable, *PYTHONS]
    python = next((one for one in candidates if identity.privileged or _is_for_all(one)), "")
    if not python:
        raise WorkerError(
            f"{sys.executable} may not be run by other users, and there is no {PYTHONS[0]}; install Stoker "
            "where all may read it, or Python for all",
            permanent=True,
        )
    return [python, "-I", "-S", "-c", Path(enter.__file__).read_text(encoding="ascii")]


def _is_for_all(path: str) -> bool:
    """Whether every user may execute a file, links followed."""
    real = Path(os.path.realpath(path))
    try:
        return all(one.stat().st_mode & 0o001 for one in (real, *real.parents, *Path(path).parents))
    except OSError:
        return False


def _check_format(request: StartRequest, path: str) -> None:
    """A script whose interpreter is missing: the kernel would say only that something does not exist."""
    missing = interpreter_of(path)
    if missing and not os.path.exists(missing):
        raise WorkerError(
            f"{request.service}: cannot execute {path}: its first line asks for {missing}, which does not "
            "exist; correct that line or install it",
            permanent=True,
        )
