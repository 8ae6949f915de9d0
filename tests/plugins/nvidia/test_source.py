"""The device source: the real child on fake boxes, and children that misbehave."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import psutil
import pytest

from fakenvml.fakebox import GIB, FakeBox
from fakenvml.fixtures import fake_box, no_library
from stoker.errors import PluginError
from stoker.model.device import Inventory
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import DeviceSource, PluginContext, RefreshableSource, ReleasableSource
from stoker_nvidia.source import COMMAND, NvidiaSource, Timing, inventory_once, mps_runs

pytestmark = [pytest.mark.anyio, pytest.mark.system]

QUICK = {"period": 0.05, "idle_period": 0.05, "backoff": 0.05, "timeout": 20.0}


class Seen:
    """What was published, and waiting for it."""

    def __init__(self) -> None:
        self.all: list[Inventory] = []
        self._news = anyio.Event()

    def __call__(self, inventory: Inventory) -> None:
        self.all.append(inventory)
        self._news.set()
        self._news = anyio.Event()

    @property
    def last(self) -> Inventory:
        return self.all[-1]

    def health(self) -> list[str]:
        return [device.health for device in self.last.devices]

    async def until(self, condition, within: float = 20.0) -> Inventory:
        with anyio.fail_after(within):
            while not self.all or not condition(self.last):
                await self._news.wait()
        return self.last

    async def state(self, state: str) -> Inventory:
        return await self.until(lambda inventory: inventory.state == state)


def context(environ: dict[str, str], log: list[str] | None = None, **options) -> PluginContext:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    keep = log.append if log is not None else lambda _: None
    return PluginContext(
        instance="t",
        state_dir="/nowhere",
        runtime_dir="/nowhere",
        environ={**kept, **environ},
        options={**QUICK, **options},
        log=keep,
    )


@asynccontextmanager
async def watching(where: FakeBox | dict[str, str], *, command=COMMAND, log=None, **options):
    environ = where.environ if isinstance(where, FakeBox) else where
    seen = Seen()
    source = NvidiaSource(context(environ, log, **options), command=command)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, seen)
        try:
            yield seen
        finally:
            tasks.cancel_scope.cancel()


def children() -> list[psutil.Process]:
    living = (p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE)
    return [p for p in living if "stoker_nvidia.child" in p.cmdline()]


async def until(condition, within: float = 20.0) -> None:
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.02)


def script(code: str) -> tuple[str, ...]:
    """A child that misbehaves."""
    return (sys.executable, "-c", code)


# --- boxes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "state", "keys"),
    [
        ("8xh100", "ok", ["gpu.h100.80g"] * 8),
        ("2xt4", "ok", ["gpu.t4.16g"] * 2),
        ("a100-mig7", "ok", ["gpu.mig.1g.5gb"] * 7),
        ("mixed4", "ok", ["gpu.gtx1660super.6g", *["gpu.rtx3090.24g"] * 2, "gpu.rtx4090.24g"]),
        ("none", "none", []),
        ("nodriver", "none", []),
    ],
)
async def test_every_kind_of_box(preset, state, keys, tmp_path):
    box = fake_box(preset, tmp_path)
    found = await inventory_once(context(box.environ))
    assert found.state == state
    assert [device.type_key for device in found.devices] == keys
    assert {device.health for device in found.devices} <= {"healthy"}
    assert bool(found.reason) == (state == "none")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it_runs_on_trio_too(tmp_path):
    assert len((await inventory_once(context(fake_box("2xt4", tmp_path).environ))).devices) == 2


async def test_no_driver_library_says_so_plainly(tmp_path):
    found = await inventory_once(context(no_library(tmp_path)))
    assert found == Inventory(state="none", reason="no NVIDIA driver library (libnvidia-ml.so.1) on this box")


async def test_an_old_driver_is_read_too(tmp_path):
    box = fake_box("2xt4", tmp_path, old=True)
    box.proc(1, 4242, GIB)
    found = await inventory_once(context(box.environ))
    assert [[p.pid for p in device.processes] for device in found.devices] == [[], [4242]]


async def test_the_daemons_own_cuda_visible_devices_is_an_allow_list(tmp_path):
    box = fake_box("8xh100", tmp_path)
    wanted = f"{box.uuids[5]},2"
    found = await inventory_once(context({**box.environ, "CUDA_VISIBLE_DEVICES": wanted}))
    assert [device.uuid for device in found.devices] == [box.uuids[2], box.uuids[5]]
    found = await inventory_once(context({**box.environ, "CUDA_VISIBLE_DEVICES": ""}))
    assert (found.state, found.devices) == ("none", ())
    assert "CUDA_VISIBLE_DEVICES" in found.reason


# --- changes ----------------------------------------------------------------------------------------------


async def test_changes_are_followed(tmp_path):
    box = fake_box("2xt4", tmp_path)
    async with watching(box) as seen:
        await seen.state("ok")
        box.proc(0, 4242, GIB)
        await seen.until(lambda now: now.devices[0].processes and now.devices[0].memory_used == GIB)
        box.set(1, util_gpu=73)
        await seen.until(lambda now: now.devices[1].utilization == 0.73)
        box.unproc(4242)
        await seen.until(lambda now: not now.devices[0].processes)


async def test_a_quiet_box_is_silent(tmp_path):
    """Many questions, one word: small moves of memory and utilization do not wake the control loop."""
    box, log = fake_box("2xt4", tmp_path), tmp_path / "calls"
    environ = {**box.environ, "FAKENVML_LOG": str(log)}

    def asked() -> int:
        return log.read_text().count("nvmlDeviceGetCount_v2")

    async with watching(environ, period=0.01) as seen:
        await seen.state("ok")
        box.set(0, util_gpu=3, memory_used=30 << 20)
        before = asked()
        await until(lambda: asked() >= before + 20)
        assert len(seen.all) == 1


async def test_one_lost_gpu_costs_one_gpu_until_it_comes_back(tmp_path):
    box = fake_box("8xh100", tmp_path)
    async with watching(box) as seen:
        await seen.state("ok")
        box.lose(3)
        lost = await seen.until(lambda now: now.devices[3].health == "lost")
        assert seen.health().count("healthy") == 7
        assert lost.devices[3].uuid == box.uuids[3]
        assert lost.devices[3].health_reason == "fell off the bus"
        box.lose(3, lost=False)
        await seen.until(lambda _: seen.health() == ["healthy"] * 8)


async def test_a_removed_gpu_is_lost_and_the_others_keep_their_identity(tmp_path):
    box = fake_box("8xh100", tmp_path)
    async with watching(box) as seen:
        await seen.state("ok")
        box.remove(2)
        gone = await seen.until(lambda _: "lost" in seen.health())
        assert {device.uuid for device in gone.devices} == set(box.uuids)
        assert gone.get(box.uuids[2]).health_reason == "the driver no longer lists it"
        assert seen.health().count("healthy") == 7


async def test_a_mig_instance_that_is_destroyed_is_gone(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    async with watching(box) as seen:
        await seen.state("ok")
        with box.edit() as state:
            state["devices"][0]["mig"]["instances"].pop(3)
        await seen.until(lambda now: len(now.devices) == 6)
        assert seen.health() == ["healthy"] * 6


# --- a driver in trouble ----------------------------------------------------------------------------------


async def test_an_unloaded_driver_keeps_the_devices_and_comes_back(tmp_path):
    box = fake_box("2xt4", tmp_path)
    async with watching(box) as seen:
        await seen.state("ok")
        box.driver(loaded=False)
        away = await seen.state("unreachable")
        assert [device.uuid for device in away.devices] == box.uuids
        assert away.reason == "the NVIDIA driver is not loaded"
        box.driver(loaded=True)
        await seen.state("ok")


async def test_a_driver_that_is_loaded_later_is_found(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.driver(loaded=False)
    async with watching(box) as seen:
        assert (await seen.state("none")).reason == "the NVIDIA driver is not loaded"
        box.driver(loaded=True)
        assert len((await seen.state("ok")).devices) == 2


async def test_after_a_driver_upgrade_a_new_process_is_asked(tmp_path):
    box = fake_box("2xt4", tmp_path)
    async with watching(box) as seen:
        await seen.state("ok")
        (before,) = children()
        box.driver(loaded=False, code="LIB_RM_VERSION_MISMATCH")
        assert "different versions" in (await seen.state("unreachable")).reason
        box.driver(loaded=True)
        await seen.state("ok")
        assert before not in children()


async def test_a_hanging_call_is_an_alarm_and_its_process_is_replaced(tmp_path):
    box = fake_box("2xt4", tmp_path)
    async with watching(box, timeout=0.5, start_timeout=0.5) as seen:
        await seen.state("ok")
        (hung,) = children()
        box.hang("nvmlDeviceGetMemoryInfo*", 60_000)
        alarm = await seen.state("unreachable")
        assert alarm.reason == "the NVIDIA driver has not answered for 500ms"
        assert [device.uuid for device in alarm.devices] == box.uuids
        box.hang("nvmlDeviceGetMemoryInfo*", None)
        await seen.state("ok")
        assert not hung.is_running()


async def test_a_gpu_that_hangs_is_unreachable_and_the_others_go_on(tmp_path):
    box = fake_box("8xh100", tmp_path)
    box.proc(3, 4242, GIB)
    async with watching(box, gpu_timeout=0.3) as seen:
        before = await seen.state("ok")
        box.hang("*", 60_000, dev=3)
        await seen.until(lambda now: now.devices[3].health == "unreachable")
        box.proc(7, 4243, GIB)
        now = await seen.until(lambda now: bool(now.devices[7].processes))
        assert (now.state, now.reason) == ("ok", "")
        assert seen.health().count("healthy") == 7
        silent = now.devices[3]
        assert silent.health_reason == "it does not answer"
        assert silent.health_since is not None
        known = (before.devices[3].uuid, before.devices[3].processes, before.devices[3].memory_used)
        assert (silent.uuid, silent.processes, silent.memory_used) == known, "as it was last seen"
        assert [d.ordinal for d in now.devices] == list(range(8)), "CUDA counts it still"
        box.hang("*", None, dev=3)
        await seen.until(lambda _: seen.health() == ["healthy"] * 8)
    assert {inventory.state for inventory in seen.all} == {"ok"}


async def test_a_process_in_which_a_gpu_hangs_is_replaced_in_silence(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    with box.edit() as state:
        other = dict(state["devices"][0], uuid="GPU-other", bus="00000000:0A:00.0", mig=None)
        state["devices"].append(other)
    async with watching(box, gpu_timeout=0.2, renewal=0.5) as seen:
        await seen.state("ok")
        (first,) = children()
        box.hang("*", 60_000, dev=0)
        await seen.until(lambda _: seen.health() == ["unreachable"] * 7 + ["healthy"])
        await until(lambda: children() and first not in children())
        box.proc(1, 4243, GIB)
        await seen.until(lambda now: bool(now.devices[-1].processes))
        assert seen.health() == ["unreachable"] * 7 + ["healthy"], "the new one does not know its UUID"
        box.hang("*", None, dev=0)
        await seen.until(lambda _: seen.health() == ["healthy"] * 8)
    assert {inventory.state for inventory in seen.all} == {"ok"}


async def test_a_process_that_hangs_in_the_kernel_is_left_alone(tmp_path):
    asked = tmp_path / "asked"
    stuck = script(
        "import sys\n"
        f"asked = open({str(asked)!r}, 'a', buffering=1)\n"
        "for line in sys.stdin:\n"
        "    asked.write('x\\n')\n"
        '    print(\'{"driver":"1","gpus":[{"index":0,"hangs":900,"stuck":true},\'\n'
        '          \'{"index":1,"error":15,"text":"x"}]}\', flush=True)'
    )
    async with watching({}, command=stuck, renewal=0.01) as seen:
        now = await seen.state("ok")
        assert now.nameless == 1
        assert "GPU 0 has not answered yet" in now.reason
        before = psutil.Process().children()
        await until(lambda: asked.read_text().count("x") > 5)
        assert psutil.Process().children() == before


async def test_a_box_on_which_no_gpu_answers_is_unreachable(tmp_path):
    box = fake_box("2xt4", tmp_path)
    async with watching(box, gpu_timeout=0.2) as seen:
        await seen.state("ok")
        for number in (0, 1):
            box.hang("*", 60_000, dev=number)
        silent = await seen.state("unreachable")
        assert silent.reason == "no GPU answers the NVIDIA driver"
        assert [device.uuid for device in silent.devices] == box.uuids
        for number in (0, 1):
            box.hang("*", None, dev=number)
        await seen.state("ok")


async def test_a_gpu_that_hangs_from_the_start_is_not_taken_for_gone(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.hang("*", 60_000, dev=1)
    async with watching(box, gpu_timeout=0.2, start_timeout=0.9, timeout=20.0) as seen:
        now = await seen.state("ok")
        assert (len(now.devices), now.nameless, now.reason) == (1, 1, "GPU 1 has not answered yet")
        box.hang("*", None, dev=1)
        whole = await seen.until(lambda now: len(now.devices) == 2)
        assert (whole.nameless, whole.reason) == (0, "")


async def test_a_slow_start_is_said_and_waited_for():
    slow = script(
        "import sys, time\n"
        "for line in sys.stdin:\n"
        '    time.sleep(0.6); print(\'{"driver":"1","gpus":[]}\', flush=True); time.sleep(60)'
    )
    async with watching({}, command=slow, timeout=0.2, start_timeout=20.0) as seen:
        assert "waiting up to 20s for its start" in (await seen.state("unreachable")).reason
        await seen.state("none")


async def test_patience_is_for_the_first_answer_only():
    once = script(
        "import sys, time\n"
        'sys.stdin.readline(); print(\'{"driver":"1","gpus":[]}\', flush=True); time.sleep(60)'
    )
    async with watching({}, command=once, timeout=0.3, start_timeout=30.0) as seen:
        await seen.state("none")
        alarm = await seen.state("unreachable")
        assert alarm.reason == "the NVIDIA driver has not answered for 300ms"


async def test_a_killed_child_is_replaced_without_an_alarm_each_time(tmp_path):
    box, log = fake_box("2xt4", tmp_path), []
    async with watching(box, log=log) as seen:
        await seen.state("ok")
        for pid in (4242, 4243):
            (child,) = children()
            child.kill()
            box.proc(0, pid, GIB)
            await seen.until(lambda now: pid in [p.pid for p in now.devices[0].processes])  # noqa: B023
            assert child not in children()
    assert {inventory.state for inventory in seen.all} == {"ok"}
    line = "nvidia: the NVML process was killed by SIGKILL; asking again with a new process"
    assert log == [line, line]


async def test_a_child_that_keeps_crashing_is_an_alarm_with_its_last_words():
    broken = script("raise SystemExit('no module named pynvml')")
    async with watching({}, command=broken) as seen:
        alarm = await seen.state("unreachable")
        assert alarm.reason == "the NVML process ended with exit code 1: no module named pynvml"


async def test_a_lasting_trouble_is_logged_once(tmp_path):
    log, tries = [], tmp_path / "tries"
    broken = script(f"open({str(tries)!r}, 'a').write('x'); raise SystemExit(3)")
    async with watching({}, command=broken, log=log, backoff=0.01, max_backoff=0.01):
        await until(lambda: tries.exists() and len(tries.read_text()) > 3)
    assert log == ["nvidia: the NVML process ended with exit code 3; asking again with a new process"]


async def test_a_child_that_cannot_be_started_is_an_alarm():
    async with watching({}, command=("/nonexistent/python",)) as seen:
        assert "/nonexistent/python" in (await seen.state("unreachable")).reason


async def test_what_libraries_print_between_answers_is_skipped():
    chatty = script(
        "import sys\n"
        "for line in sys.stdin:\n"
        "    print('NVRM: something'); print('[1]'); print('{\"driver\":\"1\",\"gpus\":[]}', flush=True)"
    )
    async with watching({}, command=chatty) as seen:
        assert (await seen.state("none")).reason == "the NVIDIA driver shows no GPU"


async def test_a_flood_of_output_is_an_alarm():
    flood = script("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    async with watching({}, command=flood) as seen:
        assert "bytes in a line" in (await seen.state("unreachable")).reason


async def test_the_driver_is_let_go_for_a_while_and_taken_again(tmp_path):
    environ, seen = fake_box("2xt4", tmp_path).environ, Seen()
    source = NvidiaSource(context(environ, period=60.0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, seen)
        await seen.state("ok")
        with anyio.fail_after(20):
            await source.let_go(0.3)
        assert children() == []
        await seen.state("unreachable")
        assert "is let go" in seen.last.reason
        assert (len(seen.last.devices), seen.last.resting) == (2, True)
        assert (await seen.state("ok")).resting is False
        tasks.cancel_scope.cancel()


async def test_sharers_are_bounded_where_the_operators_mps_runs(tmp_path):
    box, pipes = fake_box("2xt4", tmp_path), tmp_path / "mps"
    pipes.mkdir()
    environ = {**box.environ, "CUDA_MPS_PIPE_DIRECTORY": str(pipes)}
    argv = ["nvidia-cuda-mps-control", "-c", "import time; time.sleep(60)"]
    control = subprocess.Popen(argv, executable=sys.executable)
    try:
        assert not mps_runs(environ)
        (pipes / "nvidia-cuda-mps-control.pid").write_text(f"{control.pid}\n")
        await until(lambda: mps_runs(environ))
        found = await inventory_once(context(environ))
        assert [device.limits for device in found.devices] == ["mps", "mps"]
        (pipes / "nvidia-cuda-mps-control.pid").write_text(f"{os.getpid()}\n")
        assert not mps_runs(environ), "the pid of another program"
    finally:
        control.kill()
        control.wait(timeout=10)


async def test_no_child_is_left_behind(tmp_path):
    async with watching(fake_box("2xt4", tmp_path)) as seen:
        await seen.state("ok")
        (child,) = children()
    assert not child.is_running()


async def test_a_refresh_looks_now_and_returns_when_that_was_told(tmp_path):
    box = fake_box("2xt4", tmp_path)
    seen = Seen()
    source = NvidiaSource(context(box.environ, **{**QUICK, "period": 3600.0}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, seen)
        await seen.state("ok")
        box.proc(1, pid=os.getpid(), mem=GIB)
        with anyio.fail_after(20):
            await source.refresh()
        assert [len(device.processes) for device in seen.last.devices] == [0, 1]
        tasks.cancel_scope.cancel()


# --- the plugin -------------------------------------------------------------------------------------------


def test_the_plugin_brings_a_device_source():
    registry = PluginRegistry()
    registry.load()
    source = registry.factory("device source", "nvidia")(context({}))
    assert isinstance(source, DeviceSource)
    assert isinstance(source, RefreshableSource)
    assert isinstance(source, ReleasableSource)


@pytest.mark.parametrize("value", [0, -1, "soon", float("inf"), None])
def test_options_that_are_no_seconds_are_refused(value):
    with pytest.raises(PluginError, match="option period of device source nvidia"):
        NvidiaSource(context({}, period=value))


def test_the_defaults():
    assert Timing.of({}) == Timing(period=5.0, timeout=10.0)
