"""The daemon's real parts around a fake box, for the virtual clock: what the composition root joins, less
sockets, signals and files of configuration. Every event of a run is held against the laws."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

import stoker_policies.plugin
from laws import LawWatch
from mishaps import LossyLink, MishapPlugin, Mishaps, MortalStore
from stoker.model.device import Reservation
from stoker.model.event import (
    ConfigApplied,
    Event,
    InventoryChanged,
    Notice,
    ReplicaEvent,
    TargetChanged,
)
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.model.state import DesiredState, ObservedState
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext
from stoker.runtime.actuator import Actuator
from stoker.runtime.adoption import adopt
from stoker.runtime.autoscaler import Autoscaler
from stoker.runtime.control import ControlLoop
from stoker.runtime.device_care import DeviceCare
from stoker.runtime.good_revisions import GoodRevisions
from stoker.runtime.journal import Journal
from stoker.runtime.launcher import Launcher
from stoker.runtime.measure import RouterLink
from stoker.runtime.owners import Owners
from stoker.runtime.parts import Parts
from stoker.runtime.routes import RouteFeed
from stoker.runtime.store import WorkerRecord
from stoker_fake import FakeBox, FakeProber, FakeRouter


class QuietPorts:
    """Gives worker ports without asking the kernel: fake workers bind none."""

    def __init__(self) -> None:
        self.taken: set[int] = set()

    def take(self, host: str = "127.0.0.1") -> int:
        port = next(port for port in range(20000, 32000) if port not in self.taken)
        self.taken.add(port)
        return port

    def adopt(self, port: int) -> None:
        self.taken.add(port)

    def give_back(self, port: int) -> None:
        self.taken.discard(port)


class KnownOwners(Owners):
    """Whose a process is, without asking the kernel: fake workers have no other processes."""

    def __init__(self, box: FakeBox) -> None:
        super().__init__("sim")
        self._box = box

    def _owner(self, pid: int, workers: Mapping[int, str]) -> str:
        return workers.get(pid, "")

    def _name(self, pid: int) -> str:
        return "worker" if pid in {worker.handle.pid for worker in self._box.living()} else ""


class SimulatedDaemon:
    """One life of a daemon on a fake box."""

    def __init__(
        self,
        tasks: TaskGroup,
        box: FakeBox,
        router: FakeRouter,
        directory: Path,
        life: int,
        mishaps: Mishaps,
    ) -> None:
        self.watch = LawWatch()
        self.mishaps = mishaps
        self.box = box
        self.router = router
        self._tasks = tasks
        self._store = MortalStore(directory, mishaps)
        self._revisions = GoodRevisions(str(directory), self._trouble)
        self._journal = Journal(lambda: 0.0)
        self._routes = RouteFeed()
        registry = PluginRegistry()
        registry.register("fake", MishapPlugin(box, mishaps))
        registry.register("policies", stoker_policies.plugin)
        context = PluginContext(instance="sim", state_dir=str(directory), runtime_dir=str(directory))
        self.care = DeviceCare(
            self._store,
            tasks=tasks,
            instance="sim",
            replicas=lambda: tuple(self.state.replicas.values()),
            lookup=self._lookup,
            post=self._post,
            owners=KnownOwners(box),
        )
        self._parts = Parts(registry, context, post=self._post, overlay=self.care.over)
        self.care.attach(self._parts)
        launcher = Launcher(
            instance="sim",
            state_dir=str(directory),
            environ={},
            url=lambda key: f"http://127.0.0.1:{abs(hash(key)) % 1000 + 18000}",
            ports=QuietPorts(),  # type: ignore[arg-type]  # the same shape without a kernel behind it
        )
        self._actuator = Actuator(
            tasks=tasks,
            store=self._store,
            launcher=launcher,
            prober=FakeProber(box),
            driver=self._parts.driver,
            lookup=self._lookup,
            routed=self._routes.knows,
            post=self._post,
            unnoted=self.care.unnoted,
        )
        self.control = ControlLoop(
            journal=self._journal,
            perform=mishaps.perform(self._actuator.perform),
            publish=self._routes.publish,
            addresses=lambda desired: dict.fromkeys(desired.services, ("127.0.0.1", 1)),
            serial=life * 1000,
        )
        self.autoscaler = Autoscaler(
            policy=self._parts.policy,
            usage=self._actuator.usage,
            state=lambda: self.control.state,
            desired=lambda: self.control.desired,
            post=self._post,
        )
        self._link = RouterLink(self.autoscaler, state=lambda: self.control.state, post=self._post)
        self.control.listen(self._after_event)
        self.control.listen(self.care.after_event)
        self.control.listen(self._actuator.after_event)

    async def begin(self, desired: DesiredState) -> None:
        """Take over what lives, then start all loops."""
        self.control.state = self._revisions.recall(self.control.state)
        self.configure(desired)
        targets = {key: int(count) for key, count in self._store.read("targets").items()}
        self.control.state = replace(self.control.state, targets=targets)
        drivers = self._parts.drivers(["fake"])
        await adopt(store=self._store, drivers=drivers, actuator=self._actuator, post=self._post)
        start = self._tasks.start_soon
        start(self.router.run, LossyLink(self._link, self.mishaps))
        start(self._parts.run_devices, "fake")
        start(self._routes.run, self.router)
        start(self.control.run)
        start(self.autoscaler.run)
        start(self.autoscaler.run_usage)
        start(self.autoscaler.run_readings)

    # -- for scenarios ---------------------------------------------------------------------------------

    @property
    def state(self) -> ObservedState:
        return self.control.state

    def configure(self, desired: DesiredState) -> None:
        """A new configuration comes into force."""
        self.control.configure(desired)
        self.autoscaler.reconsider()
        self._post(ConfigApplied(generation=desired.generation))

    def change(self, *specs: ServiceSpec) -> None:
        """These services are configured anew, the others stay."""
        desired = self.control.desired
        services = {**desired.services, **{spec.key: spec for spec in specs}}
        self.configure(replace(desired, services=services, generation=desired.generation + 1))

    def faults(self) -> list[str]:
        """What the daemon itself called an error, impossible transitions among it, less what it says of a
        full disk and of a driver that does not answer."""
        notices = [event for event in self._journal.recent() if isinstance(event, Notice)]
        expected = re.compile(r"cannot (record|remove)|\S+: driver \S+ failed at (signal|kill):")
        return [n.message for n in notices if n.severity == "error" and not expected.match(n.message)]

    def close(self) -> None:
        """Give back what the end of a process would."""
        self._store.release()

    def records(self) -> list[WorkerRecord]:
        """What the next daemon would find written."""
        return self._store.workers()

    def phases(self, service: ServiceKey) -> list[str]:
        """The phases of a service's replicas, oldest first."""
        return [replica.phase for replica in self.state.of(service)]

    def ready(self, service: ServiceKey) -> list[Replica]:
        return [replica for replica in self.state.of(service) if replica.phase == "ready"]

    async def until(self, condition: Callable[[], bool], *, within: float) -> float:
        """Wait until it holds; returns the virtual seconds that took. Fails after `within` seconds."""
        began = anyio.current_time()
        seen = anyio.Event()
        listener: Callable[[Event], None] = lambda event: seen.set()  # noqa: E731 - one line, used once
        self.control.listen(listener)
        with anyio.move_on_after(within):
            while not condition():
                await seen.wait()
                seen = anyio.Event()
                await anyio.lowlevel.checkpoint()
        assert condition(), f"not within {within} s: {[str(r) for r in self.state.replicas.values()]}"
        return anyio.current_time() - began

    # -- what the composition root does ----------------------------------------------------------------

    def _post(self, event: Event) -> None:
        self.control.post(event)

    def _lookup(self, service: ServiceKey) -> ServiceSpec | None:
        return self.control.desired.services.get(service)

    def _after_event(self, event: Event) -> None:
        self.watch.after(event, self.control.state, self.control.desired)
        check_box(self.box)
        if isinstance(event, InventoryChanged):
            self.autoscaler.box_changed()
        self._revisions.follow(self.control.state)
        if isinstance(event, TargetChanged):
            self._keep_targets()
        if isinstance(event, ReplicaEvent):
            self.autoscaler.reconsider([event.service])

    def _keep_targets(self) -> None:
        try:
            self._store.write("targets", self.control.state.targets)
        except OSError as error:
            self._trouble(f"cannot record the scale in force: {error}")

    def _trouble(self, message: str) -> None:
        self._post(Notice(message=message, severity="error"))


class Simulation:
    """A fake box, its router, and daemons that come and go."""

    def __init__(self, directory: Path, box: FakeBox) -> None:
        self.mishaps = Mishaps()
        self.box = box
        self.router = FakeRouter(box)
        self._directory = directory
        self._lives = 0

    @asynccontextmanager
    async def daemon(self, desired: DesiredState) -> AsyncIterator[SimulatedDaemon]:
        """A daemon's life; leaving the block is its death by SIGKILL: no farewell, workers live on."""
        self._lives += 1
        async with anyio.create_task_group() as tasks:
            life = SimulatedDaemon(tasks, self.box, self.router, self._directory, self._lives, self.mishaps)
            try:
                await life.begin(desired)
                yield life
            finally:
                life.close()
            assert life.faults() == []
            tasks.cancel_scope.cancel()


def check_box(box: FakeBox) -> None:
    """The law as the box itself sees it: no device under two living workers beyond its whole."""
    taken: dict[str, list[Reservation]] = {}
    for worker in box.living():
        for reservation in worker.request.reservations:
            taken.setdefault(reservation.uuid, []).append(reservation)
    for uuid, reservations in taken.items():
        assert sum(r.share for r in reservations) <= 1 + 1e-6, f"{uuid} has two living owners"


async def load(
    router: FakeRouter, service: ServiceKey, *, rate: float, seconds: float, lasting: float
) -> None:
    """Requests at an even pace, each taking `seconds` in a worker, for `lasting` seconds; waits for all."""
    async with anyio.create_task_group() as tasks:
        for _ in range(math.floor(lasting * rate)):
            tasks.start_soon(router.request, service, seconds)
            await anyio.sleep(1 / rate)
