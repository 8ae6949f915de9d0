"""From settled decisions to targets that the box can bear: every service's claim, and its part. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from stoker.decide.budget import BudgetMemory, Grant, share_out
from stoker.decide.claims import Amount, Claim, Ledger, Present, claim_of, guarantee_of
from stoker.decide.pool import victims
from stoker.decide.views import capacities
from stoker.model.device import Inventory
from stoker.model.load import Decision
from stoker.model.replica import Replica
from stoker.model.service import DesiredState, Resources, ServiceKey, ServiceSpec
from stoker.model.state import ObservedState


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """The devices that serve the same services equally well, and what each service takes of them."""

    devices: Mapping[str, float] = field(default_factory=dict)
    """How many there are of each kind."""
    takes: Mapping[ServiceKey, Mapping[str, float]] = field(default_factory=dict)
    of: Mapping[str, str] = field(default_factory=dict)
    """The kind of each device, by UUID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A service's settled decision, and the target it was given last (None: none yet)."""

    decision: Decision
    granted: int | None = None
    startup: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What a service has: the target that may be in force now, and its decision with the budget's words."""

    target: int
    decision: Decision
    short: int = 0
    """Replicas that its promise needs and that it does not get."""
    lacking: int = 0
    """Of these, the ones without which its queue grows: the box is overloaded."""


def apportion(
    desired: DesiredState,
    observed: ObservedState,
    asked: Mapping[ServiceKey, Asked],
    now: float,
    *,
    kinds: Kinds | None,
    room: Amount,
    memory: BudgetMemory,
    name: str = "the box",
) -> tuple[dict[ServiceKey, Portion], BudgetMemory, float | None]:
    """Share the box out among all services that have decided. Also returns the memory, and when to ask again
    though nothing happens.

    `kinds` None: nothing is known of devices, so none are counted; who needs one waits for it in placement.
    `room`: cores and bytes of the box, or of whatever has that `name`. Whatever it has, each service keeps
    its `min_replicas`: what of them cannot be placed waits in sight.
    """
    claims = [
        _claim(desired.services[key], observed, one, kinds)
        for key, one in asked.items()
        if key in desired.services
    ]
    box = replace(room, devices=math.inf if kinds is None else sum(kinds.devices.values()))
    idle: Literal["fill", "release"] = desired.box.idle if kinds is not None else "release"
    devices = kinds.devices if kinds else None
    shares = share_out(box, claims, memory, now, idle=idle, kinds=devices, name=name)
    found = {
        claim.service: _portion(claim, asked[claim.service], shares.grants[claim.service]) for claim in claims
    }
    return found, shares.memory, shares.wake_at


def kinds_of(
    services: Sequence[ServiceSpec], inventory: Inventory, replicas: Sequence[Replica]
) -> Kinds | None:
    """Tell the box's devices apart by whom they can serve. None: nothing is known of devices."""
    if inventory.state == "none" or not inventory.devices:
        return None
    needs: dict[Resources, dict[str, float]] = {}
    for spec in services:
        if spec.resources.gpu > 0 and spec.resources not in needs:
            needs[spec.resources] = capacities(spec.resources, inventory, replicas)
    kinds: dict[tuple[float, ...], list[str]] = {}
    for device in inventory.devices:
        able = tuple(found.get(device.uuid, 0.0) for found in needs.values())
        if any(able):
            kinds.setdefault(able, []).append(device.uuid)
    names = {able: f"{number}" for number, able in enumerate(kinds)}
    takes: dict[Resources, dict[str, float]] = {}
    for index, (need, _) in enumerate(needs.items()):
        usable = sorted((able for able in kinds if able[index]), key=lambda able: sum(map(bool, able)))
        takes[need] = {names[able]: 1 / able[index] for able in usable}
    return Kinds(
        devices={names[able]: float(len(uuids)) for able, uuids in kinds.items()},
        takes={spec.key: takes.get(spec.resources, {}) for spec in services},
        of={uuid: names[able] for able, uuids in kinds.items() for uuid in uuids},
    )


def clash(desired: DesiredState, kinds: Kinds | None) -> tuple[ServiceKey, str] | None:
    """Guarantees for which the box has not devices enough: the service that would pay with its own, and why.

    What one service asks beyond the whole box is no clash: its last replicas wait, and nobody else does.
    """
    if kinds is None:
        return None
    claims = sorted(
        (guarantee_of(spec, kinds.takes.get(key)) for key, spec in desired.services.items()),
        key=lambda claim: (-claim.priority, claim.service),
    )
    box = Amount(cpu=math.inf, memory=math.inf)
    together = Ledger(box, claims, kinds.devices)
    preempting = [spec.priority for spec in desired.services.values() if spec.preempt]
    for claim in claims:
        alone = Ledger(box, [claim], kinds.devices)
        alone.give(claim, claim.least)
        together.give(claim, alone.granted[claim.service])
        if max(preempting, default=claim.priority) > claim.priority:
            continue  # that it may have to wait is as the operator wants it
        if together.granted[claim.service] < alone.granted[claim.service]:
            has = sum(kinds.devices.values())
            parts = [f"{c.service} {c.least} x {c.each.devices:g}" for c in claims]
            message = (
                f"min_replicas do not fit the box together: it has {has:g} GPUs for them, and "
                f"{', '.join(parts)} are guaranteed"
            )
            return claim.service, message
    return None


def _claim(spec: ServiceSpec, observed: ObservedState, asked: Asked, kinds: Kinds | None) -> Claim:
    """What is there counts up to what was granted: a replica that was taken away but has not been told yet
    must not win its place back. One that restarts after a failure keeps its part, unless it does nothing
    but fail."""
    mine = [replica for replica in observed.of(spec.key) if replica.phase != "exited"]
    counted = [replica for replica in mine if not replica.leave and _holds(replica, spec)]
    granted = len(counted) if asked.granted is None else min(len(counted), asked.granted)
    leaving = {replica.id for replica in victims(counted, len(counted) - granted)}
    staying = [replica for replica in counted if replica.id not in leaving]
    present = Present(
        running=len(staying),
        draining=sum(replica.alive for replica in mine) - sum(replica.alive for replica in staying),
        startup=asked.startup,
        waiting=spec.key in observed.demand,
        at=tuple(_kind_of(replica, kinds) for replica in staying) if kinds else (),
    )
    takes = kinds.takes.get(spec.key, {}) if kinds else {}
    each = {"": math.inf} if kinds and spec.resources.gpu > 0 and not takes else takes
    return claim_of(spec, asked.decision, asked.decision.target, present, each)


def _holds(replica: Replica, spec: ServiceSpec) -> bool:
    if replica.phase == "pending":
        return 0 < replica.failures < spec.restart.crash_loop
    return replica.phase in ("starting", "ready", "unready")


def _kind_of(replica: Replica, kinds: Kinds) -> str:
    """Where it is; one without a device yet, or on one that the box cannot count on, is nowhere."""
    first = replica.reservations[0].uuid if replica.reservations else ""
    return kinds.of.get(first, "gone" if first else next(iter(kinds.takes.get(replica.service, {})), ""))


def _portion(claim: Claim, asked: Asked, grant: Grant) -> Portion:
    decision = asked.decision
    target = max(grant.target, claim.least)
    words = [grant.reason] if grant.reason else []
    beyond = target - claim.tier("want")
    if beyond > 0:
        words.append(f"plus {beyond} on idle GPUs (box.idle: fill)")
    now = max(min(target, grant.affordable), claim.least)
    if now < target:
        words.append(f"{target - now} of them when replicas that leave have given back cores and memory")
    if words:
        facts = {**decision.facts, "wanted": float(decision.target), "granted": float(target)}
        reason = "; ".join([decision.reason, *words])
        decision = replace(decision, target=target, reason=reason, facts=facts)
    return Portion(
        target=now, decision=decision, short=grant.short, lacking=max(0, claim.tier("base") - target)
    )
