"""Turns measured load into targets: keeps the samples, asks the policies, shares the box out, posts what
changes.

A service is looked at when its load was measured, when a request waits for it at zero, and when its own
decision said it would change by itself (the end of a window). At rest nothing wakes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

import anyio

from stoker.decide.apportion import Asked, Portion
from stoker.decide.claims import Amount
from stoker.decide.demand import LoadHistory, pool_usage
from stoker.decide.scaling import ScalingMemory, settle
from stoker.model.event import DemandArrived, Event, Notice, TargetChanged
from stoker.model.load import Decision, LoadSample, LoadWindow, PoolState, Usage
from stoker.model.replica import Replica
from stoker.model.service import PolicySpec, ServiceKey, ServiceSpec
from stoker.model.state import DesiredState, ObservedState
from stoker.plugin.ports import Policy, PolicyInput
from stoker.runtime.box_budget import BoxBudget
from stoker.runtime.policies import Policies
from stoker.runtime.readings import Readings
from stoker.runtime.scaling_memories import ScalingMemories

USAGE_PERIOD = 5.0
"""Seconds between readings of CPU and memory, for services whose policy needs them."""
SILENCE = 10.1
"""Seconds without news of a busy service after which its policy is asked again: it sees nothing then."""
USAGE_METRICS = frozenset({"utilization", "gpu"})


SETTLING = 0.05
"""Seconds that news of replicas may wait for more of their kind: when hundreds start, each tells of itself
several times, and the box is shared out among all at once."""
SPARING = 10
"""They wait so many times as long as sharing out took last: it never takes more than a tenth of the time."""


@dataclass(slots=True)
class _Agenda:
    """Which services are to be looked at: now, or by a certain time together with others."""

    soon: set[ServiceKey] = field(default_factory=set)
    later: set[ServiceKey] = field(default_factory=set)
    later_at: float | None = None
    cost: float = 0.0
    """Seconds that the last look took."""

    def put_off(self, services: Iterable[ServiceKey], now: float) -> bool:
        """Have them looked at within a moment; returns whether that moment is a new one."""
        self.later.update(services)
        if self.later_at is not None:
            return False
        self.later_at = now + max(SETTLING, SPARING * self.cost)
        return True

    def take(self, now: float) -> set[ServiceKey]:
        """What is due now, off the agenda."""
        due, self.soon = self.soon, set()
        if due or (self.later_at is not None and self.later_at <= now):
            due |= self.later
            self.later, self.later_at = set(), None
        return due


@dataclass(slots=True)
class _Pool:
    """What is remembered of one service."""

    history: LoadHistory = field(default_factory=LoadHistory)
    memory: ScalingMemory = field(default_factory=ScalingMemory)
    decision: Decision | None = None
    """As settled: what the service asks of the box."""
    portion: Portion | None = None
    """What it has."""
    posted: int | None = None
    """The target told last, which the control loop may not have heard of yet."""
    wake_at: float | None = None


class _Pools(dict[ServiceKey, _Pool]):
    """What is remembered of every service, begun with what an earlier daemon has left in `memories`."""

    def __init__(self, memories: ScalingMemories | None) -> None:
        super().__init__()
        self._memories = memories

    def __missing__(self, key: ServiceKey) -> _Pool:
        memory = self._memories.of(key) if self._memories is not None else ScalingMemory()
        pool = self[key] = _Pool(memory=memory)
        return pool

    def keep(self, key: ServiceKey, now: float) -> None:
        """Leave the memory of a service to the next daemon."""
        if self._memories is not None:
            self._memories.keep(key, self[key].memory, now)


class Autoscaler:
    """Decides targets. `policy` makes a policy by its metric's name (raises PluginError); `usage` measures
    the workers of a service; `state` and `desired` give the present snapshots; `budget` shares out what all
    ask (None: only devices are counted); `startup` tells what a service's replicas take to get ready (None:
    as those that are there took); `memories` keeps what policies remember (None: it dies with this object);
    `wall` gives seconds since the epoch."""

    def __init__(
        self,
        *,
        policy: Callable[[str], Policy],
        usage: Callable[[ServiceKey], Awaitable[Mapping[int, Usage]]],
        state: Callable[[], ObservedState],
        desired: Callable[[], DesiredState],
        post: Callable[[Event], None],
        budget: BoxBudget | None = None,
        startup: Callable[[ServiceKey], float | None] | None = None,
        memories: ScalingMemories | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._budget = budget or BoxBudget(Amount(cpu=math.inf, memory=math.inf))
        self._policies = Policies(policy, post)
        self._startup = startup or (lambda key: median_startup(state(), key))
        self._usage = usage
        self._state = state
        self._desired = desired
        self._post = post
        self._pools = _Pools(memories)
        self._agenda = _Agenda()
        self._share = False
        self._wake = anyio.Event()
        self._reconsidered = anyio.Event()
        self._readings = Readings(
            policy=self._policies.of, desired=desired, post=post, answered=self._look_at
        )

    # -- what arrives ----------------------------------------------------------------------------------

    def sample(self, sample: LoadSample) -> None:
        """Take one measurement in and look at its service soon."""
        pool = self._pool(sample.service)
        pool.history = pool.history.add(sample)
        self._look_at(sample.service)

    def demand(self, service: ServiceKey) -> None:
        """A request waits for a service that has no replica."""
        if service not in self._state().demand:
            self._post(DemandArrived(service=service))
        self._look_at(service)

    def reconsider(self, services: Iterable[ServiceKey] | None = None) -> None:
        """Look at these services, whose pools have changed, or at all: the configuration has."""
        if services is not None:
            if self._agenda.put_off(services, anyio.current_time()):
                self._wake.set()
        else:
            for key in self._desired().services:
                self._look_at(key)
            reconsidered, self._reconsidered = self._reconsidered, anyio.Event()
            reconsidered.set()

    def box_changed(self) -> None:
        """Share the box out anew: its devices have changed."""
        self._share = True
        self._wake.set()

    # -- what others read ------------------------------------------------------------------------------

    def decisions(self) -> Mapping[ServiceKey, Decision]:
        """The last decision of each service."""
        return {key: pool.portion.decision for key, pool in self._pools.items() if pool.portion is not None}

    def history(self, service: ServiceKey) -> LoadHistory:
        """The kept samples of a service."""
        return self._pool(service).history

    def window(self, service: ServiceKey, seconds: float) -> LoadWindow:
        """The load of a service over the last `seconds`."""
        return self._pool(service).history.window(seconds, anyio.current_time())

    # -- the loop --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            self._wake = anyio.Event()
            now = anyio.current_time()
            due = self._agenda.take(now)
            due |= {
                key for key, pool in self._pools.items() if pool.wake_at is not None and pool.wake_at <= now
            }
            for key in sorted(due):
                self._decide(key, now)
            if due or self._share or self._budget.due(now):
                self._apportion(now)
                self._agenda.cost = anyio.current_time() - now
            if self._agenda.soon:
                continue
            times = [
                self._budget.wake_at,
                self._agenda.later_at,
                *(pool.wake_at for pool in self._pools.values()),
            ]
            alarms = [time for time in times if time is not None]
            delay = max(0.0, min(alarms) - anyio.current_time()) if alarms else None
            with anyio.move_on_after(delay):
                await self._wake.wait()

    async def run_readings(self) -> None:
        """Ask for what policies want to know from elsewhere, until cancelled."""
        await self._readings.run(lambda: self._reconsidered)

    async def run_usage(self) -> None:
        """Measure CPU and devices for the services whose policies need it, until cancelled."""
        while True:
            wanted = [key for key, spec in self._desired().services.items() if _needs_usage(spec)]
            if not wanted:
                await self._reconsidered.wait()
                continue
            await anyio.sleep(USAGE_PERIOD)
            for key in wanted:
                try:
                    await self._measure(key)
                except Exception as error:  # noqa: BLE001 - a driver is a stranger; no reading is no data
                    message = f"cannot measure the workers of {key}: {type(error).__name__}: {error}"
                    self._post(Notice(message=message, severity="warning", service=key))

    async def _measure(self, key: ServiceKey) -> None:
        state = self._state()
        found = await self._usage(key)
        now = anyio.current_time()
        readings = [
            replace(found[replica.handle.pid], gpu=_device_use(state, replica))
            for replica in state.of(key)
            if _settled(replica, now) and replica.handle is not None and replica.handle.pid in found
        ]
        pool = self._pool(key)
        pool.history = pool.history.add_usage(pool_usage(readings, now))
        self._look_at(key)

    def _decide(self, key: ServiceKey, now: float) -> None:
        spec = self._desired().services.get(key)
        if spec is None:
            self._pools.pop(key, None)
            return
        pool = self._pool(key)
        state = self._state()
        if not _scales(spec):
            pool.decision = _fixed(spec)
            pool.wake_at = None
            return
        before = pool.decision.target if pool.decision else state.targets.get(key, spec.scaling.min_replicas)
        view = _pool_state(state, key, before, self._startup(key))
        answers = [(rule, self._ask(spec, rule, pool, view, now)) for rule in spec.scaling.policies]
        settled = settle(spec, answers, pool.memory, view, now, demand=key in state.demand)
        pool.decision, pool.memory = settled.decision, settled.memory
        self._pools.keep(key, now)
        times = (settled.wake_at, pool.history.silent_at(SILENCE))
        pool.wake_at = min((at for at in times if at is not None and at > now), default=None)

    def _apportion(self, now: float) -> None:
        """Give each service what the box has for it, and tell whose target that changes."""
        self._share = False
        state, desired = self._state(), self._desired()
        asked = {
            key: Asked(
                decision=pool.decision,
                granted=pool.portion.target if pool.portion else state.targets.get(key),
                startup=self._startup(key) or 0.0,
            )
            for key, pool in self._pools.items()
            if pool.decision is not None and key in desired.services
        }
        portions, notices = self._budget.share(desired, state, asked, now)
        for key, portion in portions.items():
            pool = self._pool(key)
            before = state.targets.get(key, desired.services[key].scaling.min_replicas)
            before = before if pool.posted is None else pool.posted
            pool.portion, target = portion, portion.target
            if target != before:
                pool.posted = target
                self._post(
                    TargetChanged(service=key, before=before, target=target, decision=portion.decision)
                )
        for notice in notices:
            self._post(notice)

    def _ask(self, spec: ServiceSpec, rule: PolicySpec, pool: _Pool, view: PoolState, now: float) -> Decision:
        given = PolicyInput(
            service=spec,
            policy=rule,
            window=lambda seconds: pool.history.window(seconds, now),
            pool=view,
            now=now,
            state=pool.memory.state_of(rule),
            wall=self._wall(),
            reading=self._readings.of(spec.key, rule),
        )
        return self._policies.ask(spec, rule, given)

    def _pool(self, key: ServiceKey) -> _Pool:
        return self._pools[key]

    def _look_at(self, key: ServiceKey) -> None:
        self._agenda.soon.add(key)
        self._wake.set()


def _scales(spec: ServiceSpec) -> bool:
    return spec.scaling.min_replicas < spec.scaling.max_replicas and not spec.held


def _settled(replica: Replica, now: float) -> bool:
    """Whether a reading of it tells of its service alone: what a start costs calls for no more replicas."""
    return replica.phase == "ready" and replica.ready_at is not None and now - replica.ready_at > USAGE_PERIOD


def _needs_usage(spec: ServiceSpec) -> bool:
    return _scales(spec) and any(policy.metric in USAGE_METRICS for policy in spec.scaling.policies)


def _fixed(spec: ServiceSpec) -> Decision:
    count = spec.scaling.min_replicas
    if spec.held:
        return Decision(
            target=count, reason="held at zero by the operator (stoker start releases it)", code="held"
        )
    return Decision(target=count, reason=f"fixed at {count}: min_replicas = max_replicas", code="fixed")


def _device_use(state: ObservedState, replica: Replica) -> float | None:
    """Mean utilisation of a replica's devices, None where none of them tells."""
    devices = [state.inventory.get(held.uuid) for held in replica.reservations]
    busy = [device.utilization for device in devices if device is not None and device.utilization is not None]
    return sum(busy) / len(busy) if busy else None


def _pool_state(state: ObservedState, key: ServiceKey, target: int, startup: float | None) -> PoolState:
    replicas = state.of(key)
    return PoolState(
        ready=sum(replica.phase == "ready" for replica in replicas),
        starting=sum(replica.phase in {"pending", "starting"} for replica in replicas),
        draining=sum(replica.phase in {"draining", "stopping"} for replica in replicas),
        target=target,
        startup_seconds=startup,
    )


def median_startup(state: ObservedState, key: ServiceKey) -> float | None:
    """Seconds that its replicas took to get ready, None where none has."""
    started = [r.startup_seconds for r in state.of(key) if r.startup_seconds is not None]
    return median(started) if started else None
