"""Workers on a real cluster: isolated, adopted, and given up with their node."""

import json
import os
import signal
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from stoker.model.replica import ExitStatus
from stoker.model.service import Elsewhere, Resources
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver_bench import Bench, running

pytestmark = [pytest.mark.system, pytest.mark.anyio, pytest.mark.timeout(400)]
LIMIT = 90.0


@pytest.fixture
async def bench(anyio_backend: str, tmp_path: Path, ray_cluster):
    options = {"address": ray_cluster.address, "environ": ray_cluster.environ, "patience": 60, "finding": 120}
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    return Bench(tmp_path, factory="stoker_ray.driver:RayDriver", options=options, environ=environ)


async def over(driver: WorkerDriver, handle) -> ExitStatus:
    with anyio.fail_after(LIMIT):
        return await driver.wait(handle)


async def test_a_life_on_a_node(bench: Bench) -> None:
    """Environment, GPUs as Ray gives them, output, exit code, a full tree killed, a command that is none."""
    async with aclosing(bench.driver()) as driver:
        needing = Elsewhere(resources=Resources(gpu=1))
        request = replace(bench.request("sh", "-c", "env; echo last; exit 7"), elsewhere=needing)
        status = await over(driver, await driver.start(request))
        assert status == ExitStatus(code=7, detail="last")
        seen = dict(
            line.split("=", 1) for line in Path(request.log_path).read_text().splitlines() if "=" in line
        )
        assert seen.pop("CUDA_VISIBLE_DEVICES") in ("0", "1")
        assert seen.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == request.environ.keys() - {
            "CUDA_VISIBLE_DEVICES"
        }

        handle, _ = await bench.start_tree(driver)
        family = await bench.family()
        usage = await driver.usage([handle])
        assert usage[handle.pid].memory > 1_000_000
        await driver.kill(handle)
        assert await over(driver, handle) == ExitStatus(signal=signal.SIGKILL)
        assert {name for name, pid in family.items() if running(pid)} == set()

        with pytest.raises(Exception, match="no-such-tool"):
            await driver.start(bench.request("no-such-tool"))


async def test_a_new_daemon_takes_over_and_output_goes_on(bench: Bench) -> None:
    go = bench.directory / "go"
    words = f"echo one; while [ ! -e {go} ]; do sleep 0.1; done; echo two; exec sleep 600"
    request = bench.request("sh", "-c", words)
    async with aclosing(bench.driver()) as first:
        handle = await first.start(request)
        with anyio.fail_after(LIMIT):
            while Path(request.log_path).read_text() != "one\n":
                await anyio.sleep(0.05)
    go.touch()
    async with aclosing(bench.driver()) as heir:
        [found] = await heir.find()
        assert (found.mark, found.handle.pid) == (request.mark, handle.pid)
        taken = await heir.recover(found)
        await heir.signal(taken, signal.SIGTERM)
        assert await over(heir, taken) == ExitStatus(signal=signal.SIGTERM)
        assert await heir.find() == []
    assert Path(request.log_path).read_text() == "one\ntwo\n"


async def test_a_worker_is_lost_with_its_node_and_its_processes_end(bench: Bench, ray_cluster) -> None:
    await anyio.to_thread.run_sync(ray_cluster.tell, "add")
    async with aclosing(bench.driver()) as driver:
        request = replace(bench.request("sleep", "600"), elsewhere=Elsewhere(custom=(("node0", 1.0),)))
        handle = await driver.start(request)
        await anyio.to_thread.run_sync(ray_cluster.tell, "kill 0")
        status = await over(driver, handle)
        assert status.code is None
        assert "lost" in status.detail
        with anyio.fail_after(LIMIT):
            while running(handle.pid):
                await anyio.sleep(0.05)
        assert await driver.find() == []


def test_the_bridge_ends_with_its_daemon() -> None:
    """Nothing of the tests above has stayed: neither bridges nor guards."""
    left = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stoker_ray.bridge" in words and os.getpid() == _parent(int(path.parent.name)):
            left.append(words)
    assert left == [], json.dumps([str(one) for one in left])


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
