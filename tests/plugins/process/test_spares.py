"""Births that have begun before their order: used, given up, lost; nothing is left of them."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from plugins.process.test_spawner import forkservers, running_forkserver
from stoker.plugin.ports import ExpectantDriver
from stoker.plugin.testing.driver_bench import Bench, descriptors, ended, own_zombies, running, text_of, until
from stoker_process import births
from stoker_process.cgroups import CgroupTrees
from stoker_process.driver import ProcessDriver

pytestmark = [pytest.mark.anyio, pytest.mark.system]


@pytest.fixture
def v2(cgroups: ProcessDriver) -> ProcessDriver:
    if "v1" in cgroups.description:
        pytest.skip("births are prepared where they happen in cgroups of v2")
    return cgroups


async def parked() -> int:
    """The child that waits for its order."""
    server = await running_forkserver()
    await until(lambda: len(forkservers()) == 2, "the parked child")
    return next(pid for pid in forkservers() if pid != server)


async def test_a_prepared_birth_is_what_is_asked_for(v2: ProcessDriver, bench: Bench) -> None:
    assert isinstance(v2, ExpectantDriver)
    request = bench.request("sh", "-c", "pwd; cat /proc/self/cgroup; exit 7", working_dir="/")
    async with anyio.create_task_group() as tasks:
        await running_forkserver()
        tasks.start_soon(v2.expect, request.replica)
        child = await parked()
        handle = await v2.start(request)
        assert handle.pid == child
        assert (await ended(v2, handle)).code == 7
        tasks.cancel_scope.cancel()
    lines = text_of(request.log_path).splitlines()
    assert lines[0] == "/"
    assert any(line.endswith(f"/{Path(dict(handle.extra)['cgroup']).name}") for line in lines[1:])
    assert os.path.exists(dict(handle.extra)["cgroup"]) is False


async def test_what_is_not_asked_for_in_time_is_given_up(
    v2: ProcessDriver, trees: CgroupTrees, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(births, "IN_TIME", 2.0)
    await running_forkserver()
    before = descriptors()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(v2.expect, "web-1")
        child = await parked()
    assert not running(child)
    assert child not in own_zombies()
    assert descriptors() == before
    assert not list(trees.home.glob("*/")) if trees.home.exists() else True
    status, _ = await bench.run(v2, bench.request("sh", "-c", "exit 3"))
    assert status.code == 3, "its late answer is not taken for that of another"


@pytest.mark.parametrize("victim", ["child", "server"])
async def test_one_that_is_lost_costs_nothing(v2: ProcessDriver, bench: Bench, victim: str) -> None:
    request = bench.request("sh", "-c", "exit 5")
    server = await running_forkserver()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(v2.expect, request.replica)
        child = await parked()
        pid = child if victim == "child" else server
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not running(pid), "its end")
        if victim == "child":
            status, _ = await bench.run(v2, request)
            assert status.code == 5
        else:  # nobody can tell what became of it: told as such, and tried again
            with pytest.raises(births.WorkerError, match="will be tried again"):
                await v2.start(request)
            assert not running(child)
            assert (await bench.run(v2, request))[0].code == 5
        tasks.cancel_scope.cancel()
    assert child not in own_zombies()


async def test_a_start_that_fails_leaves_nothing_of_what_was_prepared(
    v2: ProcessDriver, trees: CgroupTrees, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(births, "IN_TIME", 2.0)
    request = bench.request("sh", "-c", "exit 5", user="nobody", tmp_dir="/dev/null/not")
    await running_forkserver()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(v2.expect, request.replica)
        child = await parked()
        with pytest.raises(births.WorkerError):
            await v2.start(request)
    assert not running(child)
    assert child not in own_zombies()
    assert not (trees.home / request.replica).exists()
