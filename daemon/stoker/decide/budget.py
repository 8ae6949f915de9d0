"""The box shared out: all services' targets against its devices, cores and memory. Pure.

What is granted, in this order: the guarantees (`min_replicas`); then the `base` of every service (without
it its queue grows without end), then `need` (the promised wait), then `want` (warm ones); in each of these
tiers the higher priority first, and inside a class weighted max-min: the next replica goes to the service
that has the smallest part of what it asks. There is no "first come, first served".

Against thrashing: a service keeps the replicas it has as far as its tier goes, before others get new ones;
a replica moves between services of one class and tier only over a gap in satisfaction, one at a time, and
not again for a while. Warm replicas give way to another's need at once, lower classes to higher ones too;
but warm is only what was not needed for a whole start-up: a need that swings would else cost its service a
start at each swing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from stoker.decide.claims import THINGS, Amount, Claim, Ledger
from stoker.model.quantity import format_bytes
from stoker.model.service import ServiceKey

__all__ = ["Amount", "BudgetMemory", "Claim", "Grant", "Shares", "overcommitted", "share_out"]

GAP = 1 / 3
"""A replica moves only between services whose satisfaction (had of asked) differs by more than this."""
DWELL = 30.0
"""Seconds, or two start-ups if that is longer, during which neither side of a move is touched again."""
_INCUMBENT = 1.5
"""A warm replica that is there is worth so much more than one that would have to start."""
_UNSAID = 1e-6
"""Requests a second; weight of a replica whose policy does not say what it is worth."""
_TIERS = ("base", "need", "want")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a service has needed. `former`: higher needs of before, each with the time at which it ended
    (monotonic seconds), highest and oldest first."""

    last: int
    former: tuple[tuple[float, int], ...] = ()

    def followed_by(self, need: int, now: float, window: float) -> Needs:
        """With the present need, and without those that ended before the window began."""
        former = self.former
        if need < self.last:
            former = (*former, (now, self.last))
        elif former and former[-1][1] <= need:
            former = tuple(ended for ended in former if ended[1] > need)
        while former and former[0][0] + window <= now:
            former = former[1:]
        return self if need == self.last and former is self.former else Needs(last=need, former=former)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetMemory:
    """When a replica was last moved from or to a service (monotonic seconds), and what each has needed."""

    moved: Mapping[ServiceKey, float] = field(default_factory=dict)
    needs: Mapping[ServiceKey, Needs] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One service's part. `target` is what it is to have; `startable` is what of it can be there now, while
    others' replicas still drain. `reason` says what it does not get and who has it, "" if all."""

    target: int
    startable: int
    affordable: int = 0
    """Like `startable` as far as cores and memory go; for who asks the devices themselves what is free."""
    reason: str = ""
    short: int = 0
    """Replicas that it needs for its promise (`need`) and does not get: to be shed at the router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The box shared out."""

    grants: Mapping[ServiceKey, Grant]
    memory: BudgetMemory
    wake_at: float | None = None
    """When a move that is only waiting for its dwell may be made."""


def share_out(
    box: Amount,
    claims: Sequence[Claim],
    memory: BudgetMemory,
    now: float,
    *,
    idle: Literal["fill", "release"] = "release",
    kinds: Mapping[str, float] | None = None,
    name: str = "the box",
) -> Shares:
    """Return what each service may have; the same input gives the same answer, whatever its order.

    `kinds`: the box's devices by kind, where the claims tell kinds apart. `name`: what it is called.
    """
    needs = {claim.service: _needs(memory, claim, now) for claim in claims}
    held = [_holding(claim, needs[claim.service]) for claim in claims]
    work = Ledger(box, sorted(held, key=lambda claim: (-claim.priority, claim.service)), kinds)
    work.name = name
    for claim in work.claims:
        work.give(claim, claim.least)
    moved = dict(memory.moved)
    waits = [
        needs[claim.service].former[0][0] + claim.startup for claim in claims if needs[claim.service].former
    ]
    for tier in _TIERS:
        for priority in sorted({claim.priority for claim in work.claims}, reverse=True):
            group = [claim for claim in work.claims if claim.priority == priority]
            _serve(work, group, tier)
            if tier != "want":
                waits += _move(work, group, tier, moved, now)
    if idle == "fill":
        _fill(work)
    startable = _startable(work, box)
    affordable = _startable(work, replace(box, devices=math.inf))
    grants = {
        claim.service: Grant(
            target=work.granted[claim.service],
            startable=startable[claim.service],
            affordable=affordable[claim.service],
            reason=_reason(work, claim),
            short=max(0, claim.tier("need") - work.granted[claim.service]),
        )
        for claim in work.claims
    }
    known = {service: at for service, at in moved.items() if service in grants}
    return Shares(
        grants=grants, memory=BudgetMemory(moved=known, needs=needs), wake_at=min(waits, default=None)
    )


def overcommitted(box: Amount, claims: Sequence[Claim]) -> str:
    """Why the guarantees do not fit the box, "" if they do: a configuration to refuse."""
    left = box
    for claim in claims:
        left = left.minus(claim.each.times(claim.least))
    for name in THINGS:
        if left.of(name) < -1e-9:
            parts = [
                f"{claim.service} {claim.least} x {_quantity(name, claim.each.of(name))}"
                for claim in claims
                if claim.least and claim.each.of(name)
            ]
            has = _quantity(name, box.of(name))
            return f"min_replicas do not fit: the box has {has}, and {', '.join(parts)} are guaranteed"
    return ""


def _needs(memory: BudgetMemory, claim: Claim, now: float) -> Needs:
    """The service's needs with the present one."""
    need = claim.tier("need")
    return memory.needs.get(claim.service, Needs(last=need)).followed_by(need, now, claim.startup)


def _holding(claim: Claim, needs: Needs) -> Claim:
    """The claim with those of its present replicas that it wants and has needed within the last start-up."""
    held = min(needs.former[0][1], claim.present, claim.tier("want")) if needs.former else 0
    return replace(claim, held=held) if held else claim


def _serve(work: Ledger, group: Sequence[Claim], tier: str) -> None:
    """Keep what is there, then weighted max-min."""
    for claim in group:
        work.give(claim, min(claim.present, max(claim.tier(tier), claim.held if tier == "need" else 0)))
    while True:
        asking = [
            claim
            for claim in group
            if work.granted[claim.service] < claim.tier(tier) and not work.lacks(claim)
        ]
        if not asking:
            return
        poorest = min(asking, key=lambda claim: (work.satisfaction(claim, tier), claim.service))
        work.give(poorest, work.granted[poorest.service] + 1)


def _move(
    work: Ledger, group: Sequence[Claim], tier: str, moved: dict[ServiceKey, float], now: float
) -> list[float]:
    """Where the tier could not be served in full: one replica from the best served to the worst. Returns
    when that may be, if all that is missing is that the dwell is over."""
    short = [claim for claim in group if work.granted[claim.service] < claim.tier(tier)]
    if not short:
        return []
    poorest = min(short, key=lambda claim: (work.satisfaction(claim, tier), claim.service))
    gap = GAP * (1 if tier == "need" else 0.5)
    # Nobody gives what the tier above has granted, or what it needed a moment ago.
    kept = {c.service: max(1, c.least if tier == "base" else max(c.tier("base"), c.held)) for c in group}
    donors = [
        claim
        for claim in group
        if claim is not poorest
        and work.granted[claim.service] > kept[claim.service]
        and work.satisfaction(claim, tier, -1) - work.satisfaction(poorest, tier) > gap
        and work.would_fit(claim, poorest)
    ]
    free_at = {
        claim.service: moved.get(claim.service, -math.inf) + max(DWELL, 2 * claim.startup) for claim in donors
    }
    ready = [claim for claim in donors if free_at[claim.service] < now]
    if not ready:
        return [min(free_at.values())] if donors else []
    richest = max(ready, key=lambda claim: (work.satisfaction(claim, tier), claim.service))
    work.take(richest)
    work.give(poorest, work.granted[poorest.service] + 1)
    moved[richest.service] = moved[poorest.service] = now
    return []


def _fill(work: Ledger) -> None:
    """What is left idle goes where the most requests would otherwise wait; what is there stays there."""
    while True:
        best: tuple[float, bool, ServiceKey] | None = None
        for claim in work.claims:
            granted = work.granted[claim.service]
            if granted >= claim.most or not claim.each.devices or work.lacks(claim):
                continue
            there = claim.present > granted
            value = _value(claim, granted, there=there)
            if value > 0 or there:
                best = max(
                    best or (-1.0, False, ""), (value * (_INCUMBENT if there else 1.0), there, claim.service)
                )
        if best is None:
            return
        chosen = next(claim for claim in work.claims if claim.service == best[2])
        work.give(chosen, work.granted[chosen.service] + 1)


def _value(claim: Claim, granted: int, *, there: bool) -> float:
    """What one more replica is worth. Policies that say nothing of it come after those that do: what is
    there stays, then evenly."""
    if claim.value:
        return claim.value[granted] if granted < len(claim.value) else 0.0
    return _UNSAID if there else _UNSAID * claim.tier("need") / (granted + 1) / 1e6


def _startable(work: Ledger, box: Amount) -> dict[ServiceKey, int]:
    """How much of each grant can be there now: replicas that leave hold their part until they are gone."""
    free = box
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


def _reason(work: Ledger, claim: Claim) -> str:
    """`wants 5, has 3: 2 GPUs short, held by infer (priority 10)`."""
    wants, has = claim.tier("want"), work.granted[claim.service]
    if has >= wants:
        return ""
    name = work.lacks(claim)
    holders = sorted(
        (-work.held(other, name or "devices", claim), other.service, other)
        for other in work.claims
        if other is not claim
    )
    held = [
        f"{service.rpartition('/')[2]} (priority {other.priority})"
        for amount, service, other in holders[:2]
        if amount
    ]
    ever = not name or claim.each.of(name) <= work.box.of(name)
    by = f", held by {' and '.join(held)}" if held and ever else f", which {work.name} does not have"
    short = _quantity(name, claim.each.of(name) * (wants - has)) if name else "room"
    needed = claim.tier("need")
    needs = f" (needs {needed})" if needed < wants else ""
    return f"wants {wants}{needs}, has {has}: {short} short{by}"


def _quantity(name: str, amount: float) -> str:
    if name == "memory":
        return format_bytes(amount)
    if name not in THINGS:
        return f"{amount:g} of {name}"
    word = {"devices": "GPU", "cpu": "core"}[name]
    return f"{amount:g} {word}" + ("" if amount == 1 else "s")
