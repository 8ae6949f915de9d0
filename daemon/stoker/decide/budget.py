"""The box shared out: all services' targets against its devices, cores and memory. Pure.

What is granted, in this order: the guarantees (`min_replicas`); then the `base` of every service (without
it its queue grows without end), then `need` (the promised wait), then `want` (warm ones); in each of these
tiers the higher priority first, and inside a class weighted max-min: the next replica goes to the service
that has the smallest part of what it asks. There is no "first come, first served".

Against thrashing: a service keeps the replicas it has as far as its tier goes, before others get new ones;
a replica moves between services of one class and tier only over a gap in satisfaction, one at a time, and
not again for a while. Warm replicas give way to another's need at once, lower classes to higher ones too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stoker.model.quantity import format_bytes
from stoker.model.service import ServiceKey

GAP = 1 / 3
"""A replica moves only between services whose satisfaction (had of asked) differs by more than this."""
DWELL = 30.0
"""Seconds, or two start-ups if that is longer, during which neither side of a move is touched again."""
_INCUMBENT = 1.5
"""A warm replica that is there is worth so much more than one that would have to start."""
_TIERS = ("base", "need", "want")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A part of the box, or all of it: devices (shares count as such), cores, bytes. May be infinite."""

    devices: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0

    def times(self, count: int) -> Amount:
        """That of so many replicas."""
        return Amount(devices=self.devices * count, cpu=self.cpu * count, memory=self.memory * count)

    def minus(self, other: Amount) -> Amount:
        """What is left."""
        return Amount(
            devices=self.devices - other.devices,
            cpu=self.cpu - other.cpu,
            memory=self.memory - other.memory,
        )

    def lacks(self, other: Amount) -> str:
        """The first thing of which there is not enough for `other`, "" if it fits."""
        for name in ("devices", "cpu", "memory"):
            if getattr(other, name) > 0 and getattr(other, name) > getattr(self, name) + 1e-9:
                return name
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one service asks, and what it has. `each` is what one replica takes. `draining` replicas hold
    their part until they are gone. `value`: see Decision."""

    service: ServiceKey
    each: Amount
    least: int = 0
    base: int
    need: int
    want: int
    most: int
    priority: int = 0
    weight: float = 1.0
    present: int = 0
    """Starting and ready replicas."""
    draining: int = 0
    startup: float = 0.0
    value: tuple[float, ...] = ()

    def tier(self, name: str) -> int:
        """The count asked at that tier, within bounds and never below the tier under it."""
        found = max(self.least, self.base)
        if name != "base":
            found = max(found, self.need)
        if name == "want":
            found = max(found, self.want)
        return min(found, max(self.most, self.least))


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetMemory:
    """When a replica was last moved from or to a service (monotonic seconds)."""

    moved: Mapping[ServiceKey, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One service's part. `target` is what it is to have; `startable` is what of it can be there now, while
    others' replicas still drain. `reason` says what it does not get and who has it, "" if all."""

    target: int
    startable: int
    reason: str = ""
    short: int = 0
    """Replicas that it needs for its promise (`need`) and does not get: to be shed at the router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The box shared out."""

    grants: Mapping[ServiceKey, Grant]
    memory: BudgetMemory


def share_out(
    box: Amount,
    claims: Sequence[Claim],
    memory: BudgetMemory,
    now: float,
    *,
    idle: Literal["fill", "release"] = "release",
) -> Shares:
    """Return what each service may have; the same input gives the same answer, whatever its order."""
    work = _Work(box, sorted(claims, key=lambda claim: (-claim.priority, claim.service)))
    for claim in work.claims:
        work.give(claim, claim.least)
    moved = dict(memory.moved)
    for tier in _TIERS:
        for priority in sorted({claim.priority for claim in work.claims}, reverse=True):
            group = [claim for claim in work.claims if claim.priority == priority]
            _serve(work, group, tier)
            if tier != "want":
                _move(work, group, tier, moved, now)
    if idle == "fill":
        _fill(work)
    startable = _startable(work)
    grants = {
        claim.service: Grant(
            target=work.granted[claim.service],
            startable=startable[claim.service],
            reason=_reason(work, claim),
            short=max(0, claim.tier("need") - work.granted[claim.service]),
        )
        for claim in work.claims
    }
    known = {service: at for service, at in moved.items() if service in grants}
    return Shares(grants=grants, memory=BudgetMemory(moved=known))


def overcommitted(box: Amount, claims: Sequence[Claim]) -> str:
    """Why the guarantees do not fit the box, "" if they do: a configuration to refuse."""
    left = box
    for claim in claims:
        left = left.minus(claim.each.times(claim.least))
    for name in ("devices", "cpu", "memory"):
        if getattr(left, name) < -1e-9:
            parts = [
                f"{claim.service} {claim.least} x {_quantity(name, getattr(claim.each, name))}"
                for claim in claims
                if claim.least and getattr(claim.each, name)
            ]
            has = _quantity(name, getattr(box, name))
            return f"min_replicas do not fit: the box has {has}, and {', '.join(parts)} are guaranteed"
    return ""


class _Work:
    """Grants in the making, and what is left of the box."""

    def __init__(self, box: Amount, claims: Sequence[Claim]) -> None:
        self.box = self.left = box
        self.claims = claims
        self.granted = {claim.service: 0 for claim in claims}

    def give(self, claim: Claim, upto: int) -> None:
        """Raise its grant to `upto`, as far as the box goes."""
        while self.granted[claim.service] < upto and not self.left.lacks(claim.each):
            self.left = self.left.minus(claim.each)
            self.granted[claim.service] += 1

    def take(self, claim: Claim) -> None:
        """Lower its grant by one."""
        self.left = self.left.minus(claim.each.times(-1))
        self.granted[claim.service] -= 1

    def satisfaction(self, claim: Claim, tier: str, change: int = 0) -> float:
        """Had of asked, weighed; a service that asks nothing is content."""
        asked = claim.tier(tier)
        return (self.granted[claim.service] + change) / (claim.weight * asked) if asked else math.inf


def _serve(work: _Work, group: Sequence[Claim], tier: str) -> None:
    """Keep what is there, then weighted max-min."""
    for claim in group:
        work.give(claim, min(claim.present, claim.tier(tier)))
    while True:
        asking = [
            claim
            for claim in group
            if work.granted[claim.service] < claim.tier(tier) and not work.left.lacks(claim.each)
        ]
        if not asking:
            return
        poorest = min(asking, key=lambda claim: (work.satisfaction(claim, tier), claim.service))
        work.give(poorest, work.granted[poorest.service] + 1)


def _move(work: _Work, group: Sequence[Claim], tier: str, moved: dict[ServiceKey, float], now: float) -> None:
    """Where the tier could not be served in full: one replica from the best served to the worst."""
    short = [claim for claim in group if work.granted[claim.service] < claim.tier(tier)]
    if not short:
        return
    poorest = min(short, key=lambda claim: (work.satisfaction(claim, tier), claim.service))
    donors = [
        claim
        for claim in group
        if claim is not poorest
        and work.granted[claim.service] > max(1, claim.least)
        and now - moved.get(claim.service, -math.inf) > max(DWELL, 2 * claim.startup)
        and not work.left.minus(claim.each.times(-1)).lacks(poorest.each)
    ]
    if not donors:
        return
    richest = max(donors, key=lambda claim: (work.satisfaction(claim, tier), claim.service))
    gap = work.satisfaction(richest, tier, -1) - work.satisfaction(poorest, tier)
    if gap > GAP * (1 if tier == "need" else 0.5):
        work.take(richest)
        work.give(poorest, work.granted[poorest.service] + 1)
        moved[richest.service] = moved[poorest.service] = now


def _fill(work: _Work) -> None:
    """What is left idle goes where the most requests would otherwise wait; what is there stays there."""
    while True:
        best: tuple[float, bool, ServiceKey] | None = None
        for claim in work.claims:
            granted = work.granted[claim.service]
            if granted >= claim.most or work.left.lacks(claim.each):
                continue
            there = claim.present > granted
            value = claim.value[granted] if granted < len(claim.value) else 0.0
            if value > 0 or there:
                best = max(
                    best or (-1.0, False, ""), (value * (_INCUMBENT if there else 1.0), there, claim.service)
                )
        if best is None:
            return
        chosen = next(claim for claim in work.claims if claim.service == best[2])
        work.give(chosen, work.granted[chosen.service] + 1)


def _startable(work: _Work) -> dict[ServiceKey, int]:
    """How much of each grant can be there now: replicas that leave hold their part until they are gone."""
    free = work.box
    for claim in work.claims:
        free = free.minus(claim.each.times(claim.present + claim.draining))
    found = {claim.service: min(claim.present, work.granted[claim.service]) for claim in work.claims}
    poorest_first = sorted(
        work.claims, key=lambda claim: (-claim.priority, claim.present / max(claim.need, 1), claim.service)
    )
    for claim in poorest_first:
        while found[claim.service] < work.granted[claim.service] and not free.lacks(claim.each):
            free = free.minus(claim.each)
            found[claim.service] += 1
    return found


def _reason(work: _Work, claim: Claim) -> str:
    """`wants 5, has 3: 2 GPUs short, held by infer (priority 10)`."""
    wants, has = claim.tier("want"), work.granted[claim.service]
    if has >= wants:
        return ""
    name = work.left.lacks(claim.each)
    holders = sorted(
        (other for other in work.claims if other is not claim and getattr(other.each, name or "devices")),
        key=lambda other: -work.granted[other.service] * getattr(other.each, name or "devices"),
    )
    held = [
        f"{other.service.rpartition('/')[2]} (priority {other.priority})"
        for other in holders[:2]
        if work.granted[other.service]
    ]
    by = f", held by {' and '.join(held)}" if held else ", which the box does not have"
    short = _quantity(name, getattr(claim.each, name) * (wants - has)) if name else "room"
    needed = claim.tier("need")
    needs = f" (needs {needed})" if needed < wants else ""
    return f"wants {wants}{needs}, has {has}: {short} short{by}"


def _quantity(name: str, amount: float) -> str:
    if name == "memory":
        return format_bytes(amount)
    word = {"devices": "GPU", "cpu": "core"}[name]
    return f"{amount:g} {word}" + ("" if amount == 1 else "s")
