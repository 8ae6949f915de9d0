"""Replicas that are forked from a process which has imported their modules: what they are, and when not."""

import json
import os
import pwd
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.plugin.ports import PluginContext, StartRequest, WorkerDriver
from stoker.plugin.testing.driver import DriverSuite
from stoker.plugin.testing.driver_bench import (
    DEADLINE,
    Bench,
    ended,
    only,
    running,
    script,
    start_in_a_daemon_that_dies,
    text_of,
    until,
)
from stoker_process import template as program
from stoker_process.driver import ProcessDriver
from stoker_process.pythons import PythonCommand, python_command

pytestmark = [pytest.mark.anyio, pytest.mark.system]

BECOME = """
import os, signal, sys
import standin
os.environ.pop("LC_CTYPE", None)  # which Python sets for itself where there is no locale
for each in signal.SIGPIPE, signal.SIGXFSZ:  # those that Python ignores
    signal.signal(each, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Turns a forked replica into any command, so that what a worker is born with can be seen from there."""


class ForkedBench(Bench):
    """Its requests are for commands that a replica turns into once it was forked."""

    def request(self, *argv: str, **changes: Any) -> StartRequest:
        """The same for a command that there is; what cannot be executed is asked for as it stands."""
        found = bool(argv) and shutil.which(argv[0], path=self._environ["PATH"])
        if not found or "working_dir" in changes:
            return super().request(*argv, **changes)
        (self.directory / "standin.py").write_text("LOADED = True\n")
        become = self.directory / "become.py"
        become.write_text(BECOME)
        return super().request(sys.executable, str(become), *argv, preload=("standin",), **changes)


@pytest.mark.system
class TestForked(DriverSuite):
    """Every promise of the driver, in its default way of holding trees on this machine."""

    factory = "stoker_process.driver:ProcessDriver"

    @pytest.fixture
    async def bench(self, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Bench]:
        bench = ForkedBench(tmp_path, factory=self.factory, options=self.options, environ=self.environ)
        yield bench
        await bench.end_everything()

    async def test_use_is_measured_over_the_whole_tree(self, driver: WorkerDriver, bench: Bench) -> None:
        """As for others, once the replicas have turned into the commands."""
        busy = await driver.start(bench.request("sh", "-c", "sh -c 'while :; do :; done' & wait"))
        idle = await driver.start(bench.request("sleep", "600"))
        with anyio.fail_after(DEADLINE):
            while True:
                usage = await driver.usage([busy, idle])
                small, big = usage[idle.pid], usage[busy.pid]
                if small.cpu < 0.05 < big.cpu < 1.5 and 100_000 < small.memory < big.memory < 100_000_000:
                    break
                await anyio.sleep(0.2)

    async def test_workers_outlive_a_daemon_that_is_killed(self, bench: Bench) -> None:
        """And the process that they were forked from does not. Waits until the command can hear a signal."""
        program = 'trap "exit 42" TERM; echo up; sleep 600 & wait'
        mark, pid = start_in_a_daemon_that_dies(bench, "sh", "-c", program)
        log = bench.directory / "logs" / "web-1.log"
        await until(lambda: "up" in text_of(str(log)), "the worker")
        await until(lambda: not templates_in(bench.directory), "the end of the template")
        async with aclosing(bench.driver()) as heir:
            found = await only(heir)
            assert (found.mark, found.handle.pid) == (mark, pid)
            handle = await heir.recover(found)
            await heir.signal(handle, signal.SIGTERM)
            assert (await ended(heir, handle)).code in (42, None)  # None: a kernel that does not tell


def templates_in(directory: Path) -> list[int]:
    """The processes from which replicas of that working directory are forked."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_one = (path / "cmdline").read_text().endswith(f"{program.__file__}\0")
            if is_one and (path / "cwd").readlink() == directory and running(int(path.name)):
                found.append(int(path.name))
    return found


class Warm:
    """A driver that logs to a list, and replicas of a script with a module to import before."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.said: list[str] = []
        self.driver = ProcessDriver(
            PluginContext(
                instance=bench.instance, **bench.places, options=bench.options, log=self.said.append
            )
        )

    def write(self, name: str, body: str) -> None:
        """A file in the working directory."""
        (self.bench.directory / name).write_text(body)

    def request(self, *argv: str, preload: tuple[str, ...] = ("standin",), **changes: Any) -> StartRequest:
        """For a Python command line."""
        return self.bench.request(sys.executable, *argv, preload=preload, **changes)

    async def run(self, *argv: str, **changes: Any) -> tuple[ExitStatus, str]:
        """To its end."""
        return await self.bench.run(self.driver, self.request(*argv, **changes))

    async def stay(self, **changes: Any) -> WorkerHandle:
        """Start one that stays."""
        if not (self.bench.directory / "stay.py").exists():  # one that begins may read it at this moment
            self.write("stay.py", "import time; time.sleep(600)")
        return await self.driver.start(self.request("stay.py", **changes))

    @property
    def template(self) -> int:
        """The pid of the only one."""
        (found,) = templates_in(self.bench.directory)
        return found


@pytest.fixture
async def warm(bench: Bench) -> AsyncIterator[Warm]:
    made = Warm(bench)
    made.write("standin.py", "import tempfile; VALUE = [tempfile.gettempdir()]")
    async with aclosing(made.driver):
        yield made


FACTS = """
import json, os, random, sys, tempfile, threading
import standin
tasks = len(os.listdir("/proc/self/task"))
print(json.dumps({
    "name": __name__, "file": __file__, "spec": getattr(__spec__, "name", None), "cached": __cached__,
    "globals": sorted(globals()), "main": sys.modules["__main__"].__dict__ is globals(),
    "argv": sys.argv, "orig": sys.orig_argv, "path": sys.path, "flags": list(sys.flags), "cwd": os.getcwd(),
    "environ": dict(os.environ), "tasks": tasks, "thread": threading.current_thread().name,
    "descriptors": sorted(os.listdir("/proc/self/fd")), "umask": os.umask(0), "tmp": tempfile.gettempdir(),
    "session": os.getsid(0) == os.getpid(), "nice": os.nice(0), "executable": sys.executable,
    "shown": [open(f"/proc/self/{name}").read() for name in ("cmdline", "environ", "comm")],
}))
"""


@pytest.mark.parametrize("command", [["facts.py", "a", "b c"], ["-u", "-X", "utf8", "-m", "facts", "--x"]])
async def test_a_forked_program_finds_what_an_executed_one_does(warm: Warm, command: list[str]) -> None:
    """Down to its global names and what others read of it in /proc."""
    warm.write("facts.py", FACTS)
    request = warm.request(*command, environ={"ODD": "größe\n", "EMPTY": ""}, umask=0o27)
    forked = await warm.bench.run(warm.driver, request)
    assert warm.template
    Path(request.log_path).unlink()
    executed = await warm.bench.run(warm.driver, replace(request, preload=()))
    one, other = json.loads(forked[1]), json.loads(executed[1])
    assert sorted(one["shown"][1].split("\0")) == sorted(other["shown"][1].split("\0"))
    del one["shown"][1], other["shown"][1]
    assert one == other
    assert forked[0] == executed[0] == ExitStatus(code=0)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("1 / 0", 1),
        ("import sys; sys.exit('no')", 1),
        ("import os; os._exit(3)", 3),
    ],
)
async def test_a_forked_program_ends_as_an_executed_one_does(warm: Warm, body: str, code: int) -> None:
    warm.write("ends.py", f"import atexit; atexit.register(print, 'bye'); {body}")
    request = warm.request("ends.py")
    forked = await warm.bench.run(warm.driver, request)
    Path(request.log_path).unlink()
    executed = await warm.bench.run(warm.driver, replace(request, preload=()))
    assert forked[0] == executed[0]
    assert forked[0].code == code
    assert forked[1].splitlines()[-2:] == executed[1].splitlines()[-2:]


async def test_replicas_share_one_template_and_differ(warm: Warm) -> None:
    """They are children of the daemon, with random numbers of their own."""
    warm.write("who.py", "import os, random; print(os.getppid(), random.random())")
    outputs = [(await warm.run("who.py"))[1].split() for _ in range(2)]
    assert [output[0] for output in outputs] == [str(os.getpid())] * 2
    assert outputs[0][1] != outputs[1][1]
    assert warm.template
    assert [text for text in warm.said if "has imported standin" in text] == warm.said


async def test_another_environment_makes_another_template(warm: Warm) -> None:
    """Imports may depend on it. What is each replica's own does not count."""
    await warm.run("-m", "standin", environ={"PORT": "1", "TMPDIR": "/nowhere"})
    first = warm.template
    await warm.run("-m", "standin", environ={"PORT": "2"})
    assert warm.template == first
    await warm.run("-m", "standin", environ={"MODEL": "big"})
    assert warm.template != first


async def test_the_death_of_a_template_harms_no_replica(warm: Warm) -> None:
    """The next replica starts by itself, which is said; the one after it is forked from a new one."""
    handle = await warm.stay()
    first = warm.template
    os.kill(first, signal.SIGKILL)
    await until(lambda: not running(first), "the end of the template")
    second = await warm.stay()
    assert "the process that replicas are forked from has ended" in warm.said[-1]
    assert not templates_in(warm.bench.directory)
    third = await warm.stay()
    assert warm.template
    for one in (handle, second, third):
        assert running(one.pid)
        await warm.driver.kill(one)
        assert await ended(warm.driver, one) == ExitStatus(signal=signal.SIGKILL)


async def test_the_template_of_a_service_that_is_gone_ends(warm: Warm) -> None:
    handle = await warm.stay()
    template = warm.template
    await warm.driver.retain({"suite/web", "suite/other"})
    assert warm.template == template
    await warm.driver.retain({"suite/other"})
    assert not templates_in(warm.bench.directory)
    assert running(handle.pid)


async def test_a_template_ends_with_its_driver(warm: Warm) -> None:
    handle = await warm.stay()
    template = warm.template
    await warm.driver.aclose()
    assert not running(template)
    assert running(handle.pid)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import nothing_like_it", "standin cannot be imported: ModuleNotFoundError: No module named"),
        ("raise SystemExit", "standin cannot be imported: SystemExit"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=[9], daemon=True).start()",
            "standin starts threads when it is imported (Thread-1 (sleep) of time)",
        ),
        ("import socket; S = socket.socket()", "an import left socket:"),
        ("import subprocess; P = subprocess.Popen(['sleep', '600'])", "standin starts a process"),
        ("import os; os._exit(0)", "it ended over its imports"),
        ("import torch", "CUDA was initialised (torch.cuda.is_initialized())"),
    ],
)
async def test_what_cannot_be_forked_is_executed_and_said(warm: Warm, body: str, words: str) -> None:
    """Once: the next replica of the kind does not try again."""
    warm.write("torch.py", "class cuda:\n    is_initialized = staticmethod(lambda: True)\n")
    warm.write("standin.py", body)
    warm.write("fine.py", "print('here')")
    for _ in range(2):
        assert (await warm.run("fine.py"))[0] == ExitStatus(code=0)
    (said,) = warm.said
    assert said.startswith("suite/web: preload has no effect, each replica starts by itself: ")
    assert words in said
    assert not templates_in(warm.bench.directory)


@pytest.mark.parametrize("wait", ["", "sleep 0.3;"], ids=["at once", "with its order unread"])
async def test_an_interpreter_that_is_none_is_said(warm: Warm, wait: str) -> None:
    odd = script(warm.bench.directory / "python3", f"echo I am no Python; {wait} exit 3")
    request = replace(warm.request("fine.py"), argv=(str(odd), "fine.py"))
    status, _ = await warm.bench.run(warm.driver, request)
    assert status.code == 3
    assert "it ended over its imports (I am no Python)" in warm.said[0]


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ("python -m app", PythonCommand(module="app")),
        ("/v/bin/python3.12 -u app/main.py --port 1", ("-u",)),
        ("python3 -X dev -W error -OO -m a.b c", ("-X", "dev", "-W", "error", "-OO")),
        ("python", None),
        ("python -c pass", None),
        ("python -i app.py", None),
        ("python -m", None),
        ("python app", None),
        ("env python app.py", None),
        ("pypy app.py", None),
        ("gunicorn app.py", None),
    ],
)
def test_what_is_plainly_python(argv: str, found: PythonCommand | tuple[str, ...] | None) -> None:
    command = python_command(argv.split())
    assert (command.options if command and isinstance(found, tuple) else command) == found


PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin")
"""One that other users may execute."""


@pytest.mark.skipif(os.geteuid() != 0 or not PYTHON, reason="needs root, and a Python for everybody")
async def test_a_template_runs_as_the_replicas_user(warm: Warm) -> None:
    for place in (warm.bench.directory, *warm.bench.directory.parents):
        mode = place.stat().st_mode
        if not mode & 0o001:
            place.chmod(mode | 0o055)
    warm.write("who.py", "import os, standin; print(os.getuid(), os.getgroups(), standin.UID)")
    warm.write("standin.py", "import os; UID = os.getuid()")
    request = replace(warm.request("who.py", user="nobody"), argv=(str(PYTHON), "who.py"))
    status, output = await warm.bench.run(warm.driver, request)
    uid = str(pwd.getpwnam("nobody").pw_uid)
    assert (status.code, output.split()[0], output.split()[-1]) == (0, uid, uid)
    # Where others may not read this checkout, that is said; the replica runs all the same.
    assert "has imported" in warm.said[0] or "Permission denied" in warm.said[0]
