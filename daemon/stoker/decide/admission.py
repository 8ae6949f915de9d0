"""Which pending replicas may start now, on what devices, and the reason why the others wait. Pure.

Order: priority, then services in the middle of an update (they had the devices before), then age. A start
must pass, one after the other: its backoff, its dependencies, the strategy of a running update, the bound
on living workers, placement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stoker.decide.draft import Draft
from stoker.decide.pool import Pool, is_ready, victims
from stoker.decide.rollout import bounds
from stoker.model.action import DrainReplica, HoldReplica, MoveReplica, StartReplica, StopReplica
from stoker.model.device import Placement
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec


def admit(
    draft: Draft,
    found: Mapping[ServiceKey, Pool],
    waiting: Iterable[Pool],
    preparing: Mapping[ServiceKey, str],
) -> None:
    """Put a start or a hold into the draft for each pending replica that is still open; all of them are in
    the pools `waiting`. `preparing`: what services wait for that is being fetched."""
    queue = _in_order(waiting, draft)
    alive = {pool.key: len(pool.alive) for pool, _, _ in queue}
    loading = _loading(found.values()) if any(spec.resources.gpu for _, spec, _ in queue) else {}
    for pool, spec, replica in queue:
        draft.turn_to(pool.key)
        if not draft.due(replica.not_before):
            _keep_devices(draft, spec, replica)
            continue
        reason = preparing.get(pool.key) or _gate(pool, spec, replica, found)
        reason = reason or _full(pool, spec, alive[pool.key])
        if not reason:
            placement = draft.place(spec)
            draft.take(replica, placement.reservations)
            reason = _crowded(placement, loading) if placement.placed else placement.reason
            if not placement.placed and not (spec.preempt and _preempt(draft, spec, replica, found)):
                _make_room(draft, spec, replica, found)
            if not reason:
                alive[pool.key] += 1
                loading |= {given.uuid: replica.id for given in placement.reservations if given.share < 1}
                _start(draft, pool, replica, placement)
                continue
        if reason != replica.reason:
            draft.act(HoldReplica(replica=replica.id, service=pool.key, reason=reason, cause=replica.cause))


def _make_room(draft: Draft, spec: ServiceSpec, replica: Replica, found: Mapping[ServiceKey, Pool]) -> None:
    """Where it waits for whole devices on which only shares are: have the fewest of these go elsewhere. One
    thing at a time: what is on its way out already may be all that it takes."""
    everyone = [member for pool in found.values() for member in pool.members if member.reservations]
    if spec.resources.gpu < 1 or any(r.leave or r.phase not in ("ready", "unready") for r in everyone):
        return
    settled = {key: pool.spec for key, pool in found.items() if pool.spec is not None and not pool.updating}
    room = draft.opening(spec, settled)
    for moved in room.moves if room is not None else ():
        draft.act(
            MoveReplica(
                replica=moved.id,
                service=moved.service,
                reason=f"{replica.id} needs its GPU whole",
                cause=replica.cause,
                devices=room.devices if room is not None else (),
            )
        )


def _preempt(draft: Draft, spec: ServiceSpec, replica: Replica, found: Mapping[ServiceKey, Pool]) -> bool:
    """Have the fewest replicas of services with a lower priority give their devices back; they wait in its
    place. One thing at a time, as above. Returns whether anybody goes."""
    everyone = [member for pool in found.values() for member in pool.members if member.reservations]
    if any(member.phase in ("draining", "stopping") for member in everyone) or draft.fits(spec):
        return False
    lower = [
        (pool, member)
        for pool in found.values()
        if pool.spec is not None and _priority(pool) < spec.priority
        for member in victims(pool.alive, len(pool.alive))
        if member.reservations and draft.open(member)
    ]
    # Of equal ones those that hold most go first: so the fewest have to.
    lower.sort(key=lambda one: (_priority(one[0]), -sum(given.share for given in one[1].reservations)))
    if not draft.fits(spec, without=[member for _, member in lower]):
        return False
    going = list(lower)
    for spared in reversed(lower):  # those of the highest priority first
        rest = [one for one in going if one is not spared]
        if draft.fits(spec, without=[member for _, member in rest]):
            going = rest
    for pool, member in going:
        who: dict[str, Any] = {
            "replica": member.id,
            "service": pool.key,
            "leave": False,
            "cause": replica.cause,
        }
        reason = f"{replica.id} preempts it (priority {spec.priority})"
        if member.ready_at is None:
            draft.act(StopReplica(**who, reason=reason, signal=pool.drain_of(member).signal))
        else:
            draft.act(DrainReplica(**who, reason=reason))
    return bool(going)


def _priority(pool: Pool) -> int:
    return pool.spec.priority if pool.spec is not None else 0


def _start(draft: Draft, pool: Pool, replica: Replica, placement: Placement) -> None:
    draft.act(
        StartReplica(
            replica=replica.id,
            service=pool.key,
            revision=pool.revision,
            reservations=placement.reservations,
            reason=_why_start(replica),
            devices_reason=placement.reason,
            cause=replica.cause,
        )
    )


def _loading(found: Iterable[Pool]) -> dict[str, str]:
    """The replica that is loading on each shared device, by its UUID."""
    return {
        given.uuid: replica.id
        for pool in found
        for replica in pool.members
        if replica.phase == "starting"
        for given in replica.reservations
        if given.share < 1
    }


def _crowded(placement: Placement, loading: Mapping[str, str]) -> str:
    """Why the device must be waited for, "" if it need not: a worker that sizes itself by the memory that is
    free at its start gets it wrong while another is still filling the same device."""
    for given in placement.reservations:
        if given.uuid in loading:
            return f"waits until {loading[given.uuid]} has started: on a shared GPU one loads at a time"
    return ""


def _in_order(found: Iterable[Pool], draft: Draft) -> list[tuple[Pool, ServiceSpec, Replica]]:
    waiting = [
        (pool, pool.spec, replica)
        for pool in found
        if pool.spec is not None
        for replica in pool.pending
        if draft.open(replica)
    ]
    waiting.sort(key=lambda w: (-w[1].priority, not w[0].updating, w[2].created, w[2].id))
    return waiting


def _keep_devices(draft: Draft, spec: ServiceSpec, replica: Replica) -> None:
    """A worker that failed keeps its place in the queue for devices while it waits to be restarted; one in a
    crash loop must not keep others from theirs."""
    if spec.resources.gpu and replica.failures < spec.restart.crash_loop:
        draft.take(replica, draft.place(spec).reservations)


def _why_start(replica: Replica) -> str:
    if not replica.restarts:
        return "it is wanted"
    return f"restart {replica.restarts}: {replica.failure or replica.last_exit}"


def _gate(pool: Pool, spec: ServiceSpec, replica: Replica, found: Mapping[ServiceKey, Pool]) -> str:
    """What the start must wait for, "" for nothing. Dependencies hold up only the very first worker: a
    service that has served knows how to wait for them itself."""
    if spec.update.strategy == "Recreate" and any(r.revision != pool.revision for r in pool.alive):
        return "waits until the old revision has stopped (Recreate)"
    if replica.restarts or pool.alive:
        return ""
    for name in spec.depends:
        key = f"{spec.deployment}/{name}"
        wanted = found.get(key)
        if wanted is None or wanted.spec is None:
            return f"waits for {name}, which is not configured"
        if wanted.spec.held:
            return f"waits for {name}, which is stopped by the operator (stoker start {name})"
        if not wanted.asleep and not any(is_ready(r) for r in wanted.members):
            return f"waits for {name} to be ready"
    return ""


def _full(pool: Pool, spec: ServiceSpec, alive: int) -> str:
    """Why no further worker may live now, "" if one may: workers that are still stopping count."""
    update = any(replica.revision != pool.revision for replica in pool.alive)
    surge = bounds(spec.update, pool.wanted)[0] if update else 0
    moving = sum(bool(replica.moving) for replica in pool.alive)
    if alive < spec.scaling.max_replicas + surge + moving:
        return ""
    beyond = f" + {surge} during the update" if surge else ""
    return f"waits for a worker to end: {alive} live, max_replicas is {spec.scaling.max_replicas}{beyond}"
