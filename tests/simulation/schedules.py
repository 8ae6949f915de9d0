"""Random schedules of everything that can go wrong, played against the real control loop on a virtual clock.

A schedule is a list of deeds with numbers; each deed reads from its number what exactly it does, and how long
after it the next one comes. Hypothesis draws schedules and shrinks one that breaks a law to its shortest.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from trio.testing import MockClock

from mishaps import Death
from simulated import SimulatedDaemon, Simulation
from simulation.sickness import KINDS, Ward
from stoker.decide.health import IN_BED, LONGEST_PROBATION, Mark
from stoker.decide.placement import place
from stoker.model.device import Device
from stoker.model.event import Event
from stoker.model.replica import ExitStatus
from stoker.model.service import (
    Drain,
    Probe,
    Probes,
    Restart,
    Scaling,
    ServiceSpec,
    Traffic,
    Update,
    revision,
)
from stoker_fake import FakeBox, RequestRefusedError, Script, fake_devices
from stoker_fake.box import FakeWorker
from worlds import make_spec, wanting

Deed = Callable[["World", int], None]
Schedule = Sequence[tuple[Deed, int]]

COMMON: dict[str, Any] = {
    "backend": "fake",
    "restart": Restart(backoff=0.5, max_backoff=10, crash_loop=3),
    "drain": Drain(timeout=30, grace=5),
    "traffic": Traffic(concurrency=2, timeout=300),
    "probes": Probes(
        startup=Probe(http="/readyz"),
        liveness=Probe(http="/livez", period=5, timeout=1, failures=3),
        startup_timeout=20,
    ),
}
SERVICES = (
    make_spec("back", replicas=(1, 3), **COMMON),
    make_spec("infer", gpu=1, replicas=(2, 2), depends=("back",), **COMMON),
    make_spec("nap", gpu=0.5, replicas=(1, 2), **COMMON),
)
DEVICES = 3
PAUSES = (0.0, 0.0, 0.05, 0.4, 1.0, 3.0, 12.0, 65.0)
SETTLING = 30.0
"""Virtual seconds until a daemon has seen the whole box."""
PEACE = 1200.0
"""Virtual seconds of good luck in which everything must come right."""
SCRIPTS = (
    Script(ready_after=1, stop_after=3),
    Script(ready_after=3, stop_after=1),
    Script(start_delay=2, ready_after=8, stop_after=4),
    Script(ready_after=None),
    Script(stop_after=None),
    Script(exit_after=1, exit_code=1, exit_detail="no weights"),
    Script(ready_after=1, exit_after=30, exit_code=0),
    Script(start_error="out of luck"),
    Script(start_error="no such program", permanent=True),
    Script(ready_after=1, hang_after=20),
)


class World:
    """A box and its daemons while a schedule is played."""

    def __init__(self, directory: Path, clock: MockClock) -> None:
        self.simulation = Simulation(directory, FakeBox(fake_devices(DEVICES)))
        self.box = self.simulation.box
        self.mishaps = self.simulation.mishaps
        self.whole = self.box.inventory
        self.desired = wanting(*SERVICES)
        self.daemon: SimulatedDaemon | None = None
        self.asked = 0
        self.refused: list[str] = []
        self.events: list[Event] = []
        """All that the daemons have seen."""
        self.lives = 0
        self.ward = Ward(self.box)
        self.box.lingering = 0.0
        for spec in SERVICES:
            self.box.behave(spec.key, Script(ready_after=1, stop_after=3))
        self._clock = clock
        self._requests: Any = None
        self._spawn = self.box.spawn
        self.box.spawn = self._checked_spawn  # type: ignore[method-assign]  # the box's own view of each birth

    async def play(self, schedule: Schedule) -> None:
        """All deeds, daemon after daemon, then peace; raises AssertionError where a law is broken."""
        ahead = [(World.wait, 0), *schedule]
        async with anyio.create_task_group() as requests:
            self._requests = requests
            while ahead:
                try:
                    async with self.simulation.daemon(self.desired) as self.daemon:
                        self.lives += 1
                        self._follow(self.daemon)
                        await self._live(ahead)
                except* Death:
                    self.ward.ends()
                    await anyio.sleep(0.5)
                else:
                    self.ward.ends()
            self.calm()
            async with self.simulation.daemon(self.desired) as self.daemon:
                self._follow(self.daemon)
                await self._until_peace(self.daemon)
                check_peace(self.daemon, self)
                with anyio.move_on_after(PEACE):
                    while self._unanswered():
                        await anyio.sleep(5)
            assert not self._unanswered(), f"{self._unanswered()} requests wait for ever"
            requests.cancel_scope.cancel()

    def _unanswered(self) -> int:
        return self.asked - self.simulation.router.answered - len(self.refused)

    def _follow(self, daemon: SimulatedDaemon) -> None:
        self.ward.begins()
        if self.mishaps.disk_full:
            self.ward.disk_is_full()
        before = daemon.state

        def see(event: Event) -> None:
            nonlocal before
            self.events.append(event)
            self.ward.check(event, before)
            before = daemon.state

        daemon.control.listen(see)

    async def _live(self, ahead: list[tuple[Deed, int]]) -> None:
        while ahead:
            deed, number = ahead.pop(0)
            deed(self, number)
            await anyio.sleep(SETTLING if deed is World.wait else PAUSES[number % len(PAUSES)])

    async def _until_peace(self, daemon: SimulatedDaemon) -> None:
        await anyio.sleep(SETTLING)
        await self._until_devices_are_well(daemon)
        with anyio.move_on_after(PEACE):
            while not self._at_peace(daemon):
                await anyio.sleep(5)

    async def _until_devices_are_well(self, daemon: SimulatedDaemon) -> None:
        """The operator takes all marks away and lets out whom the daemon holds for sick."""
        for device in daemon.state.inventory.devices:
            self.ward.mark(daemon.care.marks, device.uuid, None)
        await anyio.sleep(1)
        for device in daemon.state.inventory.devices:
            if device.health in IN_BED:
                self.ward.mark(daemon.care.marks, device.uuid, "released")
        with anyio.move_on_after(2 * LONGEST_PROBATION):
            while any(device.health != "healthy" for device in daemon.state.inventory.devices):
                await anyio.sleep(20)

    def _at_peace(self, daemon: SimulatedDaemon) -> bool:
        moving = any(r.phase not in ("ready", "pending") for r in daemon.state.replicas.values())
        return not moving and not outstanding(daemon)

    def configure(self, *specs: ServiceSpec, without: str = "") -> None:
        services = {**self.desired.services, **{spec.key: spec for spec in specs}}
        services.pop(without, None)
        self.desired = replace(self.desired, services=services, generation=self.desired.generation + 1)
        if self.daemon is not None:
            self.daemon.configure(self.desired)

    def _checked_spawn(self, request: Any, script: Script) -> Any:
        """A birth as the box sees it: nobody twice, and each within the bounds of its service."""
        living = self.box.living()
        assert request.replica not in {w.request.replica for w in living}, f"{request.replica} lives twice"
        return self._spawn(request, script)

    # -- deeds -----------------------------------------------------------------------------------------

    def wait(self, number: int) -> None:
        """Let the box come up."""

    def die(self, number: int) -> None:
        """At one of the next points at which it touches the world."""
        self.mishaps.dies_in = number // len(PAUSES)

    def end(self, number: int) -> None:
        if living := self.box.living():
            worker = living[number % len(living)]
            self.box.end(worker.request.replica, **({"signal": 9} if number % 2 else {"code": number % 3}))

    def hang(self, number: int) -> None:
        if living := self.box.living():
            worker, now = living[number % len(living)], anyio.current_time()
            worker.script = replace(worker.script, hang_after=now - worker.spawned)

    def lose(self, number: int) -> None:
        if living := self.box.living():
            self.box.lose(living[number % len(living)].request.replica, "no word of it")

    def behave(self, number: int) -> None:
        spec = SERVICES[number % len(SERVICES)]
        self.box.behave(spec.key, SCRIPTS[number // 3 % len(SCRIPTS)], SCRIPTS[number // 30 % 2])

    def change(self, number: int) -> None:
        """Revision, bounds, strategy, hold, or the service's very existence."""
        spec = SERVICES[number % len(SERVICES)]
        known = self.desired.services.get(spec.key, spec)
        kind = number // 3 % 6
        if kind == 0:
            self.configure(replace(known, envs=(("VERSION", str(number // 18)),)))
        elif kind == 1:
            low = number // 18 % 3
            self.configure(replace(known, scaling=Scaling(min_replicas=low, max_replicas=max(low, 1) + 1)))
        elif kind == 2:
            names = ("RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout")
            update = Update(strategy=names[number // 18 % 4], max_surge=number % 2, max_unavailable=1)
            self.configure(replace(known, update=update))
        elif kind == 3:
            self.configure(replace(known, held=not known.held))
        elif kind == 4 and spec.name == "nap":
            self.configure(without=spec.key)
        else:
            self.configure(replace(known, restart_token=str(number // 18)))

    def update(self, number: int) -> None:
        """What an operator does on a good day: a new revision, other bounds, another way to update."""
        spec = SERVICES[number % len(SERVICES)]
        known = self.desired.services[spec.key]
        if number // 3 % 3 == 0:
            low = 1 + number // 9 % 2
            self.configure(replace(known, scaling=Scaling(min_replicas=low, max_replicas=low + 1)))
        elif number // 3 % 3 == 1:
            names = ("RollingUpdate", "RampedSlowRollout", "BestEffortControlledRollout")
            update = Update(strategy=names[number // 9 % 3], max_surge=number % 2, max_unavailable=1)
            self.configure(replace(known, update=update))
        else:
            self.configure(replace(known, envs=(("VERSION", str(number // 9)),)))

    def lag(self, number: int) -> None:
        self.mishaps.lag = (0.0, 0.2, 1.0)[number % 3]

    def fill_disk(self, number: int) -> None:
        self.mishaps.disk_full = number % 2 == 0
        self.ward.disk_is_full()

    def slow_driver(self, number: int) -> None:
        self.mishaps.lag = (0.0, 0.2, 2.0, 15.0)[number % 4]

    def lose_words(self, number: int) -> None:
        self.mishaps.words_lost = number % 7

    def silence_nvml(self, number: int) -> None:
        if number % 2:
            self.ward.have(replace(self.box.inventory, state="unreachable", reason="hangs"))
        else:
            self.ward.have(replace(self.box.inventory, state="ok", reason=""))

    def lose_gpu(self, number: int) -> None:
        """A device is lost, does not answer, goes away, or comes back."""
        device = self.whole.devices[number % DEVICES]
        health = ("lost", "unreachable", "healthy", "healthy")[number // 3 % 4]
        if number // 12 % 3 == 2:
            self._have([known for known in self.box.inventory.devices if known.uuid != device.uuid])
        else:
            others = [known for known in self.box.inventory.devices if known.uuid != device.uuid]
            self._have([*others, replace(device, health=health)])

    def _have(self, devices: Sequence[Device]) -> None:
        found = tuple(sorted(devices, key=lambda device: device.index))
        self.ward.have(replace(self.box.inventory, devices=found))

    def _device(self, number: int) -> Device | None:
        return self.box.inventory.get(self.whole.devices[number % DEVICES].uuid)

    def fault(self, number: int) -> None:
        """The driver tells of an Xid or a memory error, with or without the process that it was."""
        device = self._device(number)
        if device is not None:
            kind = KINDS[number // 3 % len(KINDS)]
            here = [worker.handle.pid for worker in self.box.living() if uses(worker, device.uuid)]
            pid = here[number % len(here)] if here and number // 24 % 2 else None
            self.ward.fault(device, kind, pid)

    def ail(self, number: int) -> None:
        """The driver asks for a recovery of a device, or no longer does; its links are of no use, or are."""
        device = self._device(number)
        if device is not None:
            ailing = ("the driver asks for a reset", "", "bad memory could not be remapped")[number // 3 % 3]
            unlinked = ("", "NVLink is down")[number // 9 % 2]
            others = [known for known in self.box.inventory.devices if known.uuid != device.uuid]
            self._have([*others, replace(device, ailing=ailing, unlinked=unlinked)])

    def mark(self, number: int) -> None:
        """The operator cordons, releases or gives back."""
        if self.daemon is not None:
            marks: tuple[Mark | None, ...] = ("cordoned", "released", None, "released", None)
            uuid = self.whole.devices[number % DEVICES].uuid
            self.ward.mark(self.daemon.care.marks, uuid, marks[number // 3 % len(marks)])

    def linger(self, number: int) -> None:
        """Workers of which the driver tells for a while after their end that they are there."""
        self.box.lingering = (0.0, 1.0, 8.0, 45.0)[number % 4]

    def jump(self, number: int) -> None:
        """The box was suspended: nothing ran, and it is later."""
        self._clock.jump((0.5, 10.0, 100.0, 4000.0)[number % 4])

    def request(self, number: int) -> None:
        spec = SERVICES[number % len(SERVICES)]
        for _ in range(1 + number // 3 % 5):
            self.asked += 1
            self._requests.start_soon(self._ask, spec.key, (0.1, 1.0, 5.0)[number % 3])

    async def _ask(self, service: str, seconds: float) -> None:
        try:
            await self.simulation.router.request(service, seconds)
        except RequestRefusedError as error:
            self.refused.append(str(error))

    def calm(self) -> None:
        """From now on all goes well."""
        self.mishaps.dies_in, self.mishaps.disk_full = None, False
        self.mishaps.lag, self.mishaps.words_lost = 0.0, 0
        self.box.lingering = 0.0
        self.ward.have(self.whole)
        for spec in SERVICES:
            self.box.behave(spec.key, Script(ready_after=1, stop_after=1))
        for worker in self.box.living():
            if worker.lost or worker.script.stop_after is None or worker.script.ready_after is None:
                worker.end_at(anyio.current_time(), ExitStatus(signal=9))


FAULTS: tuple[Deed, ...] = (
    World.die, World.die, World.die, World.end, World.end, World.hang, World.lose, World.behave, World.behave,
    World.change, World.change, World.change, World.fill_disk, World.slow_driver, World.lose_words,
    World.silence_nvml, World.lose_gpu, World.jump, World.request, World.request,
)  # fmt: skip
GPU_FAULTS: tuple[Deed, ...] = (
    World.lose_gpu, World.lose_gpu, World.silence_nvml, World.fault, World.fault, World.fault, World.ail,
    World.mark, World.mark, World.linger, World.end, World.end, World.die, World.behave, World.change,
    World.fill_disk, World.request, World.slow_driver,
)  # fmt: skip
"""Starts, stops, crashes, full disks, changes of the configuration, and all that can befall a device."""
OWN_DOING: tuple[Deed, ...] = (
    World.die, World.die, World.update, World.update, World.lag, World.lose_words, World.silence_nvml,
    World.request, World.request, World.request,
)  # fmt: skip
"""Nothing of this is a worker's fault or a client's: no request may suffer by it."""


def uses(worker: FakeWorker, uuid: str) -> bool:
    """Whether a worker was given that device."""
    return any(given.uuid == uuid for given in worker.request.reservations)


def wanted_of(daemon: SimulatedDaemon, spec: ServiceSpec) -> int:
    """How many replicas a service is to have now."""
    state, low, high = daemon.state, spec.scaling.min_replicas, spec.scaling.max_replicas
    return min(high, max(low, state.targets.get(spec.key, low), spec.key in state.demand))


def crowded(daemon: SimulatedDaemon) -> bool:
    """Whether all that is wanted takes more devices than there are, with shares packed as closely as can
    be."""
    wanted = [
        (spec.resources.gpu, wanted_of(daemon, spec))
        for spec in daemon.control.desired.services.values()
        if not spec.held
    ]
    whole = sum(gpu * count for gpu, count in wanted if gpu >= 1)
    shares = sum(gpu * count for gpu, count in wanted if gpu < 1)
    return whole + math.ceil(shares) > DEVICES


def outstanding(daemon: SimulatedDaemon) -> list[str]:
    """What is wanted and not so. There are two excuses: what depends on a held service waits for it, and
    where more is wanted than the box has devices for, some wait for one, and an update of theirs as well."""
    state, desired = daemon.state, daemon.control.desired
    full, wrong = crowded(daemon), []
    for key in {replica.service for replica in state.replicas.values()} | set(desired.services):
        spec, mine = desired.services.get(key), state.of(key)
        if spec is None or spec.held:
            wrong += [f"{key} is not wanted and has {len(mine)} replicas"] * bool(mine)
            continue
        waits = full and not place(spec, state.inventory, state.replicas.values()).placed
        cramped = waits and any(replica.phase == "pending" for replica in mine)
        if len(mine) != (wanted := wanted_of(daemon, spec)) and not (cramped and len(mine) == wanted + 1):
            wrong.append(f"{key}: {wanted} wanted, there are {len(mine)}")
        for replica in mine:
            if replica.phase == "ready" and (cramped or replica.revision == revision(spec)):
                continue
            excused = waits or any(upstream.held for upstream in desired.dependencies(spec))
            if replica.phase != "pending" or not excused:
                wrong.append(f"{replica.id} is {replica.phase}: {replica.reason}")
    return wrong


def check_peace(daemon: SimulatedDaemon, world: World) -> None:
    """Raise AssertionError if the box is not as it should be after a long time of good luck."""
    away = [device.uuid for device in daemon.state.inventory.devices if device.health != "healthy"]
    assert not away, f"devices that are well are not used: {away}"
    assert not (wrong := outstanding(daemon)), wrong
    replicas = daemon.state.replicas
    living = Counter(worker.request.replica for worker in world.box.living())
    assert living == Counter(r.id for r in replicas.values() if r.alive), f"living workers: {living}"
    records = Counter(record.replica for record in daemon.records())
    assert records == living, f"records {records}, living workers {living}"


def play(schedule: Schedule) -> World:
    """Play a schedule on a clock and in a directory of its own."""
    clock = MockClock(autojump_threshold=0)
    worlds: list[World] = []

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="schedule-") as directory:
            worlds.append(World(Path(directory), clock))
            await worlds[0].play(schedule)

    anyio.run(main, backend="trio", backend_options={"clock": clock})
    return worlds[0]
