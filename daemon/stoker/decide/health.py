"""How a device is, and who may use it: what the driver says, what has happened to it, what the operator has
said. Pure.

    healthy > suspect > draining > quarantined > probation > healthy        (lost: by the driver's word)

Faults come from the device source with their class (`FaultKind`). One that is the device's own sends it to
bed: its workers leave (draining), then nobody is on it (quarantined). It gets up again only when it was reset
as far as can be seen (it was away and is back, the driver no longer asks for a recovery, the box was booted)
or the operator says so, and is then watched for a while (probation). Faults of programs make it suspect only
when they come from several services in a short time. One that does not answer (unreachable, by the driver's
word) keeps its workers and its state until it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stoker.model.device import Device, DeviceFault, Health, Inventory
from stoker.model.quantity import format_duration
from stoker.model.service import ServiceKey

Mark = Literal["cordoned", "released"]
"""`cordoned`: nothing new on it, its workers stay. `released`: its workers go elsewhere too, so that it can
be reset, unplugged or lent to others."""

WINDOW = 600.0
"""Seconds for which a fault that is not the device's own is held against it."""
SERVICES, ERRORS = 2, 3
"""So many services with faults of programs, or so many contained memory errors, in one window: suspect."""
PROBATION, LONGEST_PROBATION = 60.0, 3600.0
"""Seconds it is watched after it was cured; twice as long each time it falls ill again."""
FORGET = 6 * 3600.0
"""Seconds of good health after which earlier illness no longer counts."""

IN_BED: frozenset[Health] = frozenset({"draining", "quarantined"})

_SAID: Mapping[Mark, tuple[Health, str]] = {
    "cordoned": ("cordoned", "cordoned by the operator"),
    "released": ("quarantined", "released by the operator"),
}
_WORSE: Mapping[Mark, frozenset[Health]] = {
    "cordoned": frozenset({"draining", "quarantined", "lost"}),
    "released": frozenset({"lost"}),
}
"""What the driver says of a device stands where it asks for more than the operator does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is known against one device. Times are monotonic seconds."""

    state: Health = "healthy"
    reason: str = ""
    since: float = 0.0
    away: bool = False
    """It was away since it fell ill: it has been reset when it is back."""
    asked: bool = False
    """The driver asked for a recovery; when it no longer does, that has been done."""
    illnesses: int = 0
    strikes: tuple[tuple[float, str], ...] = ()
    """When, and what: a service key, or `memory` and a number."""
    unlinked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The cases after a step; `wake_at`: when they change without news."""

    cases: Mapping[str, Case] = field(default_factory=dict)
    wake_at: float | None = None


def step(
    cases: Mapping[str, Case],
    inventory: Inventory,
    news: Mapping[str, Iterable[DeviceFault]],
    now: float,
    *,
    users: Mapping[str, frozenset[ServiceKey]],
) -> Verdict:
    """The cases as they are now. Pure.

    `news`: faults by UUID that were not in an earlier step; `users`: the services with a living worker on a
    device. While the driver does not answer nothing is known, and nothing changes.
    """
    if inventory.state != "ok":
        return Verdict(cases=cases)
    found: dict[str, Case] = {uuid: replace(case, away=True) for uuid, case in cases.items()}
    for device in inventory.devices:
        before = cases.get(device.uuid, Case(since=now))
        fresh = tuple(news.get(device.uuid, ()))
        found[device.uuid] = _next(before, device, fresh, now, users.get(device.uuid, frozenset()))
    kept = {uuid: case for uuid, case in found.items() if not _forgotten(case, now)}
    # One that is away is judged anew when it is back: no time of its own can change it until then.
    there = (kept[device.uuid] for device in inventory.devices if device.uuid in kept)
    times = [at for case in there if (at := _until(case)) is not None]
    return Verdict(cases=kept, wake_at=min(times, default=None))


def charted(inventory: Inventory, cases: Mapping[str, Case]) -> Inventory:
    """The inventory with the cases laid over what the driver says. Pure."""
    if not cases or not inventory.devices:
        return inventory
    return replace(inventory, devices=tuple(_charted(device, cases) for device in inventory.devices))


def pardon(case: Case, now: float) -> Case:
    """The case after the operator has said that the device is cured. Pure."""
    if case.state in IN_BED:
        case = _enter(case, "probation", f"released by the operator{_was(case)}", now)
    elif case.state == "suspect":
        case = _enter(case, "healthy", "", now)
    return replace(case, unlinked="", strikes=(), asked=False, away=False)


def objection(device: Device) -> str:
    """Why a device cannot be pardoned, "" if it can. Pure."""
    if device.health in ("lost", "unreachable"):
        return f"it is {device.health} ({device.health_reason})"
    return device.ailing


def revived(raw: Mapping[str, Any], boot: str, now: float) -> dict[str, Case]:
    """Cases as they were kept (`kept`), for a daemon of boot `boot`; what cannot be read is left out. Pure.

    A boot resets every device, and its clock begins anew.
    """
    found: dict[str, Case] = {}
    cases = raw.get("cases")
    for uuid, values in cases.items() if isinstance(cases, dict) else ():
        try:
            strikes = tuple((float(at), str(who)) for at, who in values.get("strikes", ()))
            case = Case(**{**values, "strikes": strikes})
        except (TypeError, ValueError, AttributeError):
            continue
        if raw.get("boot") != boot:
            if case.state == "suspect" or not (case.state in IN_BED or case.illnesses):
                continue
            case = replace(case, since=now, strikes=(), unlinked="", away=True)
        found[uuid] = case
    return found


def kept(cases: Mapping[str, Case], boot: str) -> dict[str, Any]:
    """Cases as plain JSON values. Pure."""
    names = Case.__slots__
    return {
        "boot": boot,
        "cases": {uuid: {name: getattr(case, name) for name in names} for uuid, case in cases.items()},
    }


def overlay(inventory: Inventory, marks: Mapping[str, Mark]) -> Inventory:
    """The inventory as the operator wants it used: `marks` by the UUID of a device or of its parent. Pure."""
    if not marks or not inventory.devices:
        return inventory
    return replace(inventory, devices=tuple(_marked(device, marks) for device in inventory.devices))


# --- one device -------------------------------------------------------------------------------------------


def _next(
    case: Case, device: Device, news: tuple[DeviceFault, ...], now: float, users: frozenset[ServiceKey]
) -> Case:
    if device.health == "lost":
        ill = case if case.state in IN_BED else _ill(case, device.health_reason, now, users=frozenset())
        return replace(ill, state="quarantined", away=True)
    severe = [fault.what for fault in news if fault.kind in ("device", "fatal")]
    links = [fault.what for fault in news if fault.kind == "link"]
    if links:
        case = replace(case, unlinked=links[-1])
    if severe or device.ailing:
        if case.state not in IN_BED:
            why = "; ".join([*severe, device.ailing] if device.ailing else severe)
            case = _ill(case, why, now, users=users)
        case = replace(case, away=False, asked=bool(device.ailing) or (case.asked and not severe))
    if case.state in IN_BED:
        return _in_bed(case, device, now, users)
    return _up(case, news, now, users)


def _ill(case: Case, reason: str, now: float, *, users: frozenset[ServiceKey]) -> Case:
    state: Health = "draining" if users else "quarantined"
    return replace(
        _enter(case, state, reason, now), illnesses=case.illnesses + 1, strikes=(), asked=False, away=False
    )


def _in_bed(case: Case, device: Device, now: float, users: frozenset[ServiceKey]) -> Case:
    """Leave bed when it was reset; until then draining ends with the last worker."""
    if case.state == "draining" and not users:
        case = _enter(case, "quarantined", case.reason, now)
    if device.ailing or case.state == "draining" or not (case.away or case.asked):
        return case
    if device.health == "unreachable":
        return case
    how = "it is back" if case.away else "the driver no longer asks for a recovery"
    cured = _enter(case, "probation", f"{how}{_was(case)}", now)
    return replace(cured, away=False, asked=False, unlinked="")


def _was(case: Case) -> str:
    return f" (was: {case.reason})" if case.reason else ""


def _up(case: Case, news: tuple[DeviceFault, ...], now: float, users: frozenset[ServiceKey]) -> Case:
    """On its feet: healthy, suspect or on probation."""
    if case.state == "probation":
        relapse = [fault.what for fault in news if fault.kind == "memory"]
        if relapse:
            return _ill(case, f"{relapse[-1]}, while on probation", now, users=users)
        over = now >= case.since + _term(case)
        return _enter(case, "healthy", "", now) if over else replace(case, away=False)
    strikes = [(at, who) for at, who in case.strikes if at + WINDOW > now]
    for fault in news:
        if fault.kind == "memory":
            strikes.append((now, f"memory {fault.serial}"))
        elif fault.kind == "app" and len(users) == 1:
            strikes += [(now, service) for service in users]
    case = replace(case, strikes=tuple(strikes), away=False)
    why = _suspicion({who for _, who in strikes})
    if why and case.state != "suspect":
        return _enter(case, "suspect", why, now)
    if not why and case.state == "suspect":
        return _enter(case, "healthy", "", now)
    return case


def _suspicion(strikes: set[str]) -> str:
    errors = {who for who in strikes if who.startswith("memory ")}
    services = sorted(strikes - errors)
    if len(services) >= SERVICES:
        return f"faults in {', '.join(services)} within {format_duration(WINDOW)}"
    if len(errors) >= ERRORS:
        return f"memory errors {len(errors)} times within {format_duration(WINDOW)}"
    return ""


def _enter(case: Case, state: Health, reason: str, now: float) -> Case:
    return replace(case, state=state, reason=reason, since=now)


def _term(case: Case) -> float:
    return min(PROBATION * 2.0 ** min(max(case.illnesses, 1) - 1, 10), LONGEST_PROBATION)


def _until(case: Case) -> float | None:
    if case.state == "probation":
        return case.since + _term(case)
    if case.state == "suspect":
        return min((at for at, _ in case.strikes), default=case.since) + WINDOW
    return None


def _forgotten(case: Case, now: float) -> bool:
    """Whether nothing is held against it any more."""
    if case.state != "healthy" or case.unlinked or case.strikes:
        return False
    return not case.illnesses or now >= case.since + FORGET


# --- over the inventory -----------------------------------------------------------------------------------


def _charted(device: Device, cases: Mapping[str, Case]) -> Device:
    case = cases.get(device.uuid)
    if case is None:
        return device
    unlinked = "; ".join(text for text in (case.unlinked, device.unlinked) if text)
    if device.health == "lost":
        return replace(device, health_since=case.since, unlinked=unlinked)
    if case.state == "healthy" or (device.health == "unreachable" and case.state not in IN_BED):
        return replace(device, unlinked=unlinked)
    reason = "; ".join(text for text in (case.reason, device.health_reason) if text)
    return replace(
        device, health=case.state, health_reason=reason, health_since=case.since, unlinked=unlinked
    )


def _marked(device: Device, marks: Mapping[str, Mark]) -> Device:
    mark = marks.get(device.uuid) or marks.get(device.parent or "")
    if mark is None or device.health in _WORSE[mark]:
        return device
    health, reason = _SAID[mark]
    if device.health_reason:
        reason = f"{reason}; {device.health_reason}"
    return replace(device, health=health, health_reason=reason)
