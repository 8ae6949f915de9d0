"""What a job runs on its node: it starts the worker below a guard and tells of it in files for the daemon.

    SPOOL/NAME.order     what to start; read and removed at once, since declared variables stand in it
    SPOOL/JOB.born       who the worker is and where, or why there is none
    SPOOL/JOB.ended      how it ended; by then nothing of its tree is left

Signals to this process, those of `scancel` too, are passed on to the worker's main process.
`KILL` ends the tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from stoker.errors import WorkerError
from stoker.model.service import Limits
from stoker.plugin.guarded import guard_order, refuse_taken, refuse_unborn, start_guard
from stoker.plugin.local import last_line
from stoker.plugin.ports import StartRequest
from stoker.plugin.processes import boot_id, start_time

KILL = 63
"""The signal that stands for SIGKILL to the whole tree: SIGKILL itself would hit this process first."""
FORWARDED = {
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM,
    signal.SIGWINCH, signal.SIGURG, signal.SIGCONT, KILL,
}  # fmt: skip


def main(spool: Path, name: str) -> int:
    """Keep one worker; returns the job's exit code."""
    keeper = Keeper(spool / os.environ["SLURM_JOB_ID"])
    order = spool / f"{name}.order"
    text = order.read_text()
    order.unlink()
    try:
        born = keeper.begin(json.loads(text))
    except WorkerError as error:
        keeper.tell("born", {"error": str(error), "permanent": error.permanent})
        return 1
    keeper.tell("born", born)
    status = keeper.attend()
    keeper.tell("ended", status)
    return int(status["code"] if status["code"] is not None else 128 + (status["signal"] or 0))


class Keeper:
    """`base`: where its files are, without their endings."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._log = ""
        self._tmp_dir = ""
        self._said = b""
        self._line, self._theirs = socket.socketpair()
        self._wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, _ignore)

    def begin(self, order: dict[str, Any]) -> dict[str, Any]:
        """Start the worker; returns who it is. Raises WorkerError."""
        request = self._request(order)
        environ = dict(request.environ)
        if order["gpus"]:
            environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if request.tmp_dir and environ.get("TMPDIR") == request.tmp_dir:
            environ["TMPDIR"] = self._tmp_dir = tempfile.mkdtemp(
                prefix=f"stoker-{request.replica}.", dir="/tmp"
            )
        self._log = request.log_path
        with self._theirs:
            told = guard_order(request, self._log, environ)
            start_guard(self._theirs)
        self._line.sendall(json.dumps(told).encode() + b"\n")
        said = json.loads(self._next() or b'{"errno": 3}')
        refuse_unborn(request.service, told["path"], said["errno"])
        pid = said["pid"]
        return {
            "pid": pid,
            "start_time": start_time(pid),
            "boot_id": boot_id(),
            "endpoint": request.endpoint,
            "node": os.environ.get("SLURMD_NODENAME", ""),
        }

    def _request(self, order: dict[str, Any]) -> StartRequest:
        values = dict(order["request"])
        address = address_of_node(os.environ.get("SLURMD_NODENAME", ""))
        port = int(values["endpoint"].rpartition(":")[2])
        refuse_taken(values["service"], address, port)
        values["argv"] = tuple(word.replace("{host}", address) for word in values["argv"])
        values["endpoint"] = f"{address}:{port}"
        return StartRequest(**values, limits=Limits(nofile=order["nofile"]))

    def attend(self) -> dict[str, Any]:
        """Pass signals on until the worker has ended; returns how."""
        said = self._next()
        if self._tmp_dir:
            shutil.rmtree(self._tmp_dir, ignore_errors=True)
        if not said:
            return {"code": None, "signal": None, "detail": "its guard was killed"}
        status: dict[str, Any] = json.loads(said)["status"]
        return {**status, "detail": last_line(self._log) if status["code"] else ""}

    def _next(self) -> bytes:
        """The next line of the guard, b"" if it has ended; signals are passed on meanwhile."""
        while b"\n" not in self._said:
            readable, _, _ = select.select([self._line.fileno(), self._wake], [], [])
            if self._wake in readable:
                for number in os.read(self._wake, 4096):
                    self._pass_on(number)
            if self._line.fileno() in readable:
                piece = self._line.recv(4096)
                if not piece:
                    return b""
                self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _pass_on(self, number: int) -> None:
        if number in FORWARDED:
            sent = int(signal.SIGKILL) if number == KILL else number
            with contextlib.suppress(OSError):
                self._line.sendall(json.dumps({"signal": sent}).encode() + b"\n")

    def tell(self, ending: str, words: dict[str, Any]) -> None:
        """Write one of the files, whole or not at all."""
        beside = self._base.with_suffix(".new")
        beside.write_text(json.dumps(words))
        beside.replace(self._base.with_suffix(f".{ending}"))


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor tells of it."""


def address_of_node(name: str) -> str:
    """The address of this box, as Slurm knows it if it is a node of that name. Raises WorkerError."""
    said = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = ["scontrol", "-o", "show", "node", name]
        said = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
    told = dict(word.partition("=")[::2] for word in said.split())
    for place in (told.get("NodeAddr"), name, socket.gethostname()):
        with contextlib.suppress(OSError):
            if place:
                return socket.gethostbyname(place)
    raise WorkerError(f"the address of {name} is not known there")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
