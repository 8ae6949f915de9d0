"""What the box has, what services ask of it, and the books of who was given what. Pure.

Devices come in kinds: devices of one kind serve the same services equally well. A service says how much
of a device one replica takes, kind by kind, the kind it should take first before the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from stoker.model.load import Decision
from stoker.model.service import ServiceKey, ServiceSpec

ANY = ""
"""The kind of all devices where none are told apart."""
THINGS = ("devices", "cpu", "memory")
"""What every box has."""
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A part of the box, or all of it: devices (shares count as such), cores, bytes. May be infinite.
    `custom`: what a cluster counts by names of its own; of a name that it does not know there is no end."""

    devices: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()

    def of(self, name: str) -> float:
        """How much of one thing."""
        if name in THINGS:
            return float(getattr(self, name))
        return dict(self.custom).get(name, 0.0)

    def times(self, count: int) -> Amount:
        """That of so many replicas."""
        return Amount(
            devices=self.devices * count,
            cpu=self.cpu * count,
            memory=self.memory * count,
            custom=self.custom and tuple((name, amount * count) for name, amount in self.custom),
        )

    def minus(self, other: Amount) -> Amount:
        """What is left."""
        return Amount(
            devices=self.devices - other.devices,
            cpu=self.cpu - other.cpu,
            memory=self.memory - other.memory,
            custom=self.custom and tuple((name, amount - other.of(name)) for name, amount in self.custom),
        )

    def lacks(self, other: Amount) -> str:
        """The first thing of which there is not enough for `other`, "" if it fits."""
        for name in THINGS:
            if getattr(other, name) > 0 and getattr(other, name) > getattr(self, name) + _EPSILON:
                return name
        for name, amount in self.custom if other.custom else ():
            wanted = other.of(name)
            if wanted > 0 and wanted > amount + _EPSILON:
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
    held: int = 0
    """Of the present ones, so many were needed a moment ago: they are not taken for others' need."""
    startup: float = 0.0
    value: tuple[float, ...] = ()
    takes: Mapping[str, float] = field(default_factory=dict)
    """Devices that one replica takes of each kind that it can use, best first; empty: `each` of any."""
    at: tuple[str, ...] = ()
    """The kinds on which the present replicas are, where that is known."""

    def tier(self, name: str) -> int:
        """The count asked at that tier, within bounds and never below the tier under it."""
        found = max(self.least, self.base)
        if name != "base":
            found = max(found, self.need)
        if name == "want":
            found = max(found, self.want)
        return min(found, max(self.most, self.least))


class Ledger:
    """Grants in the making, and what is left of the box. `kinds`: devices by kind; None: all of one."""

    def __init__(self, box: Amount, claims: Sequence[Claim], kinds: Mapping[str, float] | None) -> None:
        self.box = box
        self.claims = claims
        self.name = "the box"
        self.granted = {claim.service: 0 for claim in claims}
        self._devices = dict(kinds) if kinds is not None else {ANY: box.devices}
        self._rest = replace(box, devices=math.inf)
        self._taken: dict[ServiceKey, list[dict[str, float]]] = {claim.service: [] for claim in claims}

    def lacks(self, claim: Claim) -> str:
        """The first thing of which there is not enough for one more replica, "" if it fits."""
        return "devices" if self._find(claim) is None else self._rest.lacks(claim.each)

    def give(self, claim: Claim, upto: int) -> None:
        """Raise its grant to `upto`, as far as the box goes."""
        while self.granted[claim.service] < upto:
            found = self._find(claim)
            if found is None or self._rest.lacks(claim.each):
                return
            for kind, amount in found.items():
                self._devices[kind] -= amount
            self._rest = self._rest.minus(claim.each)
            self._taken[claim.service].append(found)
            self.granted[claim.service] += 1

    def take(self, claim: Claim) -> None:
        """Lower its grant by one."""
        for kind, amount in self._taken[claim.service].pop().items():
            self._devices[kind] += amount
        self._rest = self._rest.minus(claim.each.times(-1))
        self.granted[claim.service] -= 1

    def would_fit(self, donor: Claim, other: Claim) -> bool:
        """Whether one more of `other` would fit if `donor` had one less."""
        self.take(donor)
        fits = not self.lacks(other)
        self.give(donor, self.granted[donor.service] + 1)
        return fits

    def satisfaction(self, claim: Claim, tier: str, change: int = 0) -> float:
        """Had of asked, weighed; a service that asks nothing is content."""
        asked = claim.tier(tier)
        return (self.granted[claim.service] + change) / (claim.weight * asked) if asked else math.inf

    def held(self, claim: Claim, name: str, among: Claim) -> float:
        """How much of a thing it was given; of devices only those that `among` could use."""
        if name != "devices":
            return self.granted[claim.service] * claim.each.of(name)
        kinds = among.takes or {ANY: 0.0}
        return sum(
            amount for given in self._taken[claim.service] for kind, amount in given.items() if kind in kinds
        )

    def _find(self, claim: Claim) -> dict[str, float] | None:
        """The devices of the next replica by kind; one that is there already stays where it is. None: there
        are not enough. Empty: it takes none, or is on a device that is not the box's any more."""
        if claim.each.devices <= 0:
            return {}
        count = self.granted[claim.service]
        takes = claim.takes or {ANY: claim.each.devices}
        if count < len(claim.at):
            kind = claim.at[count]
            amount = takes.get(kind, claim.each.devices)
            if kind not in self._devices or amount <= self._devices[kind] + _EPSILON:
                return {kind: amount} if kind in self._devices else {}
        for kind, amount in takes.items():
            if amount <= self._devices.get(kind, 0.0) + _EPSILON:
                return {kind: amount}
        return self._across(takes) if claim.each.devices > 1 else None

    def _across(self, takes: Mapping[str, float]) -> dict[str, float] | None:
        """A set of whole devices of several kinds."""
        found: dict[str, float] = {}
        missing = next(iter(takes.values()))
        for kind in takes:
            part = min(missing, math.floor(self._devices.get(kind, 0.0) + _EPSILON))
            if part > 0:
                found[kind] = part
                missing -= part
        return found if missing <= _EPSILON else None


def each_of(spec: ServiceSpec) -> Amount:
    """What one replica of it takes."""
    resources = spec.resources
    return Amount(
        devices=resources.gpu,
        cpu=resources.cpu or 0.0,
        memory=float(resources.memory or 0),
        custom=spec.elsewhere.custom if spec.elsewhere is not None else (),
    )


def guarantee_of(spec: ServiceSpec, takes: Mapping[str, float] | None = None) -> Claim:
    """What the service is sure of, as a claim."""
    low = 0 if spec.held else spec.scaling.min_replicas
    return Claim(
        service=spec.key, each=each_of(spec), least=low, base=low, need=low, want=low, most=low,
        priority=spec.priority, takes=takes or {},
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is there of a service. `waiting`: a request waits and no replica is there for it."""

    running: int = 0
    """Replicas that start, serve, or are on their way back after a failure."""
    draining: int = 0
    startup: float = 0.0
    waiting: bool = False
    at: tuple[str, ...] = ()
    """As in a claim."""


def claim_of(
    spec: ServiceSpec,
    decision: Decision | None,
    target: int,
    present: Present,
    takes: Mapping[str, float] | None = None,
) -> Claim:
    """The service's settled decision as a claim. A policy without tiers asks the same thrice; the standby is
    beyond need, and a request that waits is need itself."""
    low, high = (0, 0) if spec.held else (spec.scaling.min_replicas, spec.scaling.max_replicas)
    first = min(1, target) if present.waiting else 0
    warm = max(0, target - spec.standby)
    need = warm if decision is None or decision.need is None else min(decision.need, target)
    base = need if decision is None or decision.base is None else min(decision.base, need)
    return Claim(
        service=spec.key,
        each=each_of(spec),
        least=low,
        base=max(base, first),
        need=max(need, first),
        want=target,
        most=high,
        priority=spec.priority,
        present=present.running,
        draining=present.draining,
        startup=present.startup,
        value=() if decision is None else decision.value,
        takes=takes or {},
        at=present.at,
    )
