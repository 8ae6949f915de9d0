"""The daemon's scaling loop on a virtual clock: samples, policies, windows, and what they make of a load.

Policies are asked when the daemon's would be: with each sample (one a second while a service is busy), when
a request finds no replica, when a replica gets ready, and when an answer said that it would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple

from stoker.decide.demand import LoadHistory
from stoker.decide.scaling import ScalingMemory, settle
from stoker.model.load import Decision
from stoker.model.service import ServiceSpec
from stoker.plugin.ports import Policy, PolicyInput
from stoker.simulate.pool import SimulatedPool, Tally
from stoker.simulate.trace import Trace

TICK = 1.0
"""Seconds between two samples of a busy service, as the router sends them."""
PATIENCE = 3600.0
"""Seconds after the last arrival when a run ends though requests still wait: nothing will serve them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One service and its load. `startup` and `slo_wait` in seconds; `startups`, if given, are those of the
    single starts in turn (the last one is repeated). `initial`: ready when the trace begins."""

    spec: ServiceSpec
    trace: Trace
    startup: float = 20.0
    slo_wait: float = 2.0
    initial: int | None = None
    startups: Sequence[float] = ()


class Moment(NamedTuple):
    """The state of one service at one time, for plots."""

    at: float
    in_flight: int
    queued: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one service: a wait per request (infinite: never served), cost, and its course."""

    case: Case
    waits: Sequence[float]
    tally: Tally
    moments: Sequence[Moment]
    decisions: Sequence[tuple[float, Decision]]
    """Each decision that changed the target, with its time."""
    ended: float


@dataclass(slots=True)
class Member:
    """One service in a run."""

    case: Case
    pool: SimulatedPool
    target: int
    history: LoadHistory = field(default_factory=LoadHistory)
    memory: ScalingMemory = field(default_factory=ScalingMemory)
    decision: Decision | None = None
    sampled: float = 0.0
    ready: int = 0
    wake_at: float | None = None
    moments: list[Moment] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)


Apportion = Callable[[Sequence[Member], float], None]
"""Gives each member's `target` to its pool; a budget may give less."""


def grant_all(members: Sequence[Member], _now: float) -> None:
    """Let every service have what it asks for."""
    for member in members:
        member.pool.resize(member.target)


def replay(
    cases: Sequence[Case], policy: Callable[[str], Policy], *, apportion: Apportion = grant_all
) -> list[Outcome]:
    """Run the cases side by side until each request was served; the same input gives the same outcome.

    `policy` makes a policy by its metric's name (raises PluginError).
    """
    policies: dict[str, Policy] = {}
    for case in cases:
        for rule in case.spec.scaling.policies:
            if rule.metric not in policies:
                policies[rule.metric] = policy(rule.metric)
    members = [_member(case) for case in cases]
    ends_by = max((case.trace.arrivals[-1] for case in cases), default=0.0) + PATIENCE
    now = 0.0
    while now < ends_by and not all(member.pool.finished for member in members):
        now = _next_tick(members, now, ends_by)
        changed = False
        for member in members:
            while member.pool.advance(now):
                _decide(member, policies, demand=True)
                apportion(members, member.pool.now)
            changed |= _look(member, policies, now)
        if changed:
            apportion(members, now)
    return [_outcome(member) for member in members]


def _member(case: Case) -> Member:
    scaling = case.spec.scaling
    initial = scaling.min_replicas if case.initial is None else case.initial
    initial = max(scaling.min_replicas, min(scaling.max_replicas, initial))
    startups = iter([*case.startups[:-1]])
    rest = repeat(case.startups[-1] if case.startups else case.startup)
    pool = SimulatedPool(
        case.trace,
        slots=case.spec.slots,
        startup=lambda: next(startups, None) or next(rest),
        initial=initial,
    )
    return Member(case=case, pool=pool, target=initial, ready=initial, wake_at=TICK)


def _next_tick(members: Sequence[Member], now: float, ends_by: float) -> float:
    """The next whole tick at which anything can happen: quiet stretches are passed over."""
    busy = any(not member.pool.at_rest for member in members)
    if not busy:
        coming = min(member.pool.next_event for member in members)
        wakes = min((m.wake_at for m in members if m.wake_at is not None), default=math.inf)
        now = max(now, math.ceil(min(coming, wakes, ends_by) / TICK - 1e-9) * TICK - TICK)
    return now + TICK


def _look(member: Member, policies: Mapping[str, Policy], now: float) -> bool:
    """Sample the service and decide, where there is a reason to; returns whether it was."""
    pool = member.pool
    # The first sample comes even at rest: without any, a policy could not tell rest from missing data.
    active = pool.meter.arrivals or pool.meter.completions or not pool.at_rest or not member.history.fine
    if active:
        # After a rest the router's sample begins with the activity, not with the rest.
        start = max(member.sampled, now - TICK)
        member.history = member.history.add(pool.sample(member.case.spec.key, start))
        member.sampled = now
        member.moments.append(Moment(now, pool.in_flight, len(pool.queue), member.target))
    due = active or pool.ready != member.ready or (member.wake_at is not None and member.wake_at <= now)
    if due:
        member.ready = pool.ready
        _decide(member, policies, demand=bool(pool.queue) and not pool.ready)
    return bool(due)


def _decide(member: Member, policies: Mapping[str, Policy], *, demand: bool) -> None:
    spec, pool = member.case.spec, member.pool
    if spec.scaling.min_replicas == spec.scaling.max_replicas:
        member.wake_at = None
        return
    now, before = pool.now, member.target
    view = pool.state(before, member.case.startup)
    answers = []
    for rule in spec.scaling.policies:
        given = PolicyInput(
            service=spec,
            policy=rule,
            window=lambda seconds: member.history.window(seconds, now),
            pool=view,
            now=now,
            state=member.memory.state_of(rule),
            wall=now,
        )
        answers.append((rule, policies[rule.metric].decide(given)))
    settled = settle(spec, answers, member.memory, view, now, demand=demand)
    member.decision, member.memory, member.wake_at = settled.decision, settled.memory, settled.wake_at
    member.target = settled.decision.target
    if member.target != before:
        member.decisions.append((now, settled.decision))


def _outcome(member: Member) -> Outcome:
    member.pool.close()
    return Outcome(
        case=member.case,
        waits=member.pool.waits,
        tally=member.pool.tally,
        moments=member.moments,
        decisions=member.decisions,
        ended=member.pool.now,
    )
