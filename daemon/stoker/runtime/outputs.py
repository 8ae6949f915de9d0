"""What becomes of the workers' output: their logs are rotated, and their lines forwarded to the journal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread
from anyio.abc import TaskStatus

from stoker.model.event import ConfigApplied, Event, WorkerExited
from stoker.model.service import DesiredState
from stoker.runtime.control import ControlLoop
from stoker.runtime.log_rotation import Growing, LogRotation
from stoker.runtime.options import DaemonOptions
from stoker.to_journal.positions import begin

PACKAGES = str(Path(__file__).parents[2])
LAST_LOOK = 4.0
"""Seconds the program gets for its last look; it takes two at most."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a program that ended by itself is started again."""


class Outputs:
    """Looks after the logs below STATE/logs. `growing` lists those of live workers."""

    def __init__(
        self,
        options: DaemonOptions,
        control: ControlLoop,
        growing: Callable[[], Sequence[Growing]],
        trouble: Callable[[str], None],
    ) -> None:
        self._rotation = LogRotation(growing, trouble)
        self._feed = JournalFeed(
            options.state_dir, lambda: control.desired, ours=options.in_journal, trouble=trouble
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started once workers may be."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._feed.run)
            tasks.start_soon(self._rotation.run)
            task_status.started()

    def after_event(self, event: Event) -> None:
        """Workers come and go, and files say what is to be forwarded."""
        self._rotation.after_event(event)
        self._feed.after_event(event)


class JournalFeed:
    """Keeps a program running that forwards (`stoker.to_journal`), where that is wanted. It is a process of
    its own, so that a worker that writes without end takes no time of the daemon's. `ours`: whether what the
    daemon prints goes to the journal."""

    def __init__(
        self,
        state_dir: str,
        desired: Callable[[], DesiredState],
        *,
        ours: bool,
        trouble: Callable[[str], None],
        socket: str = "",
    ) -> None:
        self._logs = Path(state_dir, "logs")
        self._positions = Path(state_dir, "journal", "positions")
        self._desired = desired
        self._ours = ours
        self._trouble = trouble
        self._socket = socket
        self._pipe = -1
        self._news = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Has started when what is written from now on will be forwarded."""
        pause = _FIRST_PAUSE
        while True:
            self._news = anyio.Event()
            muted = self._muted()
            marked = self._mark(wanted=muted is not None)
            task_status.started()
            task_status = anyio.TASK_STATUS_IGNORED
            if muted is None or not marked:
                await self._until_other(muted)
            elif await self._forward(muted):
                with anyio.move_on_after(pause):
                    await self._news.wait()
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE

    def after_event(self, event: Event) -> None:
        """A worker's last line may be unfinished; other files may want other services forwarded."""
        if isinstance(event, ConfigApplied):
            self._news.set()
        elif isinstance(event, WorkerExited) and self._pipe >= 0:
            with suppress(OSError):  # it is busy: the line is told with what comes after it
                os.write(self._pipe, os.fsencode(f"{event.service}/{event.replica}.log\n"))

    def _muted(self) -> tuple[str, ...] | None:
        """The services whose output stays where it is; None: nothing is to be forwarded."""
        desired = self._desired()
        wish = desired.box.journal
        if wish == "never" or (wish == "auto" and not self._ours):
            return None
        return tuple(sorted(key for key, spec in desired.services.items() if not spec.logs.journal))

    def _mark(self, *, wanted: bool) -> bool:
        """Note where forwarding begins, or that there is none; returns whether that could be done."""
        try:
            if wanted:
                begin(self._positions, self._logs)
            else:
                self._positions.unlink(missing_ok=True)
        except OSError as error:
            if wanted:
                self._trouble(f"workers' output is not forwarded to the journal: {error}")
            return False
        return True

    async def _until_other(self, muted: tuple[str, ...] | None) -> None:
        while self._muted() == muted:
            await self._news.wait()
            self._news = anyio.Event()

    async def _forward(self, muted: tuple[str, ...]) -> bool:
        """Run the program for as long as these are the wishes; returns whether it ended by itself."""
        try:
            pid = self._spawn(muted)
        except OSError as error:
            self._trouble(
                f"cannot run {sys.executable}: {error.strerror}; workers' output stays in its files"
            )
            return True
        gone = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:

                async def until_other() -> None:
                    await self._until_other(muted)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until_other)
                await _until_gone(pid)
                gone.set()
                tasks.cancel_scope.cancel()
        finally:
            os.close(self._pipe)
            self._pipe = -1
            with CancelScope(shield=True):
                status = await _bury(pid)
        if gone.is_set():
            words = f"the program that forwards workers' output to the journal has ended ({status})"
            self._trouble(f"{words}; it is started again")
        return gone.is_set()

    def _spawn(self, muted: Iterable[str]) -> int:
        """Begin the program, with the pipe by which it hears of us."""
        hear, self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        places = ["--logs", str(self._logs), "--positions", str(self._positions)]
        more = ["--muted", ",".join(muted), *(["--socket", self._socket] if self._socket else [])]
        try:
            return os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "stoker.to_journal", *places, *more],
                {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": PACKAGES},
                file_actions=[(os.POSIX_SPAWN_DUP2, hear, 0)],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except OSError:
            os.close(self._pipe)
            self._pipe = -1
            raise
        finally:
            os.close(hear)


async def _until_gone(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def _bury(pid: int) -> str:
    """Wait for its end, which it is told to find; returns how it ended."""
    with anyio.move_on_after(LAST_LOOK) as scope:
        await _until_gone(pid)
    if scope.cancelled_caught:
        os.kill(pid, signal.SIGKILL)
    _, status = await to_thread.run_sync(os.waitpid, pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
