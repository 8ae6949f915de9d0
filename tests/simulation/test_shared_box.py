"""Services that compete for one box, through the real control loop: by priority, by load, at a loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from simulated import SimulatedDaemon, Simulation, load
from stoker.model.event import Notice, StartRequested, TargetChanged
from stoker.model.service import PolicySpec, Scaling, ServiceSpec, Traffic
from stoker_fake import FakeBox, Script, fake_devices
from worlds import make_spec, wanting

pytestmark = pytest.mark.anyio

GPUS = 6


def gpu_service(name: str, low: int = 1, high: int = 6, *, priority: int = 0) -> ServiceSpec:
    """A service whose replicas take one request at a time, with a quick policy."""
    rule = PolicySpec(target=1, scale_down_stabilization_window=20, params=(("window", 10.0),))
    return make_spec(
        name,
        backend="fake",
        gpu=1,
        scaling=Scaling(min_replicas=low, max_replicas=high, policies=(rule,)),
        traffic=Traffic(concurrency=1, timeout=1000),
        priority=priority,
    )


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    made = Simulation(tmp_path, FakeBox(fake_devices(GPUS)))
    made.box.behave("app/a", Script(ready_after=2))
    made.box.behave("app/b", Script(ready_after=2))
    return made


def ready(daemon: SimulatedDaemon) -> tuple[int, int]:
    return len(daemon.ready("app/a")), len(daemon.ready("app/b"))


async def test_the_higher_priority_takes_the_box_and_gives_it_back(simulation: Simulation) -> None:
    a, b = gpu_service("a"), gpu_service("b", priority=10)
    async with simulation.daemon(wanting(a, b)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: bool(daemon.ready("app/a")), within=10)
        tasks.start_soon(lambda: load(simulation.router, a.key, rate=5, seconds=0.9, lasting=200))
        await daemon.until(lambda: ready(daemon) == (5, 1), within=60)
        async with anyio.create_task_group() as more:
            more.start_soon(lambda: load(simulation.router, b.key, rate=4, seconds=0.9, lasting=60))
            await daemon.until(lambda: ready(daemon)[1] >= 4, within=40)
            assert "held by b (priority 10)" in daemon.autoscaler.decisions()[a.key].reason
        await daemon.until(lambda: ready(daemon)[0] >= 4, within=120)
        assert simulation.router.cut == 0


async def test_equals_share_and_the_load_moves_the_box(simulation: Simulation) -> None:
    a, b = gpu_service("a"), gpu_service("b")
    async with simulation.daemon(wanting(a, b)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: bool(daemon.ready("app/a")), within=10)
        tasks.start_soon(lambda: load(simulation.router, a.key, rate=8, seconds=0.9, lasting=90))
        await daemon.until(lambda: ready(daemon) == (5, 1), within=60)
        await anyio.sleep(40)
        tasks.start_soon(lambda: load(simulation.router, b.key, rate=8, seconds=0.9, lasting=110))
        began = anyio.current_time()
        await daemon.until(lambda: ready(daemon)[1] >= 2, within=80)
        await daemon.until(lambda: ready(daemon)[1] == 5, within=300)
        moves = [e for e in daemon.watch.events if isinstance(e, TargetChanged) and e.at > began]
        # One at a time while both are short, the rest when the load has moved: no seesaw.
        assert sum(e.target > e.before for e in moves if e.service == a.key) <= 1
        assert simulation.router.cut == 0


async def test_a_service_at_zero_gets_its_first_replica_from_who_has_more(simulation: Simulation) -> None:
    a, b = gpu_service("a"), gpu_service("b", low=0)
    async with simulation.daemon(wanting(a, b)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: bool(daemon.ready("app/a")), within=10)
        tasks.start_soon(lambda: load(simulation.router, a.key, rate=10, seconds=0.9, lasting=120))
        await daemon.until(lambda: ready(daemon) == (6, 0), within=60)
        began = anyio.current_time()
        await simulation.router.request(b.key, 1.0)
        assert anyio.current_time() - began < 10


async def test_guarantees_beyond_the_box_wait_in_sight_and_disturb_nobody(simulation: Simulation) -> None:
    a, b = gpu_service("a", 4, 4), gpu_service("b", 4, 4, priority=1)
    async with simulation.daemon(wanting(a, b)) as daemon:
        await daemon.until(lambda: ready(daemon) == (2, 4), within=30)
        waiting = [r for r in daemon.state.of(a.key) if r.phase == "pending"]
        assert len(waiting) == 2
        assert all("needs 1 whole GPU" in r.reason for r in waiting)
        count = len(daemon.watch.events)
        await anyio.sleep(3600)
        assert daemon.watch.events[count:] == []


async def test_a_box_whose_driver_is_away_keeps_its_targets_and_runs_what_needs_none(tmp_path: Path) -> None:
    box = FakeBox(replace(fake_devices(0), state="none", reason="no driver"))
    simulation = Simulation(tmp_path, box)
    a, web = gpu_service("a", 2), make_spec("web", backend="fake", replicas=(1, 2))
    async with simulation.daemon(wanting(a, web)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(web.key)), within=5)
        assert daemon.phases(a.key) == ["pending", "pending"]
        box.publish(fake_devices(3))
        await daemon.until(lambda: len(daemon.ready(a.key)) == 2, within=10)


async def test_a_dead_daemons_scale_is_kept_by_the_next_though_devices_are_told_late(
    simulation: Simulation,
) -> None:
    a = gpu_service("a")
    async with simulation.daemon(wanting(a)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: bool(daemon.ready("app/a")), within=10)
        tasks.start_soon(lambda: load(simulation.router, a.key, rate=5, seconds=0.9, lasting=30))
        await daemon.until(lambda: len(daemon.ready(a.key)) == 5, within=60)
    devices = simulation.box.inventory
    simulation.box.publish(replace(devices, state="none", devices=(), reason="not asked yet"))
    async with simulation.daemon(wanting(a)) as daemon:
        await anyio.sleep(1)
        assert len(daemon.ready(a.key)) == 5
        simulation.box.publish(devices)
        await anyio.sleep(5)
        assert len(daemon.ready(a.key)) == 5


async def test_overload_is_said_once(simulation: Simulation) -> None:
    a = gpu_service("a", high=10)
    async with simulation.daemon(wanting(a)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: bool(daemon.ready("app/a")), within=10)
        tasks.start_soon(lambda: load(simulation.router, a.key, rate=12, seconds=0.9, lasting=60))
        await daemon.until(lambda: len(daemon.ready(a.key)) == 6, within=60)
        await anyio.sleep(40)
        said = [e.message for e in daemon.watch.events if isinstance(e, Notice) and "overloaded" in e.message]
        assert len(said) == 1
        assert "the box gives 6;" in said[0]


async def test_a_draining_replica_comes_back_before_a_new_one_is_started(simulation: Simulation) -> None:
    a = gpu_service("a", 2, 2)
    async with simulation.daemon(wanting(a)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: len(daemon.ready(a.key)) == 2, within=10)
        for _ in range(2):
            tasks.start_soon(simulation.router.request, a.key, 20.0)
        await anyio.sleep(1)
        daemon.change(gpu_service("a", 1, 1))
        await daemon.until(lambda: sorted(daemon.phases(a.key)) == ["draining", "ready"], within=5)
        daemon.change(a)
        await daemon.until(lambda: len(daemon.ready(a.key)) == 2, within=1)
        assert len(simulation.box.started) == 2
        async with anyio.create_task_group() as more:
            more.start_soon(simulation.router.request, a.key, 0.5)
            more.start_soon(simulation.router.request, a.key, 0.5)
        await anyio.sleep(60)
        assert daemon.phases(a.key) == ["ready", "ready"]
        assert (simulation.router.cut, simulation.router.refused) == (0, 0)


async def test_a_share_moves_elsewhere_for_a_whole_gpu_and_no_request_is_lost(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, FakeBox(fake_devices(2)))
    a, b, c = (make_spec(name, backend="fake", gpu=0.5, traffic=Traffic(concurrency=2)) for name in "abc")
    whole = make_spec("whole", backend="fake", gpu=1)
    for spec in (a, b, c):
        simulation.box.behave(spec.key, Script(ready_after=5))
    async with simulation.daemon(wanting(a, c)) as daemon, anyio.create_task_group() as tasks:
        await daemon.until(lambda: bool(daemon.ready(a.key) and daemon.ready(c.key)), within=60)
        daemon.change(b)
        await daemon.until(lambda: bool(daemon.ready(b.key)), within=60)
        daemon.change(replace(c, held=True))
        await daemon.until(lambda: not daemon.state.of(c.key), within=60)
        where = [daemon.ready(spec.key)[0].reservations[0].uuid for spec in (a, b)]
        assert len(set(where)) == 2, "one share on each device"
        for spec in (a, b):
            tasks.start_soon(load_of, simulation, spec.key)
        daemon.change(whole)
        await daemon.until(lambda: bool(daemon.ready(whole.key)), within=60)
        assert len(daemon.ready(a.key)) == len(daemon.ready(b.key)) == 1
        assert len({daemon.ready(spec.key)[0].reservations[0].uuid for spec in (a, b)}) == 1
        await anyio.sleep(60)
        assert (simulation.router.cut, simulation.router.refused) == (0, 0)
        assert len(starts_of(daemon)) == 5, "one move, and nothing more"


async def load_of(simulation: Simulation, service: str) -> None:
    await load(simulation.router, service, rate=2, seconds=0.5, lasting=60)


def starts_of(daemon: SimulatedDaemon) -> list[StartRequested]:
    return [event for event in daemon.watch.events if isinstance(event, StartRequested)]
