"""The fork server: births in the right state, failures with their step, its own death."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker.errors import WorkerError
from stoker.plugin.testing.driver_bench import Bench, ended, running, text_of, until
from stoker_process import forkserver
from stoker_process.cgroups import CgroupTrees
from stoker_process.driver import ProcessDriver
from stoker_process.spawner import Birth, Order, Spawner

pytestmark = [pytest.mark.anyio, pytest.mark.system]


@pytest.fixture
async def spawner(anyio_backend: str) -> AsyncIterator[Spawner]:
    with closing(Spawner()) as spawner:
        yield spawner


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def order(*argv: str, **changes: object) -> Order:
    plain = Order(path="/bin/sh", argv=("sh", "-c", *argv), env={"PATH": "/usr/bin:/bin"}, cwd="/")
    return replace(plain, **changes)


def exit_of(birth: Birth) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(birth.pid, 0)[1])


async def test_the_child_is_ours(spawner: Spawner, log_file: int, tmp_path: Path) -> None:
    """Not the fork server's: its exit is told to us, and outlives the server."""
    birth = await spawner.spawn(order("echo $PPID; exit 3"), log_file)
    assert (birth.step, exit_of(birth)) == ("", 3)
    assert (tmp_path / "log").read_text() == f"{os.getpid()}\n"


async def test_many_at_once(spawner: Spawner, log_file: int) -> None:
    births: list[Birth] = []

    async def one(code: int) -> None:
        births.append(await spawner.spawn(order(f"exit {code}"), log_file))

    async with anyio.create_task_group() as tasks:
        for code in range(50):
            tasks.start_soon(one, code)
    assert sorted(exit_of(birth) for birth in births) == list(range(50))


async def test_an_order_may_be_large(spawner: Spawner, log_file: int, tmp_path: Path) -> None:
    values = {f"V{number}": "x" * 100_000 for number in range(15)}
    birth = await spawner.spawn(order('echo "${#V14}"', env=values), log_file)
    assert exit_of(birth) == 0
    assert (tmp_path / "log").read_text() == "100000\n"


@pytest.mark.parametrize(
    ("changes", "step", "number"),
    [
        ({"path": "/no/such/file"}, "exec", errno.ENOENT),
        ({"path": "/etc/passwd"}, "exec", errno.EACCES),
        ({"cwd": "/no/such/directory"}, "chdir", errno.ENOENT),
        ({"limits": ((resource.RLIMIT_NOFILE, 2**40),)}, "limits", errno.EPERM),
        ({"env": {"BIG": "x" * 3_000_000}}, "exec", errno.E2BIG),
        ({"argv": ("sh", "a\0b")}, "exec", errno.EINVAL),
    ],
)
async def test_a_failed_birth_names_its_step(
    spawner: Spawner, log_file: int, changes: dict[str, object], step: str, number: int
) -> None:
    birth = await spawner.spawn(order("exit 0", **changes), log_file)
    assert (birth.step, birth.errno) == (step, number)
    assert exit_of(birth) == 127


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
async def test_only_root_becomes_another(spawner: Spawner, log_file: int) -> None:
    birth = await spawner.spawn(order("exit 0", user=("root", 0, 0)), log_file)
    assert (birth.step, birth.errno) == ("user", errno.EPERM)
    exit_of(birth)


async def test_a_cgroup_that_cannot_be_entered_fails_before_the_birth(
    spawner: Spawner, log_file: int, tmp_path: Path
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)  # a directory, but no cgroup
    try:
        birth = await spawner.spawn(order("exit 0"), log_file, descriptor)
    finally:
        os.close(descriptor)
    assert (birth.pid, birth.step, birth.errno) == (0, "clone", errno.EBADF)


FORBID_CLONE3 = """
import ctypes, errno, runpy, struct, sys
def step(code, yes, no, value): return struct.pack("HBBI", code, yes, no, value)
# load the call's number; if it is clone3: ENOSYS, as containers' profiles have it; else allow
refuse, allow = step(6, 0, 0, 0x50000 | errno.ENOSYS), step(6, 0, 0, 0x7FFF0000)
program = step(0x20, 0, 0, 0) + step(0x15, 0, 1, 435) + refuse + allow
steps = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(steps))), 0, 0) == 0
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def unified() -> Path:
    """Our own group in the v2 hierarchy."""
    own = next(
        line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    root = Path("/sys/fs/cgroup")
    return (root if (root / "cgroup.controllers").exists() else root / "unified") / own.strip("/")


def test_where_clone3_is_forbidden_a_child_goes_into_its_cgroup_by_itself(
    log_file: int, tmp_path: Path
) -> None:
    """As below systemd's RestrictNamespaces=."""
    group = unified() / f"born-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    directory = os.open(group, os.O_RDONLY)
    try:
        answer = born_without_clone3(log_file, "cat /proc/self/cgroup; exit 3", directory)
        assert exit_of(Birth(**answer)) == 3
        assert f"/{group.name}\n" in (tmp_path / "log").read_text()
    finally:
        os.close(directory)
        group.rmdir()


def test_births_where_clone3_is_forbidden(log_file: int, tmp_path: Path) -> None:
    answer = born_without_clone3(log_file, "echo $PPID; exit 3")
    assert answer == {"number": 7, "pid": answer["pid"]}
    assert exit_of(Birth(**answer)) == 3
    assert (tmp_path / "log").read_text() == f"{os.getpid()}\n"


def born_without_clone3(log_file: int, command: str, *more: int) -> dict[str, Any]:
    """What a fork server answers that may not use clone3."""
    link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    paper = os.memfd_create("order")
    os.write(paper, json.dumps(asdict(order(command))).encode())
    with link:
        with other:
            argv = [sys.executable, "-c", FORBID_CLONE3, forkserver.__file__]
            server = subprocess.Popen(argv, stdin=other.fileno())
        socket.send_fds(link, [b"7"], [paper, log_file, *more])
        answer = json.loads(link.recv(4096))
    os.close(paper)
    assert server.wait() == 0
    found: dict[str, Any] = answer
    return found


async def test_a_dead_fork_server_is_replaced(sessions: ProcessDriver, bench: Bench, log_file: int) -> None:
    server = await running_forkserver()
    first = await sessions.start(bench.request("sleep", "600"))
    os.kill(server, signal.SIGKILL)
    await until(lambda: not running(server), "the end of the fork server")
    second = await sessions.start(bench.request("sleep", "600"))
    assert running(first.pid)
    for handle in (first, second):
        await sessions.kill(handle)
        await ended(sessions, handle)
    assert await running_forkserver() != server


async def test_a_fork_server_that_dies_over_an_order_is_told(sessions: ProcessDriver, bench: Bench) -> None:
    """The order may or may not have been carried out: what carries its mark is ended."""
    server = await running_forkserver()
    os.kill(server, signal.SIGSTOP)
    request = bench.request("sleep", "600")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_killed_soon, server)
        with pytest.raises(WorkerError, match="will be tried again") as caught:
            await sessions.start(request)
    assert not caught.value.permanent
    handle = await sessions.start(request)
    await sessions.kill(handle)
    await ended(sessions, handle)


async def _killed_soon(server: int) -> None:
    await anyio.wait_all_tasks_blocked()
    os.kill(server, signal.SIGKILL)


async def test_the_fork_server_ends_with_its_daemon(bench: Bench) -> None:
    driver = bench.driver()
    server = await running_forkserver()
    await driver.aclose()
    assert not running(server)


async def test_without_clone_into_cgroup_the_session_holds(
    trees: CgroupTrees, cgroups: ProcessDriver, bench: Bench
) -> None:
    """The instance's directory is made unfit after the driver was opened: its workers run all the same."""
    if "v1" in cgroups.description:
        pytest.skip("v1 is entered without clone3")
    trees.home.mkdir()
    (trees.home / "cgroup.type").write_text("threaded")
    handle = await cgroups.start(bench.request("sh", "-c", "setsid sleep 600 & echo $! >child; wait"))
    assert "cgroup" not in dict(handle.extra)
    await cgroups.kill(handle)
    await ended(cgroups, handle)


async def running_forkserver() -> int:
    """The one fork server that is a child of this process and has got under way."""
    await until(lambda: len(forkservers()) == 1, "the fork server")
    return forkservers()[0]


def forkservers() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if "forkserver.py" in text_of(f"/proc/{pid}/cmdline")]
