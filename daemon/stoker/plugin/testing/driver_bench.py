"""What the suite of worker drivers works with: requests, other daemons, a look from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker.errors import WorkerError
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.plugin.ports import FoundWorker, PluginContext, StartRequest, WorkerDriver

DEADLINE = 15.0
"""Seconds any single expectation may take."""
PYTHON = os.path.realpath(sys.executable)
"""Not a virtual environment's own name for it: that may lie in a place which a container does not see."""

TREE = """
import os, signal, subprocess, sys, time
directory, ending = sys.argv[1:]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def become(name):
    with open(f"{directory}/{name}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{directory}/{name}.new", f"{directory}/{name}.pid")
def sleep_on():
    while True:
        time.sleep(60)
if os.fork() == 0:
    become("child"); sleep_on()
if os.fork() == 0:
    os.setsid(); become("session"); sleep_on()
middle = os.fork()
if middle == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/"); become("daemon"); sleep_on()
    os._exit(0)
os.waitpid(middle, 0)
while not all(os.path.exists(f"{directory}/{name}.pid") for name in ("child", "session", "daemon")):
    time.sleep(0.01)
become("main")
if ending == "exit":
    sys.exit(7)
sleep_on()
"""
"""A worker that ignores SIGTERM and has a child, a child in a session of its own and a daemon."""

FIRST_DAEMON = "from stoker.plugin.testing.driver_bench import first_daemon; first_daemon()"


class Bench:
    """What a test works with: drivers, requests, and a directory of its own."""

    def __init__(
        self, directory: Path, *, factory: str, options: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.instance = f"suite-{os.getpid()}-{time.monotonic_ns():x}"
        self.factory = factory
        self.options = options
        self.places = {"state_dir": str(directory / "state"), "runtime_dir": str(directory / "run")}
        self.zombies = own_zombies()
        """Those that were there before the test."""
        self.contained = False
        """Whether its workers live in a process namespace of their own."""
        self._environ = environ
        self._serial = 0

    def driver(self, **changes: str) -> WorkerDriver:
        """A new driver, as a new daemon on the same state directory would make it."""
        values: dict[str, Any] = {
            "instance": self.instance,
            "options": self.options,
            **self.places,
            **changes,
        }
        return make_driver(self.factory, PluginContext(**values))

    def request(self, *argv: str, **changes: Any) -> StartRequest:
        """A request for a worker that runs this command."""
        self._serial += 1
        replica = f"web-{self._serial}"
        mark = f"{self.instance}:suite/web:{replica}"
        environ = {**self._environ, "STOKER_ID": mark, **changes.pop("environ", {})}
        values: dict[str, Any] = {
            "replica": replica,
            "service": "suite/web",
            "mark": mark,
            "argv": argv,
            "environ": environ,
            "working_dir": str(self.directory),
            "log_path": str(self.directory / "logs" / f"{replica}.log"),
            "endpoint": "127.0.0.1:1",
        }
        return StartRequest(**(values | changes))

    async def start_tree(
        self, driver: WorkerDriver, ending: str = "stay"
    ) -> tuple[WorkerHandle, StartRequest]:
        """Start a worker with a whole family (see `TREE`)."""
        request = self.request(PYTHON, "-c", TREE, str(self.directory), ending)
        return await driver.start(request), request

    async def family(self) -> dict[str, int]:
        """The pids of that family, once all of it is there."""
        names = ("main", "child", "session", "daemon")
        files = {name: self.directory / f"{name}.pid" for name in names}
        await until(lambda: all(file.exists() for file in files.values()), "the worker's family")
        pids = {name: int(file.read_text()) for name, file in files.items()}
        if self.contained:
            return {name: outside(pid, self.instance) for name, pid in pids.items()}
        return pids

    async def run(self, driver: WorkerDriver, request: StartRequest) -> tuple[ExitStatus, str]:
        """Start a worker, wait for its end, return how it ended and what it wrote."""
        status = await ended(driver, await driver.start(request))
        return status, text_of(request.log_path)

    async def end_everything(self) -> None:
        """Leave no process of this bench running, whatever a failed test has left."""
        while pids := [pid for pid in processes_of(self.instance) if running(pid)]:
            for pid in pids:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(pid, signal.SIGKILL)
            await until(partial(none_running, pids), "the end of what a test left running")
        async with aclosing(self.driver()) as last:
            for found in await last.find():
                handle = await last.recover(found)
                await last.kill(handle)
                await ended(last, handle)


async def until(true: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fail when it takes longer than `DEADLINE`."""
    with anyio.move_on_after(DEADLINE):
        while not true():  # noqa: ASYNC110 - other processes set no event of ours
            await anyio.sleep(0.005)
        return
    pytest.fail(f"{what}: not seen within {DEADLINE:.0f} s")


async def ended(driver: WorkerDriver, handle: WorkerHandle) -> ExitStatus:
    """How the worker ended, within `DEADLINE`."""
    with anyio.move_on_after(DEADLINE):
        return await driver.wait(handle)
    pytest.fail(f"worker {handle.pid} did not end within {DEADLINE:.0f} s")


async def only(driver: WorkerDriver) -> FoundWorker:
    """The one worker that is found."""
    found = await driver.find()
    assert len(found) == 1, found
    return found[0]


async def refused(driver: WorkerDriver, request: StartRequest, *words: str) -> str:
    """The message with which a start is refused for good: all these words, on one or two lines."""
    with pytest.raises(WorkerError) as caught:
        await driver.start(request)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert caught.value.permanent
    assert message.count("\n") <= 1
    return message


def make_driver(factory: str, context: PluginContext) -> WorkerDriver:
    """Call the factory "module:attribute"."""
    module, _, attribute = factory.partition(":")
    made: WorkerDriver = getattr(import_module(module), attribute)(context)
    return made


def start_in_a_daemon_that_dies(bench: Bench, *argv: str) -> tuple[str, int]:
    """Start a worker in another process, kill that process with SIGKILL, return the mark and the pid."""
    request = bench.request(*argv)
    task = {
        "factory": bench.factory,
        "context": {"instance": bench.instance, **bench.places, "options": dict(bench.options)},
        "request": {name: getattr(request, name) for name in (*_TEXTS, *_LISTS, "environ")},
    }
    daemon = subprocess.Popen(
        [sys.executable, "-c", FIRST_DAEMON],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon, daemon.stdin, daemon.stdout:
        daemon.stdin.write(json.dumps(task).encode() + b"\n")
        daemon.stdin.flush()
        pid = int(daemon.stdout.readline())
        daemon.kill()
    return request.mark, pid


_LISTS = ("argv", "preload")
_TEXTS = ("replica", "service", "mark", "working_dir", "log_path", "endpoint")


def first_daemon() -> None:
    """The other process: start what standard input asks for, print the pid, wait to be killed."""
    task = json.loads(sys.stdin.readline())
    request = StartRequest(**(task["request"] | {name: tuple(task["request"][name]) for name in _LISTS}))

    async def serve() -> None:
        driver = make_driver(task["factory"], PluginContext(**task["context"], log=_to_stderr))
        handle = await driver.start(request)
        print(handle.pid, flush=True)  # noqa: T201 - the answer to the test
        await driver.wait(handle)

    anyio.run(serve)


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def text_of(path: str) -> str:
    """What a file holds; "" if there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def script(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return path


def state_of(pid: int) -> str:
    """The state letter of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def running(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    return state_of(pid) not in ("", "Z", "X")


def none_running(pids: Iterable[int]) -> bool:
    """Whether all of these processes have ended."""
    return not any(map(running, pids))


def processes_of(instance: str) -> list[int]:
    """Running processes whose environment carries a mark of that instance."""
    sign = f"STOKER_ID={instance}:".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if sign in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def outside(pid: int, instance: str) -> int:
    """The process that calls itself `pid` in the namespace of a worker of that instance; 0 if it is gone."""
    for candidate in processes_of(instance):
        line = next(
            (x for x in text_of(f"/proc/{candidate}/status").splitlines() if x.startswith("NSpid")), ""
        )
        if line.split()[-1:] == [str(pid)]:
            return candidate
    return 0


def own_zombies() -> set[int]:
    """Dead children of this process that nobody has taken away."""
    children = text_of(f"/proc/self/task/{os.getpid()}/children").split()
    return {int(pid) for pid in children if state_of(int(pid)) == "Z"}


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))
