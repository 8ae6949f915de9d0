"""Compares what is wanted with what is there; the answer is a plan. Pure: `now` is passed in.

    pools > is each revision good (`revisions`) > who comes and goes (`rollout`) > timers and sick devices
    > who starts (`admission`)

A plan holds at most one action per replica and the time to ask again though nothing happens. A quiet world
gives an empty plan.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Container, Iterable, Mapping
from functools import partial
from typing import Any

from stoker.decide import placement, rollout
from stoker.decide.admission import admit
from stoker.decide.draft import Draft, Place
from stoker.decide.memo import Memo
from stoker.decide.pool import Pool, is_ready
from stoker.decide.revisions import judge
from stoker.model.action import (
    AddReplica,
    DrainReplica,
    ForgetReplica,
    KillReplica,
    Plan,
    ResumeReplica,
    StopReplica,
)
from stoker.model.device import Inventory, called
from stoker.model.quantity import format_duration
from stoker.model.replica import Replica
from stoker.model.service import DesiredState, Probe, ServiceKey, ServiceSpec
from stoker.model.state import ObservedState

UNUSABLE = frozenset({"lost", "draining", "quarantined"})
"""A worker on a device of such health is moved to another."""


def reconcile(
    desired: DesiredState,
    observed: ObservedState,
    now: float,
    *,
    place: Place = placement.place,
    memo: Memo | None = None,
) -> Plan:
    """Return what to do now, and when to ask again. Pure: what is in `memo`, the one of the plan before,
    saves time and changes nothing."""
    memo = Memo() if memo is None else memo
    found = memo.look(desired, observed)
    draft = Draft(observed.replicas.values(), observed.inventory, now, place)
    news = memo.news(observed, draft)
    for pool in news:
        draft.turn_to(pool.key)
        judge(draft, pool, observed, desired)
    if draft.turns_back:
        return Plan(actions=draft.plan().actions)  # the next plan follows at once
    needed = _needed_by_others(found, observed)
    for pool in news:
        draft.turn_to(pool.key)
        if pool.key in needed:
            draft.lean()
        step = rollout.step(
            pool,
            fits_without=partial(_fits, draft, pool),
            sound=lambda replica: not _sick_device(replica, observed.inventory),
        )
        _drop(draft, pool, step, observed, waits=pool.key in needed)
        _add(draft, pool, step, observed)
    for pool in news:
        draft.turn_to(pool.key)
        for replica in pool.members:
            if draft.open(replica):
                _tend(draft, pool, replica, observed)
    memo.keep(news, observed, draft)
    admit(draft, found, news, observed.preparing)
    return draft.plan()


def _fits(draft: Draft, pool: Pool, without: Iterable[Replica]) -> bool:
    return pool.spec is not None and draft.fits(pool.spec, without=tuple(without))


def _needed_by_others(found: Mapping[ServiceKey, Pool], observed: ObservedState) -> frozenset[ServiceKey]:
    """Services that end, because everything does or they are no longer configured, while a living worker of
    another one depends on them: they end after it. Those that wait for each other in a ring do not."""
    ending = {key for key, pool in found.items() if pool.alive and (pool.spec is None or observed.stopping)}
    if not ending:
        return frozenset()
    held_by: dict[ServiceKey, set[ServiceKey]] = {key: set() for key in ending}
    for name, pool in found.items():
        for key in pool.leans_on & ending:
            if key != name:
                held_by[key].add(name)
    return frozenset(key for key, others in held_by.items() if others and not _in_a_ring(key, held_by))


def _in_a_ring(key: ServiceKey, held_by: Mapping[ServiceKey, Collection[ServiceKey]]) -> bool:
    seen: set[ServiceKey] = set()
    ahead = list(held_by[key])
    while ahead:
        other = ahead.pop()
        if other == key:
            return True
        if other not in seen:
            seen.add(other)
            ahead += held_by.get(other, ())
    return False


# --- who comes, who goes ----------------------------------------------------------------------------------


def replica_id(key: ServiceKey, serial: int, taken: Container[str]) -> str:
    """A short readable id, `infer-k3x9`: always the same for the same serial, never one of `taken`. Pure."""
    name, attempt = key.rpartition("/")[2], 0
    while True:
        digest = hashlib.sha256(f"{key}:{serial}:{attempt}".encode()).digest()
        made = f"{name}-{base64.b32encode(digest)[:4].decode().lower()}"
        if made not in taken:
            return made
        attempt += 1


def _add(draft: Draft, pool: Pool, step: rollout.Step, observed: ObservedState) -> None:
    for replica in step.resume:
        reason = f"{pool.wanted} wanted again; its drain was called off"
        draft.act(ResumeReplica(**{**_who(replica), "cause": _cause(pool, observed)}, reason=reason))
    if not step.add:
        return
    taken = set(observed.replicas)
    for number in range(step.add):
        new = replica_id(pool.key, observed.serial + number, taken)
        taken.add(new)
        draft.act(
            AddReplica(
                replica=new,
                service=pool.key,
                revision=pool.revision,
                reason=f"{pool.wanted} wanted, {len(pool.counted)} there",
                cause=_cause(pool, observed),
            )
        )


def _drop(draft: Draft, pool: Pool, step: rollout.Step, observed: ObservedState, *, waits: bool) -> None:
    """Let replicas go. `waits`: living workers of others depend on this service; only what has no worker
    goes now."""
    for replica, why in step.drop:
        reason = _why_none(pool, observed) or why
        what: dict[str, Any] = {**_who(replica), "cause": _cause(pool, observed), "reason": reason}
        if replica.phase == "pending":
            draft.act(ForgetReplica(**what))
        elif waits or replica.phase not in ("starting", "ready", "unready"):
            continue
        elif replica.ready_at is None or (replica.condemned and not replica.gently):
            draft.act(StopReplica(**what, signal=pool.drain_of(replica).signal))
        else:
            draft.act(DrainReplica(**what))


def _cause(pool: Pool, observed: ObservedState) -> str:
    """Id of the event behind a change of number or revision."""
    config = observed.causes.get("config", "")
    updating = pool.updating and pool.key not in observed.rejected
    return config if updating else observed.causes.get(pool.key, config)


def _why_none(pool: Pool, observed: ObservedState) -> str:
    """Why the service has no replica at all, "" if it is wanted."""
    if observed.stopping:
        return "everything is being stopped"
    if pool.spec is None:
        return "its service is no longer configured"
    if pool.spec.held:
        return "stopped by the operator"
    return "" if pool.wanted else "scaled to zero"


# --- each replica by itself -------------------------------------------------------------------------------


def _tend(draft: Draft, pool: Pool, replica: Replica, observed: ObservedState) -> None:
    """What is due for one replica whatever its pool wants: timers, sick devices, records of the dead."""
    match replica.phase:
        case "exited":
            draft.act(ForgetReplica(**_who(replica), reason="nothing is left of it"))
        case "starting" | "ready" | "unready":
            _tend_running(draft, pool, replica, observed.inventory)
        case "draining":
            _tend_draining(draft, pool, replica)
        case "stopping":
            grace = pool.drain_of(replica).grace
            if not replica.kill_sent and draft.due(replica.since + grace):
                reason = f"still there {format_duration(grace)} after the stop signal"
                draft.act(KillReplica(**_who(replica), reason=reason))
        case "lost":
            patience = pool.drain_of(replica).timeout if pool.wanted else 0.0
            if draft.due(replica.since + patience):
                draft.act(
                    KillReplica(**_who(replica), reason=f"its driver lost sight of it: {replica.reason}")
                )


def _tend_running(draft: Draft, pool: Pool, replica: Replica, inventory: Inventory) -> None:
    signal = pool.drain_of(replica).signal
    sick = _sick_device(replica, inventory)
    if replica.condemned and replica.gently and replica.ready_at is not None:
        draft.act(DrainReplica(**_who(replica), leave=False, reason=replica.condemned))
    elif replica.condemned:
        fault = {"fault": replica.condemned_for or "liveness", "reason": replica.condemned}
        draft.act(StopReplica(**_who(replica), signal=signal, leave=False, **fault))
    elif sick and replica.ready_at is None:
        draft.act(StopReplica(**_who(replica), signal=signal, leave=False, reason=sick))
    elif sick:
        draft.act(DrainReplica(**_who(replica), leave=False, reason=sick))
    elif replica.moving and sum(map(is_ready, pool.counted)) >= pool.wanted:
        draft.act(DrainReplica(**_who(replica), reason=f"{replica.moving}; another one serves in its place"))
    elif replica.phase == "starting" and pool.spec is not None:
        timeout = pool.spec.probes.startup_timeout
        if draft.due(replica.started + timeout):
            unanswered = _unanswered(pool.spec, replica)
            reason = f"not ready within {format_duration(timeout)}{unanswered}"
            fault = {"fault": "hung-start", "reason": reason}
            draft.act(StopReplica(**_who(replica), signal=signal, leave=False, **fault))


def _unanswered(spec: ServiceSpec, replica: Replica) -> str:
    """What was asked of a start without a good answer, for whoever has to mend it."""
    probe = spec.probes.startup or spec.probes.readiness or Probe(tcp=spec.told_where)
    if probe.http:
        return f": no good answer to GET {probe.http} at {replica.endpoint}"
    if probe.exec:
        return f": `{' '.join(probe.exec)}` did not end well"
    if probe.notify:
        return ": it did not say READY=1 (sd_notify)"
    own = ", or the image's own check fails" if spec.container.image else ""
    return f": nothing listens at {replica.endpoint}{own}" if probe.tcp else ""


def _tend_draining(draft: Draft, pool: Pool, replica: Replica) -> None:
    drain = pool.drain_of(replica)
    if replica.drained or replica.ready_at is None:
        reason = f"{replica.reason}; nothing is in flight"
    elif draft.due(replica.since + drain.timeout):
        reason = f"{replica.reason}; requests still in flight after {format_duration(drain.timeout)}"
    else:
        return
    draft.act(StopReplica(**_who(replica), signal=drain.signal, leave=replica.leave, reason=reason))


def _sick_device(replica: Replica, inventory: Inventory) -> str:
    """Why it cannot stay on its devices, "" if it can. While the driver does not answer nothing is known."""
    if inventory.state != "ok":
        return ""
    for reservation in replica.reservations:
        device = inventory.get(reservation.uuid)
        if device is None and inventory.nameless:
            continue  # it may be one of those that have not said yet who they are
        if device is None:
            return f"device {reservation.uuid} is no longer there"
        if device.health in UNUSABLE:
            detail = f" ({device.health_reason})" if device.health_reason else ""
            return f"device {device.uuid} is {called(device.health)}{detail}"
    return ""


def _who(replica: Replica) -> dict[str, Any]:
    return {"replica": replica.id, "service": replica.service, "cause": replica.cause}
