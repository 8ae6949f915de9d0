"""The only place where a phase changes: events in, the next state out. Pure.

    pending > starting > ready <> unready > draining > stopping > exited         (lost from any with a worker)
       ^__________________________________________________________|  unless it is to leave for good

One small function per event, one table that says in which phases it applies. An event that fits no line of
the table raises; the races that are part of normal life stand in `RACES`, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stoker.decide import revisions, standing
from stoker.decide.restart import Verdict, after_exit, after_permanent_failure
from stoker.errors import StokerError
from stoker.model.event import (
    DrainRequested,
    Event,
    KillSignalled,
    LivenessFailed,
    ReplicaAdded,
    ReplicaBecameReady,
    ReplicaBecameUnready,
    ReplicaDrained,
    ReplicaEvent,
    ReplicaForgotten,
    ReplicaHeld,
    ReplicaMoving,
    ReplicaResumed,
    SpawnFailed,
    StartRequested,
    StopSignalled,
    WorkerAdopted,
    WorkerCondemned,
    WorkerExited,
    WorkerLost,
    WorkerSpawned,
)
from stoker.model.quantity import format_duration
from stoker.model.replica import ALIVE, ExitStatus, Phase, Replica
from stoker.model.service import DesiredState, Drain, Restart
from stoker.model.state import ObservedState

GONE = "gone"
"""Stands for the phase of a replica that has no record."""


class InvalidTransitionError(StokerError):
    """An event that cannot have happened to a replica in its phase: a fault of Stoker's own."""

    def __init__(self, replica: str, phase: str, event: Event) -> None:
        self.replica = replica
        self.phase = phase
        self.event = event
        super().__init__(f"{type(event).__name__} cannot happen to replica {replica}, which is {phase}")


def fold(state: ObservedState, event: Event, desired: DesiredState) -> ObservedState:
    """Return the state after `event`. Pure. Raises InvalidTransitionError."""
    if not isinstance(event, ReplicaEvent):
        return _STATE_RULES[type(event)](state, event, desired)
    replica = state.replicas.get(event.replica)
    phase = replica.phase if replica else GONE
    if phase in RACES.get(type(event), {}):
        return state
    rule = _REPLICA_RULES[type(event)]
    if phase not in rule.phases:
        raise InvalidTransitionError(event.replica, phase, event)
    after = _put(state, event, rule.apply(replica, event, desired))
    if isinstance(event, ReplicaBecameReady | WorkerAdopted) and after.replicas[event.replica].serving:
        return revisions.witness(after, after.replicas[event.replica], desired)
    return after


def _put(state: ObservedState, event: ReplicaEvent, replica: Replica | None) -> ObservedState:
    if replica is None:
        return replace(state, replicas=state.replicas.without(event.replica))
    demand = state.demand - {replica.service} if replica.serving else state.demand
    serial = state.serial + 1 if isinstance(event, ReplicaAdded) else state.serial
    return replace(state, replicas=state.replicas.put(replica), demand=demand, serial=serial)


# --- what an event does to its replica --------------------------------------------------------------------


def _enter(replica: Replica, phase: Phase, event: Event, **changes: Any) -> Replica:
    return replace(replica, phase=phase, since=event.at, cause=event.id, **changes)


def _drain_rule(service: str, desired: DesiredState) -> Drain:
    spec = desired.services.get(service)
    return spec.drain if spec else Drain()


def _dependencies(service: str, desired: DesiredState) -> tuple[str, ...]:
    spec = desired.services.get(service)
    return tuple(f"{spec.deployment}/{name}" for name in spec.depends) if spec else ()


def _added(replica: None, event: ReplicaAdded, desired: DesiredState) -> Replica:
    del replica
    return Replica(
        id=event.replica,
        service=event.service,
        revision=event.revision,
        reason=event.reason,
        since=event.at,
        created=event.at,
        drain=_drain_rule(event.service, desired),
        cause=event.id,
    )


def _adopted(replica: Replica | None, event: WorkerAdopted, desired: DesiredState) -> Replica:
    """An adopted worker that is still starting gets its whole startup time again: nobody was asking it."""
    del replica
    created = event.created or event.at
    return Replica(
        id=event.replica,
        service=event.service,
        revision=event.revision,
        phase="ready" if event.ready else "starting",
        reason="taken over from the daemon before",
        since=event.at,
        created=created,
        reservations=event.reservations,
        handle=event.handle,
        endpoint=event.endpoint,
        restarts=event.restarts,
        started=created if event.ready else event.at,
        ready_at=created if event.ready else None,
        devices_reason=event.devices_reason,
        drain=_drain_rule(event.service, desired),
        depends=event.depends,
        cause=event.id,
    )


def _held(replica: Replica, event: ReplicaHeld, desired: DesiredState) -> Replica:
    del desired
    return replace(replica, reason=event.reason)


def _start(replica: Replica, event: StartRequested, desired: DesiredState) -> Replica:
    return _enter(
        replica,
        "starting",
        event,
        reason=event.reason,
        revision=event.revision or replica.revision,
        reservations=event.reservations,
        devices_reason=event.devices_reason,
        drain=_drain_rule(replica.service, desired),
        depends=_dependencies(replica.service, desired),
        started=event.at,
    )


def _spawned(replica: Replica, event: WorkerSpawned, desired: DesiredState) -> Replica:
    """The phase stays: the worker may have been told to stop before it existed."""
    del desired
    return replace(replica, handle=event.handle, endpoint=event.endpoint, started=event.at)


def _ready(replica: Replica, event: ReplicaBecameReady, desired: DesiredState) -> Replica:
    """One that was lost on its way out goes on with that when it is seen again."""
    del desired
    if replica.leave or replica.kill_sent:
        return replica
    changes: dict[str, Any] = {}
    if replica.ready_at is None:
        changes = {"ready_at": event.at, "startup_seconds": event.at - replica.started}
    return _enter(replica, "ready", event, reason=event.reason, **changes)


def _unready(replica: Replica, event: ReplicaBecameUnready, desired: DesiredState) -> Replica:
    del desired
    if replica.phase == "draining":
        return replace(replica, unfit=True)
    return _enter(replica, "unready", event, reason=event.reason)


def _liveness_failed(replica: Replica, event: LivenessFailed, desired: DesiredState) -> Replica:
    """Only a mark: the next plan stops the worker, and its end is then counted as a failure."""
    del desired
    return replace(replica, condemned=event.reason, reason=event.reason, cause=event.id)


def _condemned(replica: Replica, event: WorkerCondemned, desired: DesiredState) -> Replica:
    """As with a failed liveness probe; the first reason stands."""
    del desired
    if replica.condemned:
        return replica
    return replace(
        replica,
        condemned=event.reason,
        condemned_for=event.fault,
        gently=event.gently,
        reason=event.reason,
        cause=event.id,
    )


def _draining(replica: Replica, event: DrainRequested, desired: DesiredState) -> Replica:
    del desired
    unfit = replica.phase == "unready" or (replica.phase == "draining" and replica.unfit)
    leave = event.leave or replica.leave
    return _enter(replica, "draining", event, reason=event.reason, leave=leave, unfit=unfit)


def _moving(replica: Replica, event: ReplicaMoving, desired: DesiredState) -> Replica:
    """It serves on, but no longer fills a wanted place: so another one is started."""
    del desired
    return replace(
        replica,
        leave=True,
        moving=event.reason,
        vacates=event.devices,
        reason=event.reason,
        cause=event.id,
    )


def _resumed(replica: Replica, event: ReplicaResumed, desired: DesiredState) -> Replica:
    del desired
    return _enter(replica, "ready", event, reason=event.reason, leave=False, drained=False)


def _stopping(replica: Replica, event: StopSignalled, desired: DesiredState) -> Replica:
    del desired
    leave = event.leave or replica.leave
    reason = event.reason or replica.reason
    return _enter(replica, "stopping", event, reason=reason, leave=leave, fault=event.fault)


def _killed(replica: Replica, event: KillSignalled, desired: DesiredState) -> Replica:
    """A lost one leaves for good: its place was given to another when it was lost."""
    del desired
    reason, leave = event.reason or replica.reason, replica.leave or replica.phase == "lost"
    if replica.phase == "stopping":
        return replace(replica, kill_sent=True, reason=reason, cause=event.id)
    return _enter(replica, "stopping", event, kill_sent=True, reason=reason, leave=leave)


def _lost(replica: Replica, event: WorkerLost, desired: DesiredState) -> Replica:
    del desired
    return _enter(replica, "lost", event, reason=event.reason)


def _forgotten(replica: Replica, event: ReplicaForgotten, desired: DesiredState) -> None:
    del replica, event, desired


def _exited(replica: Replica, event: WorkerExited, desired: DesiredState) -> Replica:
    """Leaves for good, or waits for its next start. Only an end that nobody asked for is a failure."""
    if replica.leave:
        return _enter(
            replica, "exited", event, reason=str(event.status), **_NO_WORKER, last_exit=event.status
        )
    on_request = replica.phase in ("draining", "stopping")
    if on_request and not (replica.fault and replica.phase == "stopping") and not replica.condemned:
        reason = f"{replica.reason}; starting again"
        return _again(replica, event, event.status, Verdict(replica.failures, 0.0), reason=reason)
    fault = "signal" if event.status.signal is not None else "exit"
    if event.status.oom:
        fault = "out-of-memory"
    why = str(event.status)
    if on_request:
        fault = replica.condemned_for or replica.fault or "liveness"
        why = f"{replica.reason} ({why})"
    served = 0.0 if replica.ready_at is None else event.at - replica.ready_at
    rule = _restart_rule(replica, desired)
    verdict = after_exit(rule, replica.failures, served=served, key=replica.id)
    reason = _why_waiting(why, verdict, replica.restarts + 1)
    return _again(replica, event, event.status, verdict, reason=reason, fault=fault, failure=why)


def _spawn_failed(replica: Replica, event: SpawnFailed, desired: DesiredState) -> Replica:
    status, why = ExitStatus(detail=event.error), f"cannot start: {event.error}"
    if replica.leave:
        return _enter(replica, "exited", event, reason=why, **_NO_WORKER, last_exit=status)
    rule = _restart_rule(replica, desired)
    if event.permanent:
        verdict = after_permanent_failure(rule, replica.failures)
        reason = f"{why}; next try in {format_duration(verdict.delay)}"
    else:
        verdict = after_exit(rule, replica.failures, served=0.0, key=replica.id)
        reason = _why_waiting(why, verdict, replica.restarts + 1)
    fault = "cannot-start" if event.permanent else "spawn-failed"
    return _again(replica, event, status, verdict, reason=reason, fault=fault, failure=why)


_NO_WORKER: dict[str, Any] = {
    "handle": None,
    "endpoint": "",
    "reservations": (),
    "devices_reason": "",
    "drained": False,
    "unfit": False,
    "kill_sent": False,
    "condemned": "",
    "condemned_for": "",
    "gently": False,
    "ready_at": None,
    "startup_seconds": None,
}
"""What is true of a replica without a worker. Its devices are free from now on."""


def _again(replica: Replica, event: Event, status: ExitStatus, verdict: Verdict, **why: str) -> Replica:
    return _enter(
        replica,
        "pending",
        event,
        **why,
        **_NO_WORKER,
        restarts=replica.restarts + 1,
        failures=verdict.failures,
        not_before=event.at + verdict.delay,
        last_exit=status,
    )


def _restart_rule(replica: Replica, desired: DesiredState) -> Restart:
    spec = desired.services.get(replica.service)
    return spec.restart if spec else Restart()


def _why_waiting(why: str, verdict: Verdict, restart: int) -> str:
    delay = format_duration(verdict.delay)
    if verdict.crash_loop:
        return f"crash loop: {verdict.failures} failures in a row; next try in {delay}; last: {why}"
    return f"{why}; restart {restart} in {delay}" if verdict.delay else f"{why}; restarting now"


# --- the tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    phases: frozenset[str]
    apply: Callable[[Any, Any, DesiredState], Replica | None]


def _in(*phases: str) -> frozenset[str]:
    return frozenset(phases)


_REPLICA_RULES: Mapping[type[Event], _Rule] = {
    ReplicaAdded: _Rule(_in(GONE), _added),
    WorkerAdopted: _Rule(_in(GONE, "lost"), _adopted),
    ReplicaHeld: _Rule(_in("pending"), _held),
    StartRequested: _Rule(_in("pending"), _start),
    WorkerSpawned: _Rule(_in("starting", "draining", "stopping"), _spawned),
    SpawnFailed: _Rule(_in("starting", "draining", "stopping"), _spawn_failed),
    ReplicaBecameReady: _Rule(_in("starting", "unready", "lost"), _ready),
    ReplicaBecameUnready: _Rule(_in("ready", "unready", "draining"), _unready),
    LivenessFailed: _Rule(_in("ready", "unready"), _liveness_failed),
    WorkerCondemned: _Rule(_in("starting", "ready", "unready"), _condemned),
    DrainRequested: _Rule(_in("starting", "ready", "unready", "draining"), _draining),
    ReplicaMoving: _Rule(_in("ready"), _moving),
    ReplicaResumed: _Rule(_in("draining"), _resumed),
    ReplicaDrained: _Rule(_in("draining"), lambda replica, *_: replace(replica, drained=True)),
    StopSignalled: _Rule(ALIVE, _stopping),
    KillSignalled: _Rule(ALIVE, _killed),
    WorkerExited: _Rule(ALIVE, _exited),
    WorkerLost: _Rule(ALIVE, _lost),
    ReplicaForgotten: _Rule(_in("pending", "exited"), _forgotten),
}

_STATE_RULES = standing.RULES

_WITHOUT_WORKER = ("pending", "exited", GONE)
_PROBE_LATE = "the probe's answer was under way when the phase changed"
_ROUTER_LATE = "the router spoke of a worker that has stopped or been replaced meanwhile"
_EXIT_FIRST = "the worker ended by itself while the signal was on its way"
_LEAVING_ANYWAY = "the worker was on its way out when its devices were looked at"
_SAID_TWICE = "two observers saw the same end"

RACES: Mapping[type[Event], Mapping[str, str]] = {
    ReplicaBecameReady: dict.fromkeys(("ready", "draining", "stopping", *_WITHOUT_WORKER), _PROBE_LATE),
    ReplicaBecameUnready: dict.fromkeys(("starting", "stopping", "lost", *_WITHOUT_WORKER), _PROBE_LATE),
    LivenessFailed: dict.fromkeys(
        ("starting", "draining", "stopping", "lost", *_WITHOUT_WORKER), _PROBE_LATE
    ),
    WorkerCondemned: dict.fromkeys(("draining", "stopping", "lost", *_WITHOUT_WORKER), _LEAVING_ANYWAY),
    ReplicaDrained: dict.fromkeys(
        ("starting", "ready", "unready", "stopping", "lost", *_WITHOUT_WORKER), _ROUTER_LATE
    ),
    StopSignalled: dict.fromkeys(_WITHOUT_WORKER, _EXIT_FIRST),
    KillSignalled: dict.fromkeys(_WITHOUT_WORKER, _EXIT_FIRST),
    WorkerExited: dict.fromkeys(_WITHOUT_WORKER, _SAID_TWICE),
    WorkerLost: dict.fromkeys(_WITHOUT_WORKER, _SAID_TWICE),
}
"""Events that come too late in the normal course of things, by phase, and why. They change nothing."""
