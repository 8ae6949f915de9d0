"""Workers below a guard (`stoker.plugin.guard`), for drivers whose engine starts something on a node that
answers for the worker there: its keeper, which holds the line to the guard.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stoker.errors import WorkerError
from stoker.plugin import guard
from stoker.plugin.local import check_format, check_request, find_command
from stoker.plugin.start import StartRequest

PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EIO}
"""Faults of a node that may be over at the next try."""


def guard_order(request: StartRequest, log: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What to tell a guard, once the request was found to be good on this node. Raises WorkerError."""
    check_request(request)
    path = find_command(request)
    check_format(request, path)
    return {
        "path": path,
        "argv": request.argv,
        "environ": dict(environ),
        "directory": request.working_dir,
        "log": log,
        "umask": 0o022 if request.umask is None else request.umask,
        "nofile": request.limits.nofile,
    }


def start_guard(line: socket.socket) -> None:
    """Start a guard that has this end of the line. It leaves at once: what stays is no child of ours."""
    text = Path(guard.__file__).read_text(encoding="utf-8")
    nothing: dict[str, str] = {}
    words = [sys.executable, "-I", "-S", "-c", text]
    subprocess.Popen(words, stdin=line.fileno(), env=nothing, start_new_session=True).wait()


def refuse_unborn(service: str, path: str, number: int) -> None:
    """Raise WorkerError if the guard tells that number of an error."""
    if number:
        words = os.strerror(number)
        raise WorkerError(f"{service}: cannot execute {path}: {words}", permanent=number not in PASSING)


def refuse_taken(service: str, address: str, port: int) -> None:
    """Raise WorkerError if that port of this node is in use: it was chosen on another box."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError as error:
            raise WorkerError(
                f"{service}: port {port} is not free on node {address}: {error.strerror}"
            ) from error
