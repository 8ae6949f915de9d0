"""The fake parts keep the contracts of the real ones."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import stoker_fake.plugin
from stoker.errors import PluginError, WorkerError
from stoker.model.device import Inventory
from stoker.model.load import LoadSample
from stoker.model.service import Probe
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import (
    DeviceSource,
    PluginContext,
    Prober,
    Router,
    StartRequest,
    WorkerDriver,
)
from stoker_fake import (
    FakeBox,
    FakeDevices,
    FakeDriver,
    FakePlugin,
    FakeProber,
    FakeRouter,
    RequestRefusedError,
    Script,
    fake_devices,
)

pytestmark = pytest.mark.anyio
WEB = "app/web"


def a_start(replica: str = "web-a", *argv: str) -> StartRequest:
    return StartRequest(
        replica=replica,
        service=WEB,
        mark=f"me:{WEB}:{replica}",
        argv=("fake", *argv),
        environ={},
        working_dir="/",
        log_path="",
        endpoint="127.0.0.1:1",
    )


class Heard:
    """Collects what a router calls back."""

    def __init__(self) -> None:
        self.samples: list[LoadSample] = []
        self.demands: list[float] = []
        self.drained_ids: list[tuple[str, float]] = []
        self.addresses: list[str] = []

    def sample(self, sample: LoadSample) -> None:
        self.samples.append(sample)

    def demand(self, service: str) -> None:
        self.demands.append(anyio.current_time())

    def drained(self, replica: str) -> None:
        self.drained_ids.append((replica, anyio.current_time()))

    def bound(self, service: str, host: str, port: int) -> None:
        self.addresses.append(service)

    def trouble(self, service: str, message: str) -> None:
        raise AssertionError(message)


def routing(*workers: WorkerRoute, **changes: Any) -> RoutingTable:
    return RoutingTable(routes={WEB: Route(service=WEB, host="h", port=1, workers=workers, **changes)})


# --- script -----------------------------------------------------------------------------------------------


async def test_a_script_is_read_from_a_command() -> None:
    words = ["fake", "exit_after=30", "exit_code=3", "stop_after=never", "permanent=true", "--port=7"]
    assert Script.parse(words) == Script(exit_after=30, exit_code=3, stop_after=None, permanent=True)


async def test_a_word_that_cannot_be_read_is_said_plainly() -> None:
    with pytest.raises(WorkerError, match=r"exit_after='soon'; it knows .*start_delay"):
        Script.parse(["exit_after=soon"])


# --- driver -----------------------------------------------------------------------------------------------


async def test_the_parts_have_the_shape_of_their_ports() -> None:
    box = FakeBox()
    assert isinstance(FakeDriver(box), WorkerDriver)
    assert isinstance(FakeDevices(box), DeviceSource)
    assert isinstance(FakeRouter(box), Router)
    assert isinstance(FakeProber(box), Prober)


async def test_a_worker_ends_as_its_script_says() -> None:
    driver = FakeDriver(FakeBox())
    handle = await driver.start(a_start("web-a", "start_delay=2", "exit_after=30", "exit_code=3"))
    assert anyio.current_time() == 2
    status = await driver.wait(handle)
    assert (status.code, anyio.current_time()) == (3, 32)


async def test_a_signal_ends_it_in_its_own_time_and_a_kill_at_once() -> None:
    box = FakeBox()
    driver = FakeDriver(box)
    slow = await driver.start(a_start("web-a", "stop_after=5"))
    deaf = await driver.start(a_start("web-b", "stop_after=never"))
    await driver.signal(slow, 15)
    await driver.signal(deaf, 15)
    assert (await driver.wait(slow)).code == 0
    assert anyio.current_time() == 5
    assert [worker.request.replica for worker in box.living()] == ["web-b"]
    await driver.kill(deaf)
    assert (await driver.wait(deaf)).signal == 9
    await driver.signal(deaf, 15)
    await driver.kill(deaf)


async def test_a_start_that_fails_names_its_reason() -> None:
    box = FakeBox()
    box.behave(WEB, Script(start_error="no such command", permanent=True), Script())
    driver = FakeDriver(box)
    with pytest.raises(WorkerError, match="no such command") as caught:
        await driver.start(a_start())
    assert caught.value.permanent
    await driver.start(a_start())
    await driver.start(a_start("web-b"))
    assert len(box.living()) == 2


async def test_the_next_driver_finds_what_lives() -> None:
    box = FakeBox()
    first = FakeDriver(box)
    kept = await first.start(a_start("web-a"))
    await first.start(a_start("web-b", "exit_after=1"))
    await anyio.sleep(2)
    second = FakeDriver(box)
    (found,) = await second.find()
    assert (await second.recover(found), found.mark) == (kept, f"me:{WEB}:web-a")
    box.end("web-a", signal=9, detail="out of memory")
    assert str(await second.wait(kept)) == "killed by SIGKILL; last in its log: out of memory"


async def test_a_lost_worker_makes_the_driver_say_so() -> None:
    box = FakeBox()
    driver = FakeDriver(box)
    handle = await driver.start(a_start())
    box.lose("web-a", "the host does not answer")
    with pytest.raises(WorkerError, match="the host does not answer"):
        await driver.wait(handle)


async def test_usage_is_what_the_script_says() -> None:
    driver = FakeDriver(FakeBox())
    handle = await driver.start(a_start("web-a", "cpu=0.5", "memory=1000"))
    usage = (await driver.usage([handle]))[handle.pid]
    assert (usage.cpu, usage.memory) == (0.5, 1000)


# --- prober and devices -----------------------------------------------------------------------------------


async def test_a_worker_refuses_then_answers_then_hangs() -> None:
    box = FakeBox()
    handle = await FakeDriver(box).start(a_start("web-a", "ready_after=5", "hang_after=10"))
    prober, probe = FakeProber(box), Probe(http="/", timeout=2)
    assert not (await prober.ask(probe, "h:1", handle)).ok
    await anyio.sleep(5)
    assert (await prober.ask(probe, "h:1", handle)).ok
    await anyio.sleep(5)
    assert not (await prober.ask(probe, "h:1", handle)).ok
    assert anyio.current_time() == 12, "a worker that hangs costs the probe its timeout"


async def test_devices_are_published_at_first_and_at_each_change() -> None:
    box = FakeBox(fake_devices(2))
    heard: list[Inventory] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(FakeDevices(box).run, heard.append)
        await anyio.sleep(1)
        box.publish(fake_devices(1))
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert [len(inventory.devices) for inventory in heard] == [2, 1]


async def test_a_box_without_devices_says_so() -> None:
    heard: list[Inventory] = []
    with anyio.move_on_after(60):
        await FakeDevices(FakeBox()).run(heard.append)
    assert [inventory.state for inventory in heard] == ["none"]


# --- router -----------------------------------------------------------------------------------------------


async def test_requests_take_slots_in_order_and_are_measured_exactly() -> None:
    box, heard = FakeBox(), Heard()
    router = FakeRouter(box)
    await FakeDriver(box).start(a_start())
    await router.apply(routing(WorkerRoute(id="web-a", endpoint="h:1", concurrency=1)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run, heard)
        async with anyio.create_task_group() as clients:
            clients.start_soon(router.request, WEB, 2.5)
            clients.start_soon(router.request, WEB, 2.5)
        assert anyio.current_time() == 5
        await anyio.sleep(60)
        tasks.cancel_scope.cancel()
    assert sum(sample.in_flight_seconds for sample in heard.samples) == pytest.approx(5)
    assert sum(sample.queued_seconds for sample in heard.samples) == pytest.approx(2.5)
    assert sum(sample.completions for sample in heard.samples) == 2
    assert sum(sample.service_seconds for sample in heard.samples) == pytest.approx(5)
    assert sum(sample.wait_seconds for sample in heard.samples) == pytest.approx(2.5)
    assert heard.samples[-1].end < 10, "nothing is sent at rest"
    assert (heard.samples[-1].in_flight, heard.samples[-1].arrivals) == (0, 0)


async def test_a_request_at_zero_replicas_waits_and_asks_for_one() -> None:
    box, heard = FakeBox(), Heard()
    router = FakeRouter(box)
    await router.apply(routing())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run, heard)
        await anyio.sleep(1)
        tasks.start_soon(router.request, WEB, 1)
        await anyio.sleep(9)
        await FakeDriver(box).start(a_start())
        await router.apply(routing(WorkerRoute(id="web-a", endpoint="h:1")))
        await anyio.sleep(2)
        tasks.cancel_scope.cancel()
    assert heard.demands == [1]
    assert (router.answered, router.longest_wait) == (1, 9)


async def test_draining_finishes_first_and_is_told_once() -> None:
    box, heard = FakeBox(), Heard()
    router = FakeRouter(box, drain_delay=0.5)
    await FakeDriver(box).start(a_start())
    await router.apply(routing(WorkerRoute(id="web-a", endpoint="h:1")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run, heard)
        tasks.start_soon(router.request, WEB, 4)
        await anyio.sleep(1)
        await router.apply(routing(WorkerRoute(id="web-a", endpoint="h:1", draining=True)))
        await anyio.sleep(20)
        tasks.cancel_scope.cancel()
    assert heard.drained_ids == [("web-a", 4.5)]
    assert (router.answered, router.cut) == (1, 0)


async def test_a_request_under_a_dying_worker_is_repeated_on_another() -> None:
    box = FakeBox()
    router, driver = FakeRouter(box), FakeDriver(box)
    await driver.start(a_start("web-a"))
    await driver.start(a_start("web-b"))
    both = [WorkerRoute(id=name, endpoint="h:1", concurrency=1) for name in ("web-a", "web-b")]
    await router.apply(routing(*both))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.request, WEB, 5)
        await anyio.sleep(1)
        box.end("web-a", signal=9)
    assert (router.answered, router.cut, anyio.current_time()) == (1, 1, 6)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (RoutingTable(), "there is no such service"),
        (routing(held="service web is stopped by the operator"), "stopped by the operator"),
        (routing(max_queue=0), "the queue is full"),
        (routing(timeout=5), "no worker of app/web became free in 5 s"),
    ],
)
async def test_a_request_is_refused_with_the_reason(table: RoutingTable, message: str) -> None:
    router = FakeRouter(FakeBox())
    await router.apply(table)
    with pytest.raises(RequestRefusedError, match=message):
        await router.request(WEB, 1)
    assert router.refused == 1


# --- plugin -----------------------------------------------------------------------------------------------


def context(**environ: str) -> PluginContext:
    return PluginContext(instance="me", state_dir="/x", runtime_dir="/x", environ=environ)


def registry() -> PluginRegistry:
    found = PluginRegistry()
    found.register("fake", stoker_fake.plugin)
    return found


async def test_the_plugin_brings_its_parts_through_the_door() -> None:
    assert registry().names("driver") == registry().names("router") == ["fake"]
    driver = registry().factory("driver", "fake")(context())
    handle = await driver.start(a_start("web-a", "exit_after=1", "exit_code=2"))
    assert (await driver.wait(handle)).code == 2
    assert isinstance(registry().factory("router", "fake")(context()), Router)


async def test_the_plugin_around_one_box_declares_the_same_hooks() -> None:
    for hook in ("stoker_worker_drivers", "stoker_device_sources", "stoker_routers"):
        assert callable(getattr(stoker_fake.plugin, hook))
        assert list(getattr(FakePlugin(FakeBox()), hook)()) == ["fake"]


async def test_the_number_of_devices_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOKER_FAKE_DEVICES", raising=False)
    assert registry().names("device source") == []
    monkeypatch.setenv("STOKER_FAKE_DEVICES", "8")
    make = registry().factory("device source", "fake")
    heard: list[Inventory] = []
    with anyio.move_on_after(1):
        await make(context(STOKER_FAKE_DEVICES="8")).run(heard.append)
    assert [len(inventory.devices) for inventory in heard] == [8]
    with pytest.raises(PluginError, match="'many' must be the number of fake GPUs"):
        make(context(STOKER_FAKE_DEVICES="many"))
