"""The device source: keeps a child process that asks NVML, and says what it learns.

The child is asked once per period and answers in one line. One that does not answer in time is killed
and replaced; meanwhile the devices stay as they were last seen, as `unreachable`. One that reports a GPU
that hangs is replaced too, after a while: a call cannot be called off, and a new process may get through.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from stoker.errors import PluginError
from stoker.model.device import Inventory
from stoker.model.quantity import format_duration
from stoker.plugin.ports import PluginContext
from stoker_nvidia.chart import FaultChart
from stoker_nvidia.inventory import allowed, bounded_by_mps, differs, inventory_of, unreachable

Publish = Callable[[Inventory], None]

# -P: the child must import our package, never a file that happens to lie in the working directory.
COMMAND = (sys.executable, "-P", "-m", "stoker_nvidia.child")
_LINE_LIMIT = 4 * 2**20
_GRACE = 2.0
"""Seconds a killed child may take to go before we look away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. A box without GPUs is asked only every `idle_period`. The first answer of a new child may
    take `start_timeout`: so long it can take to open eight GPUs without persistence mode. A single GPU has
    `gpu_timeout`; a child in which one hangs for longer than `renewal` is replaced, after that ever less
    often."""

    period: float = 5.0
    idle_period: float = 30.0
    timeout: float = 10.0
    start_timeout: float = 60.0
    gpu_timeout: float = 2.0
    renewal: float = 60.0
    backoff: float = 1.0
    max_backoff: float = 30.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Timing:
        """From the plugin's own options. Raises PluginError."""
        given = {field.name: options[field.name] for field in fields(cls) if field.name in options}
        for name, value in given.items():
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise PluginError(f"option {name} of device source nvidia is {value!r}; give seconds above 0")
        return cls(**given)


class _ChildFailed(Exception):
    """The child is of no more use. `crashed`: it went by itself, so a new one may do better at once."""

    def __init__(self, reason: str, *, crashed: bool = False) -> None:
        self.reason = reason
        self.crashed = crashed
        super().__init__(reason)


class _LetGo(Exception):
    """The driver is to be closed for a while."""


class _Renewal(Exception):
    """A new child is to try its luck with a GPU that hangs."""


class NvidiaSource:
    """The DeviceSource named `nvidia`. `command` starts the child; tests give their own."""

    def __init__(self, context: PluginContext, *, command: tuple[str, ...] = COMMAND) -> None:
        self._context = context
        self._timing = Timing.of(context.options)
        self._command = command
        self._chart = FaultChart()
        self._last = Inventory()
        self._published: Inventory | None = None
        self._failures = 0
        self._renewals = 0
        """Children that were replaced since a GPU began to hang."""
        self._questions = _Questions()
        self._wanted = anyio.Event()
        self._rest_until = -math.inf
        self._rests = anyio.Event()
        self._told = ""
        """The last reason that was logged: a lasting trouble is not logged at every try."""

    async def run(self, publish: Publish) -> None:
        """Publish the inventory first thing, then each change that matters, until cancelled."""
        while True:
            if anyio.current_time() < self._rest_until:
                await self._rest(publish)
            try:
                await self._serve(publish)
            except (_LetGo, _Renewal):
                continue
            except _ChildFailed as failure:
                self._failures += 1
                if failure.reason != self._told:
                    self._told = failure.reason
                    self._context.log(f"nvidia: {failure.reason}; asking again with a new process")
                if failure.crashed and self._failures == 1:
                    continue
                self._say(unreachable(failure.reason, self._last), publish)
            await anyio.sleep(self._backoff())

    async def refresh(self) -> None:
        """Ask now instead of at the end of the period; returns when a question put after this call was
        answered."""
        self._wanted.set()
        await self._questions.next_answer()

    async def let_go(self, seconds: float) -> None:
        """End the child, and with it every handle on the driver, for so long; returns when it has ended. A
        question that is under way is answered first, so this may take as long as the driver."""
        self._rest_until = anyio.current_time() + seconds
        self._wanted.set()
        await self._rests.wait()

    async def _rest(self, publish: Publish) -> None:
        rests, self._rests = self._rests, anyio.Event()
        rests.set()
        left = format_duration(round(max(0.0, self._rest_until - anyio.current_time())))
        reason = f"the NVIDIA driver is let go for {left}, so that a GPU can be reset"
        self._say(replace(unreachable(reason, self._last), resting=True), publish)
        await anyio.sleep_until(self._rest_until)

    def _backoff(self) -> float:
        return min(self._timing.backoff * 2.0 ** min(self._failures - 1, 16), self._timing.max_backoff)

    async def _serve(self, publish: Publish) -> None:
        """Start a child and ask it until it fails. Raises _ChildFailed."""
        try:
            with anyio.CancelScope(shield=True):  # else a cancellation could lose a process just started
                process = await anyio.open_process(
                    self._command,
                    stderr=subprocess.STDOUT,
                    env=dict(self._context.environ) or None,
                    start_new_session=True,  # Ctrl-C in the daemon's terminal is not meant for the child
                )
        except OSError as error:
            raise _ChildFailed(f"cannot start {self._command[0]}: {error.strerror}") from error
        try:
            await self._converse(_Conversation(process), publish)
        finally:
            if not await _end(process):
                self._say(unreachable("the NVML process hangs in the kernel", self._last), publish)
                await process.wait()
            with anyio.CancelScope(shield=True):
                await process.aclose()

    async def _converse(self, child: _Conversation, publish: Publish) -> None:
        wait = self._timing.timeout
        patience = self._timing.start_timeout
        while True:
            self._questions.put += 1
            self._wanted = anyio.Event()
            report = await child.ask(self._patience(), within=wait)
            if report is None and patience > wait:
                silence = f"the NVIDIA driver has not answered for {format_duration(wait)}"
                limit = format_duration(patience)
                self._say(unreachable(f"{silence}; waiting up to {limit} for its start", self._last), publish)
                report = await child.answer(within=patience - wait)
            if report is None:
                reason = f"the NVIDIA driver has not answered for {format_duration(max(wait, patience))}"
                self._say(unreachable(reason, self._last), publish)
                raise _ChildFailed(reason)
            patience = 0.0
            self._take(report, publish)
            idle = self._last.state == "none"
            with anyio.move_on_after(self._timing.idle_period if idle else self._timing.period):
                await self._wanted.wait()
            if anyio.current_time() < self._rest_until:
                raise _LetGo

    def _patience(self) -> float:
        """How long the child may wait for one GPU. Where none is known yet, one may have to wake up, and is
        better waited for than missed."""
        if self._last.devices:
            return self._timing.gpu_timeout
        return max(self._timing.gpu_timeout, self._timing.start_timeout / 3)

    def _take(self, report: Mapping[str, Any], publish: Publish) -> None:
        """Publish what the report tells. Raises _ChildFailed if a new process may learn more."""
        self._chart.read(report)
        inventory = self._chart.over(inventory_of(report, self._last))
        if mps_runs(self._context.environ):
            inventory = bounded_by_mps(inventory)
        self._say(_dated(inventory, self._last), publish)
        if inventory.state == "unreachable":
            raise _ChildFailed(inventory.reason)
        self._failures, self._told = 0, ""
        self._questions.answered()
        self._renew(report)

    def _renew(self, report: Mapping[str, Any]) -> None:
        """Raise _Renewal if the child has waited long enough for a GPU. One that waits in the kernel could
        not be ended: it would take all others with it."""
        hanging = [gpu for gpu in report.get("gpus", ()) if "hangs" in gpu]
        if not hanging:
            self._renewals = 0
        elif not any(gpu.get("stuck") for gpu in hanging):
            after = self._timing.renewal * 2.0 ** min(self._renewals, 6)
            if max(gpu["hangs"] for gpu in hanging) > after:
                self._renewals += 1
                raise _Renewal

    def _say(self, inventory: Inventory, publish: Publish) -> None:
        self._last = inventory
        shown = allowed(inventory, self._context.environ.get("CUDA_VISIBLE_DEVICES"))
        if differs(shown, self._published):
            self._published = shown
            publish(shown)


class _Questions:
    """How many questions were put, and the wait for the answer of one that is still to come."""

    def __init__(self) -> None:
        self.put = 0
        self._answered = 0
        self._news = anyio.Event()

    def answered(self) -> None:
        """All that were put are answered."""
        self._answered = self.put
        news, self._news = self._news, anyio.Event()
        news.set()

    async def next_answer(self) -> None:
        """Return when a question that is put after this call was answered."""
        question = self.put + 1
        while self._answered < question:
            await self._news.wait()


class _Conversation:
    """Question and answer with one child."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._last_words = ""

    async def ask(self, patience: float, *, within: float) -> dict[str, Any] | None:
        """One report, for which the child may wait `patience` seconds for a GPU; None if it takes longer than
        `within` seconds. Raises _ChildFailed."""
        try:
            await self._stdin.send(b"%g\n" % patience)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._died()
        return await self.answer(within=within)

    async def answer(self, *, within: float) -> dict[str, Any] | None:
        """The answer to the last question, as in `ask`."""
        try:
            with anyio.move_on_after(within):
                return await self._report()
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            await self._died()
        except anyio.DelimiterNotFound:
            raise _ChildFailed(f"the NVML process said more than {_LINE_LIMIT} bytes in a line") from None
        return None

    async def _report(self) -> dict[str, Any]:
        """The next line that is JSON; others are what libraries print, or a traceback."""
        while True:
            line = await self._lines.receive_until(b"\n", _LINE_LIMIT)
            with contextlib.suppress(ValueError):
                report = json.loads(line)
                if isinstance(report, dict):
                    return report
            self._last_words = line.decode(errors="replace").strip()[:200] or self._last_words

    async def _died(self) -> NoReturn:
        """Raises _ChildFailed with how the process ended."""
        with anyio.move_on_after(_GRACE):
            await self._process.wait()
        code = self._process.returncode
        how = "closed its output" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        words = f": {self._last_words}" if self._last_words else ""
        raise _ChildFailed(f"the NVML process {how}{words}", crashed=True)


def mps_runs(environ: Mapping[str, str]) -> bool:
    """Whether the operator's MPS control daemon is there, by the pid it has left in its pipe directory."""
    directory = environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"
    try:
        pid = int(Path(directory, "nvidia-cuda-mps-control.pid").read_text())
        return "nvidia-cuda-mps" in Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return False


async def inventory_once(context: PluginContext) -> Inventory:
    """The inventory as it is now, without a daemon: the source runs until its first word."""
    found: list[Inventory] = []
    async with anyio.create_task_group() as tasks:

        def keep(inventory: Inventory) -> None:
            found.append(inventory)
            tasks.cancel_scope.cancel()

        await NvidiaSource(context).run(keep)
    return found[0]


def _dated(inventory: Inventory, last: Inventory) -> Inventory:
    """With the time since when each device that does not answer has not done so."""
    if all(device.health != "unreachable" for device in inventory.devices):
        return inventory
    known = {d.uuid: d.health_since for d in last.devices if d.health == "unreachable"}
    now = anyio.current_time()
    devices = (
        replace(d, health_since=known.get(d.uuid, now)) if d.health == "unreachable" else d
        for d in inventory.devices
    )
    return replace(inventory, devices=tuple(devices))


async def _end(process: Process) -> bool:
    """Kill and reap. A process that hangs inside the kernel cannot be killed, and is False: as long as it is
    there, no second one is started to hang beside it."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with anyio.move_on_after(_GRACE, shield=True):
        await process.wait()
    return process.returncode is not None
