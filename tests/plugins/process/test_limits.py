"""Limits of whole trees, held by cgroups of either version; what cannot be held is said."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from stoker.model.replica import ExitStatus
from stoker.model.service import Limits
from stoker.plugin.ports import PluginContext
from stoker.plugin.testing.driver_bench import Bench, ended, running, text_of, until
from stoker_process.cgroups import CgroupTrees
from stoker_process.driver import ProcessDriver
from stoker_process.fences import Fences, out_of_memory
from stoker_process.hierarchies import Hierarchy

pytestmark = [pytest.mark.anyio, pytest.mark.system]

MI = 1024 * 1024
EAT = "python3 -c 'x = bytearray(200 * 2**20); print(len(x))'"


@pytest.fixture
async def limiting(bench: Bench, said: list[str]) -> AsyncIterator[ProcessDriver]:
    """A driver that can limit trees; skips where this user cannot."""
    context = PluginContext(instance=bench.instance, **bench.places, log=said.append)
    async with aclosing(ProcessDriver(context)) as driver:
        probe = bench.request("true", limits=Limits(memory=64 * MI, cpu=1.0, pids=50))
        await ended(driver, await driver.start(probe))
        if said:
            pytest.skip(said[0])
        yield driver


async def test_memory_is_limited_and_its_end_told_as_such(limiting: ProcessDriver, bench: Bench) -> None:
    limits = Limits(memory=64 * MI)
    status, output = await bench.run(limiting, bench.request("sh", "-c", f"exec {EAT}", limits=limits))
    assert status == ExitStatus(
        signal=signal.SIGKILL, detail="out of memory: used up its limit of 64Mi", oom=True
    )
    assert output == ""


async def test_a_child_that_is_out_of_memory_is_told_too(limiting: ProcessDriver, bench: Bench) -> None:
    limits = Limits(memory=64 * MI)
    status, _ = await bench.run(limiting, bench.request("sh", "-c", f"{EAT}; exit 3", limits=limits))
    assert status.oom
    assert "64Mi" in str(status)


async def test_enough_memory_is_no_news(limiting: ProcessDriver, bench: Bench) -> None:
    request = bench.request("sh", "-c", f"{EAT}; exit 3", limits=Limits(memory=2048 * MI))
    assert await bench.run(limiting, request) == (
        ExitStatus(code=3, detail=str(200 * MI)),
        f"{200 * MI}\n",
    )


async def test_cores_are_limited(limiting: ProcessDriver, bench: Bench) -> None:
    """Two loops want two cores and get a fifth of one, however long that takes on a busy machine."""
    loops = "(while :; do :; done)& (while :; do :; done)& sleep 1.5; kill %1 %2; wait"
    program = f"began=$EPOCHREALTIME; {loops}; echo $began $EPOCHREALTIME; times"
    _, output = await bench.run(limiting, bench.request("bash", "-c", program, limits=Limits(cpu=0.2)))
    *_, clock, _, children = output.splitlines()
    began, ended_at = map(float, clock.split())
    minutes, _, seconds = children.split()[0].partition("m")
    used = int(minutes) * 60 + float(seconds.rstrip("s"))
    assert 0.02 < used / (ended_at - began) < 0.4


async def test_processes_are_counted_for_the_replica(limiting: ProcessDriver, bench: Bench) -> None:
    """Also those of root, whom the limit by user does not concern."""
    program = "i=0; while [ $i -lt 30 ]; do sleep 600 & i=$((i+1)); done; echo all"
    status, output = await bench.run(limiting, bench.request("sh", "-c", program, limits=Limits(pids=10)))
    assert status.code != 0
    assert "fork" in output.lower()
    assert "all" not in output


async def test_no_directory_is_left_behind(limiting: ProcessDriver, bench: Bench) -> None:
    limits = Limits(memory=64 * MI, cpu=1.0, pids=50)
    handle = await limiting.start(bench.request("sleep", "600", limits=limits))
    assert directories(bench.instance)
    await limiting.kill(handle)
    await ended(limiting, handle)
    assert directories(bench.instance) == []


async def test_a_start_that_fails_leaves_none_either(limiting: ProcessDriver, bench: Bench) -> None:
    script = bench.directory / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(Exception, match="interpreter"):
        await limiting.start(bench.request(str(script), limits=Limits(memory=64 * MI)))
    assert directories(bench.instance) == []


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
async def test_an_heir_knows_the_limits(limiting: ProcessDriver, bench: Bench, recorded: bool) -> None:
    """It tells of the want of memory of an adopted worker, and removes its directories."""
    program = f"while [ ! -e go ]; do sleep 0.05; done; exec {EAT}"
    handle = await limiting.start(bench.request("sh", "-c", program, limits=Limits(memory=64 * MI)))
    if not recorded:
        (bench.directory / "state" / "process.jsonl").unlink()
    async with aclosing(bench.driver()) as heir:
        (found,) = await heir.find()
        taken = await heir.recover(found)
        assert taken.pid == handle.pid
        (bench.directory / "go").touch()
        assert (await ended(heir, taken)).oom
        assert directories(bench.instance) == []


async def test_an_heir_clears_what_a_dead_worker_was_limited_by(
    limiting: ProcessDriver, bench: Bench
) -> None:
    limits = Limits(memory=64 * MI, cpu=1.0, pids=50)
    handle = await limiting.start(bench.request("sleep", "600", limits=limits))
    os.kill(handle.pid, signal.SIGKILL)
    await until(lambda: not running(handle.pid), "the end of the worker")
    async with aclosing(bench.driver()) as heir:
        assert await heir.find() == []
    assert directories(bench.instance) == []


async def test_what_cannot_be_held_is_said_once(
    bench: Bench, log: Callable[[str], None], said: list[str]
) -> None:
    """A machine without any controller: the worker is to run all the same."""
    fences = Fences(bench.instance, None, log)
    fences._hierarchies = []
    for replica in ("one", "two"):
        fence = fences.build("shop/web", replica, Limits(memory=MI, pids=3), None)
        assert (fence.held, fence.directories) == (frozenset(), ())
    assert len(said) == 2
    assert said[0].startswith("limits.memory of shop/web is not held: the memory controller of cgroups")
    assert "Delegate=yes" in said[0]
    assert "only for all processes of its user together" in said[1]


def v2_directory(path: Path, controllers: str = "cpu memory pids") -> Path:
    """Plain files as a cgroup of v2 has them."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    for name in ("cgroup.subtree_control", "memory.max", "memory.swap.max", "memory.oom.group"):
        (path / name).write_text("")
    (path / "cpu.max").write_text("")
    return path


def test_with_v2_the_tree_itself_is_limited(
    tmp_path: Path, log: Callable[[str], None], said: list[str]
) -> None:
    """A plain directory stands for a delegated cgroup: what would be written where?"""
    parent = v2_directory(tmp_path / "unit")
    home, tree = v2_directory(parent / "stoker-x"), v2_directory(parent / "stoker-x" / "web-1")
    trees = CgroupTrees(Hierarchy("", tmp_path, "/"), home, log)
    fence = Fences("x", trees, log).build("shop/web", "web-1", Limits(memory=64 * MI), tree)
    assert fence.held == {"memory"}
    assert fence.directories == ()
    assert (tree / "memory.max").read_text() == str(64 * MI)
    assert (tree / "memory.swap.max").read_text() == "0"
    assert (tree / "memory.oom.group").read_text() == "1"
    for directory in (parent, home):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory"
    assert said == []
    (tree / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n")
    assert out_of_memory([tree]) == "out of memory: used up its limit of 64Mi"
    (tree / "memory.events").write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n")
    assert out_of_memory([tree]) == ""


def test_a_group_with_processes_hands_nothing_on(
    tmp_path: Path, log: Callable[[str], None], said: list[str]
) -> None:
    """The kernel would hand on some controllers, and then let no process live in the groups below."""
    parent = v2_directory(tmp_path / "unit")
    home, tree = v2_directory(parent / "stoker-x"), v2_directory(parent / "stoker-x" / "web-1")
    (parent / "cgroup.type").write_text("domain\n")
    (parent / "cgroup.procs").write_text("123\n")
    fences = Fences("x", CgroupTrees(Hierarchy("", tmp_path, "/"), home, log), log)
    assert fences.build("shop/web", "web-1", Limits(memory=MI, cpu=1, pids=9), tree).held == set()
    assert (parent / "cgroup.subtree_control").read_text() == ""
    assert len(said) == 3
    assert "DelegateSubgroup=daemon" in said[0]
    (parent / "cgroup.procs").write_text("")
    assert fences.build("shop/web", "web-1", Limits(memory=MI), tree).held == {"memory"}


def directories(instance: str) -> list[Path]:
    name = f"stoker-{instance}"  # walked so that other people's groups may vanish meanwhile
    return [Path(path, name) for path, names, _ in os.walk("/sys/fs/cgroup") if name in names]


async def test_without_a_limit_nothing_is_limited(limiting: ProcessDriver, bench: Bench) -> None:
    handle = await limiting.start(bench.request("sleep", "600"))
    groups = text_of(f"/proc/{handle.pid}/cgroup").splitlines()
    inside = [line for line in groups if bench.instance in line]
    assert len(inside) <= 1
    await limiting.kill(handle)
    await ended(limiting, handle)
