"""The real control loop through hours of virtual time: what a service lives through, law by law."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from simulated import SimulatedDaemon, Simulation, load
from stoker.decide.health import PROBATION
from stoker.model.event import ReplicaBecameReady, StartRequested, WorkerExited
from stoker.model.service import Drain, Probe, Probes, Restart, Traffic, Update
from stoker_fake import FakeBox, RequestRefusedError, Script, fake_devices
from worlds import make_spec, wanting

pytestmark = pytest.mark.anyio

WEB = make_spec("web", backend="fake", replicas=(1, 4), traffic=Traffic(concurrency=2))
INFER = make_spec("infer", backend="fake", gpu=1, replicas=(2, 2), drain=Drain(timeout=30, grace=10))
HTTP = Probe(http="/readyz")


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path, FakeBox(fake_devices(2)))


def starts(daemon: SimulatedDaemon, service: str = "") -> list[StartRequested]:
    found = [event for event in daemon.watch.events if isinstance(event, StartRequested)]
    return [event for event in found if service in ("", event.service)]


def all_ready(daemon: SimulatedDaemon, count: int) -> bool:
    """Whether there are exactly that many replicas, and all are ready."""
    return [replica.phase for replica in daemon.state.replicas.values()] == ["ready"] * count


async def test_pools_come_up_and_a_quiet_hour_changes_nothing(simulation: Simulation) -> None:
    async with simulation.daemon(wanting(WEB, INFER)) as daemon:
        took = await daemon.until(
            lambda: len(daemon.ready(INFER.key)) == 2 and bool(daemon.ready(WEB.key)), within=5
        )
        assert took < 1
        count = len(daemon.watch.events)
        await anyio.sleep(3600)
        assert daemon.watch.events[count:] == []


async def test_a_pool_grows_under_load_and_shrinks_after_it_without_harming_a_request(
    simulation: Simulation,
) -> None:
    spec = replace(WEB, scaling=replace(WEB.scaling, max_replicas=4))
    simulation.box.behave(spec.key, Script(ready_after=5))
    async with simulation.daemon(wanting(spec)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(spec.key)), within=10)
        await load(simulation.router, spec.key, rate=5, seconds=1, lasting=120)
        assert len(daemon.ready(spec.key)) >= 3
        await daemon.until(lambda: len(daemon.state.replicas) == 1, within=600)
        assert (simulation.router.cut, simulation.router.refused) == (0, 0)
        assert simulation.router.answered == 600


async def test_a_request_wakes_a_service_from_zero_and_it_sleeps_again(simulation: Simulation) -> None:
    spec = replace(WEB, scaling=replace(WEB.scaling, min_replicas=0))
    simulation.box.behave(spec.key, Script(ready_after=20))
    async with simulation.daemon(wanting(spec)) as daemon:
        await anyio.sleep(1)
        assert daemon.state.replicas == {}
        began = anyio.current_time()
        await simulation.router.request(spec.key, 0.5)
        assert 20 <= anyio.current_time() - began < 22
        await daemon.until(lambda: not daemon.state.replicas, within=1800)
        await simulation.router.request(spec.key, 0.5)
        assert len(starts(daemon)) == 2
        assert (simulation.router.cut, simulation.router.refused) == (0, 0)


async def test_a_hung_start_is_ended_and_tried_again(simulation: Simulation) -> None:
    spec = replace(WEB, probes=Probes(startup=HTTP, startup_timeout=60))
    simulation.box.behave(spec.key, Script(ready_after=None), Script(ready_after=1))
    async with simulation.daemon(wanting(spec)) as daemon:
        took = await daemon.until(lambda: bool(daemon.ready(spec.key)), within=120)
        assert 60 <= took < 65
        (replica,) = daemon.state.replicas.values()
        assert (replica.restarts, len(starts(daemon))) == (1, 2)


async def test_a_hung_start_that_ignores_the_signal_is_killed(simulation: Simulation) -> None:
    spec = replace(WEB, probes=Probes(startup=HTTP, startup_timeout=60), drain=Drain(grace=10))
    simulation.box.behave(spec.key, Script(ready_after=None, stop_after=None), Script())
    async with simulation.daemon(wanting(spec)) as daemon:
        took = await daemon.until(lambda: bool(daemon.ready(spec.key)), within=120)
        assert 70 <= took < 75
        assert len(simulation.box.living()) == 1


async def test_a_spawn_that_never_returns_does_not_hold_up_others(simulation: Simulation) -> None:
    simulation.box.behave(WEB.key, Script(start_delay=1e6))
    async with simulation.daemon(wanting(WEB, INFER)) as daemon:
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=1)


async def test_a_crash_loop_slows_down_and_recovers_by_itself(simulation: Simulation) -> None:
    spec = replace(WEB, restart=Restart(backoff=1, max_backoff=60, crash_loop=5))
    simulation.box.behave(spec.key, Script(exit_after=0.5, exit_code=1, exit_detail="no weights"))
    async with simulation.daemon(wanting(spec)) as daemon:
        await anyio.sleep(3600)
        assert 55 < len(starts(daemon)) < 80
        (replica,) = daemon.state.replicas.values()
        assert replica.failures > 50
        simulation.box.behave(spec.key, Script())
        await daemon.until(lambda: bool(daemon.ready(spec.key)), within=70)
        simulation.box.end(replica.id, code=1)
        await anyio.sleep(120)
        assert daemon.phases(spec.key) == ["ready"]


async def test_a_corrected_configuration_does_not_wait_for_the_backoff(simulation: Simulation) -> None:
    simulation.box.behave(WEB.key, Script(start_error="command not found: srve", permanent=True))
    async with simulation.daemon(wanting(WEB)) as daemon:
        await anyio.sleep(5)
        (replica,) = daemon.state.replicas.values()
        assert replica.reason == "cannot start: command not found: srve; next try in 1m"
        simulation.box.behave(WEB.key, Script())
        daemon.change(replace(WEB, envs=(("FIXED", "1"),)))
        assert await daemon.until(lambda: bool(daemon.ready(WEB.key)), within=5) < 1


async def test_a_killed_worker_is_replaced_at_once_and_its_request_repeated(simulation: Simulation) -> None:
    async with simulation.daemon(wanting(WEB)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(WEB.key)), within=5)
        await anyio.sleep(60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(simulation.router.request, WEB.key, 10)
            await anyio.sleep(1)
            (first,) = simulation.box.living()
            simulation.box.end(first.request.replica, signal=9)
            assert await daemon.until(lambda: bool(simulation.box.living()), within=1) == 0
        assert (simulation.router.answered, simulation.router.cut) == (1, 1)


async def test_a_worker_that_hangs_is_replaced_and_its_requests_go_elsewhere(simulation: Simulation) -> None:
    probes = Probes(startup=HTTP, liveness=Probe(http="/livez", period=5, failures=3))
    spec = replace(WEB, probes=probes, scaling=replace(WEB.scaling, min_replicas=2))
    simulation.box.behave(spec.key, Script(hang_after=100), Script())
    async with simulation.daemon(wanting(spec)) as daemon:
        await anyio.sleep(300)
        exits = [event for event in daemon.watch.events if isinstance(event, WorkerExited)]
        assert len(exits) == 1
        assert 100 < exits[0].at < 125
        assert daemon.phases(spec.key) == ["ready", "ready"]


async def test_draining_waits_for_slow_requests_and_gives_up_at_its_time(simulation: Simulation) -> None:
    spec = replace(WEB, scaling=replace(WEB.scaling, min_replicas=2, max_replicas=2), drain=Drain(timeout=30))
    async with simulation.daemon(wanting(spec)) as daemon:
        await daemon.until(lambda: len(daemon.ready(spec.key)) == 2, within=5)
        async with anyio.create_task_group() as tasks:
            for seconds in (20, 20):
                tasks.start_soon(simulation.router.request, spec.key, seconds)
            await anyio.sleep(1)
            daemon.change(replace(spec, held=True))
            took = await daemon.until(lambda: not daemon.state.replicas, within=60)
            assert 18 < took < 20
        assert (simulation.router.answered, simulation.router.cut) == (2, 0)
        with pytest.raises(RequestRefusedError, match="stopped by the operator"):
            await simulation.router.request(spec.key, 1)


async def test_a_request_longer_than_the_drain_keeps_no_worker_for_ever(
    simulation: Simulation,
) -> None:
    spec = replace(WEB, drain=Drain(timeout=30, grace=10))
    simulation.box.behave(spec.key, Script(stop_after=None))
    async with simulation.daemon(wanting(spec)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(spec.key)), within=5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_refused, simulation, spec.key, 500.0)
            await anyio.sleep(1)
            daemon.change(replace(spec, held=True))
            took = await daemon.until(lambda: not daemon.state.replicas, within=60)
            assert 40 <= took < 41


async def _refused(simulation: Simulation, service: str, seconds: float) -> None:
    with pytest.raises(RequestRefusedError):
        await simulation.router.request(service, seconds)


async def test_a_lost_gpu_moves_its_worker_to_another(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, FakeBox(fake_devices(3)))
    async with simulation.daemon(wanting(INFER)) as daemon:
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=5)
        sick = daemon.ready(INFER.key)[0]
        device = daemon.state.inventory.get(sick.reservations[0].uuid)
        assert device is not None
        simulation.box.set_device(replace(device, health="lost", health_reason="Xid 79"))
        await daemon.until(lambda: sick.id not in {r.id for r in daemon.ready(INFER.key)}, within=5)
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=60)
        held = {r.uuid for replica in daemon.ready(INFER.key) for r in replica.reservations}
        assert held == {"GPU-fake-0", "GPU-fake-1", "GPU-fake-2"} - {device.uuid}


async def test_without_a_spare_gpu_it_waits_with_the_reason_and_comes_back(simulation: Simulation) -> None:
    async with simulation.daemon(wanting(INFER)) as daemon:
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=5)
        device = simulation.box.inventory.devices[0]
        simulation.box.set_device(replace(device, health="lost"))
        await anyio.sleep(120)
        (waiting,) = (r for r in daemon.state.of(INFER.key) if r.phase == "pending")
        assert "GPU" in waiting.reason
        simulation.box.set_device(device)
        took = await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=2 * PROBATION)
        assert PROBATION <= took < PROBATION + 1, "it is watched for a while first"


async def test_a_driver_that_falls_silent_disturbs_nobody(simulation: Simulation) -> None:
    async with simulation.daemon(wanting(INFER)) as daemon:
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=5)
        simulation.box.publish(
            replace(simulation.box.inventory, state="unreachable", devices=(), reason="hangs")
        )
        await anyio.sleep(3600)
        assert len(daemon.ready(INFER.key)) == 2
        assert len(starts(daemon)) == 2


@pytest.mark.parametrize(("devices", "least"), [(3, 2), (2, 1)], ids=["room for a surge", "full box"])
async def test_a_rolling_update_under_load_loses_no_request(tmp_path: Path, devices: int, least: int) -> None:
    simulation = Simulation(tmp_path, FakeBox(fake_devices(devices)))
    simulation.box.behave(INFER.key, Script(ready_after=15, stop_after=2))
    spec = replace(INFER, update=Update(max_surge=1, max_unavailable=0), traffic=Traffic(concurrency=4))
    async with simulation.daemon(wanting(spec)) as daemon:
        await daemon.until(lambda: len(daemon.ready(spec.key)) == 2, within=60)
        fewest = 2

        def count(event: object) -> None:
            nonlocal fewest
            fewest = min(fewest, len(daemon.ready(spec.key)))

        daemon.control.listen(count)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: load(simulation.router, spec.key, rate=2, seconds=1.5, lasting=180))
            await anyio.sleep(10)
            old = {replica.id for replica in daemon.ready(spec.key)}
            daemon.change(replace(spec, restart_token="1"))
            await daemon.until(
                lambda: len(daemon.ready(spec.key)) == 2 and not old & set(daemon.state.replicas), within=120
            )
        assert fewest == least
        assert (simulation.router.answered, simulation.router.cut, simulation.router.refused) == (360, 0, 0)


async def test_a_dead_daemon_harms_nobody_and_the_next_one_takes_over(simulation: Simulation) -> None:
    desired = wanting(WEB, INFER)
    async with simulation.daemon(desired) as daemon:
        await daemon.until(
            lambda: len(daemon.ready(INFER.key)) == 2 and bool(daemon.ready(WEB.key)), within=5
        )
        await anyio.sleep(1)
        before = {w.handle.pid for w in simulation.box.living()}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: load(simulation.router, WEB.key, rate=1, seconds=1, lasting=60))
        await anyio.sleep(30)
        async with simulation.daemon(desired) as daemon:
            await anyio.sleep(120)
            assert {w.handle.pid for w in simulation.box.living()} == before
            assert starts(daemon) == []
            assert len(daemon.ready(INFER.key)) == 2
    assert (simulation.router.answered, simulation.router.cut, simulation.router.refused) == (60, 0, 0)


async def test_a_worker_that_died_between_two_daemons_is_replaced_by_the_next(simulation: Simulation) -> None:
    async with simulation.daemon(wanting(INFER)) as daemon:
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=5)
    simulation.box.end(simulation.box.living()[0].request.replica, signal=9)
    async with simulation.daemon(wanting(INFER)) as daemon:
        await daemon.until(lambda: len(daemon.ready(INFER.key)) == 2, within=5)
        assert len(starts(daemon)) == 1
        assert len(simulation.box.living()) == 2


async def test_a_worker_adopted_while_starting_becomes_ready(simulation: Simulation) -> None:
    spec = replace(WEB, probes=Probes(startup=HTTP, startup_timeout=60))
    simulation.box.behave(spec.key, Script(ready_after=50))
    async with simulation.daemon(wanting(spec)):
        await anyio.sleep(30)
    async with simulation.daemon(wanting(spec)) as daemon:
        assert 19 < await daemon.until(lambda: bool(daemon.ready(spec.key)), within=30) < 22
        assert len(simulation.box.started) == 1


async def test_a_configuration_that_flaps_settles_at_its_last_word(simulation: Simulation) -> None:
    specs = [replace(INFER, restart_token=token) for token in ("", "1")]
    simulation.box.behave(INFER.key, Script(ready_after=7, stop_after=1))
    async with simulation.daemon(wanting(INFER)) as daemon:
        for number in range(30):
            daemon.change(specs[number % 2])
            await anyio.sleep(number % 11)
        daemon.change(specs[1])
        await daemon.until(lambda: [r.phase for r in daemon.state.of(INFER.key)] == ["ready"] * 2, within=300)
        assert len({r.revision for r in daemon.ready(INFER.key)}) == 1
        assert len(simulation.box.living()) == 2


async def test_dependents_start_after_and_stop_before_their_dependencies(simulation: Simulation) -> None:
    back = make_spec("back", backend="fake")
    front = make_spec("front", backend="fake", depends=("back",))
    simulation.box.behave(back.key, Script(ready_after=10, stop_after=3))
    simulation.box.behave(front.key, Script(ready_after=2, stop_after=5))
    async with simulation.daemon(wanting(front, back)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(front.key)), within=60)
        came = {e.service: e.at for e in daemon.watch.events if isinstance(e, ReplicaBecameReady)}
        assert came[back.key] <= next(e.at for e in starts(daemon, front.key))
        daemon.control.stop()
        await daemon.until(lambda: not daemon.state.replicas, within=60)
        gone = {e.service: e.at for e in daemon.watch.events if isinstance(e, WorkerExited)}
        assert gone[front.key] + 3 <= gone[back.key] < gone[front.key] + 4


async def test_a_lost_worker_is_replaced_where_there_is_room(simulation: Simulation) -> None:
    async with simulation.daemon(wanting(WEB)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(WEB.key)), within=5)
        simulation.box.lose(daemon.ready(WEB.key)[0].id, "the host does not answer")
        await daemon.until(lambda: sorted(daemon.phases(WEB.key)) == ["lost", "ready"], within=5)


async def test_removed_services_end_in_order_also_after_the_daemons_death(simulation: Simulation) -> None:
    back = make_spec("back", backend="fake")
    front = make_spec("front", backend="fake", depends=("back",))
    simulation.box.behave(front.key, Script(stop_after=5))
    async with simulation.daemon(wanting(front, back, WEB)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(front.key)), within=60)
        await anyio.sleep(1)
    async with simulation.daemon(wanting(WEB)) as daemon:
        await daemon.until(lambda: len(daemon.state.replicas) == 1, within=60)
        gone = {e.service: e.at for e in daemon.watch.events if isinstance(e, WorkerExited)}
        assert gone[front.key] <= gone[back.key] < gone[front.key] + 1


async def test_an_update_that_fails_is_taken_back_and_harms_no_request(simulation: Simulation) -> None:
    spec = replace(INFER, probes=Probes(startup=HTTP, startup_timeout=60), traffic=Traffic(concurrency=4))
    async with simulation.daemon(wanting(spec)) as daemon:
        await daemon.until(lambda: len(daemon.ready(spec.key)) == 2, within=60)
        good = {replica.revision for replica in daemon.ready(spec.key)}
        simulation.box.behave(spec.key, Script(ready_after=None), Script())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: load(simulation.router, spec.key, rate=2, seconds=1, lasting=200))
            await anyio.sleep(10)
            daemon.change(replace(spec, envs=(("A", "1"),)))
            took = await daemon.until(lambda: spec.key in daemon.state.rejected, within=120)
            assert 60 <= took < 75
            await daemon.until(lambda: all_ready(daemon, 2), within=60)
            assert {replica.revision for replica in daemon.ready(spec.key)} == good
            daemon.change(replace(spec, envs=(("A", "2"),)))
            await daemon.until(
                lambda: all_ready(daemon, 2) and not good & {r.revision for r in daemon.ready(spec.key)},
                within=60,
            )
        assert (simulation.router.answered, simulation.router.cut, simulation.router.refused) == (400, 0, 0)
