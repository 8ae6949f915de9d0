"""Which devices a replica gets, or the reason why none. Pure; the caller applies the answer.

The rules, in this order:

* a device that is lost, sick, split into MIG instances, of another type or too small is no candidate;
* whole GPUs are never shared: one reservation of any kind takes the device out;
* memory in use by strangers is respected: a device with more than a tenth of it gone is taken last;
* sets of GPUs are the best linked ones, and among equals those that leave the best linked rest;
* a share goes where the least is left over: onto a GPU already shared, else onto the empty GPU whose
  loss breaks up the least.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from stoker.model.device import Device, Inventory, Placement, Reservation, memory_class
from stoker.model.quantity import format_bytes
from stoker.model.replica import Replica
from stoker.model.service import Pin, Resources, ServiceSpec

CROWDED = 0.10
"""Part of a device's memory that strangers may use before another device is preferred."""
RESERVE = 0.04
"""Part of a device's memory that driver, display and idle contexts may use without being counted."""
EXHAUSTIVE = 8
"""Up to so many free devices every set is compared (70 sets of 4 out of 8); above, sets are grown."""
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class _View:
    """One device and what is taken of it. `foreign`: bytes in use by processes that are not ours."""

    device: Device
    holders: tuple[tuple[Replica, Reservation], ...]
    foreign: int
    committed: int

    @property
    def share_left(self) -> float:
        return 1.0 - sum(reservation.share for _, reservation in self.holders)

    @property
    def memory_left(self) -> int:
        return self.device.memory_total - self.foreign - self.committed

    @property
    def crowded(self) -> bool:
        return self.foreign > CROWDED * self.device.memory_total

    @property
    def held_by(self) -> str:
        return ", ".join(sorted({replica.id for replica, _ in self.holders}))


def place(
    spec: ServiceSpec, inventory: Inventory, replicas: Iterable[Replica], *, exclude: Collection[str] = ()
) -> Placement:
    """Choose devices for one more replica of `spec`. Pure and deterministic.

    Every replica with reservations holds them, whatever its phase; those named in `exclude` (ids) do not,
    for example the one being placed. The answer always carries a reason: which devices and why, or, with
    `placed` False, what stands against each device.
    """
    need = spec.resources
    if need.gpu <= 0:
        return Placement(reason="needs no GPU")
    hopeless = _hopeless(need, inventory)
    if hopeless:
        return _refuse(f"needs {_wish(need)}: {hopeless}")
    views = _views(inventory, [replica for replica in replicas if replica.id not in exclude])
    against = {view.device.uuid: _against(view, need, inventory) for view in views}
    able = [view for view in views if not against[view.device.uuid]]
    count = max(1, int(need.gpu))
    if len(able) < count:
        return _refuse(f"needs {_wish(need)}: {_summary(views, against, need)}")
    if need.gpu < 1:
        return _place_share(able, need, views)
    return _place_whole(able, need, views)


def cuda_environment(reservations: Sequence[Reservation], *, pin: Pin = "uuid") -> dict[str, str]:
    """The variables that confine a worker to its devices; an empty list hides all of them. Pure.

    `pin="index"`: by number in PCI order, for programs that do not read UUIDs; a MIG instance has none. Where
    the operator runs MPS, a sharer is held to its memory by it.
    """
    names = [given.uuid for given in reservations]
    if pin == "index" and all(given.ordinal is not None for given in reservations):
        names = [str(given.ordinal) for given in reservations]
    found = {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    bounds = [given.memory for given in reservations if given.limits == "mps" and given.share < 1]
    if bounds and bounds[0] is not None:
        found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={max(1, bounds[0] // 2**20)}M"
    return found


def holders(replicas: Iterable[Replica]) -> dict[str, tuple[str, ...]]:
    """Ids of the replicas that hold each device, by its UUID. Pure."""
    found: dict[str, list[str]] = {}
    for replica in replicas:
        for reservation in replica.reservations:
            found.setdefault(reservation.uuid, []).append(replica.id)
    return {uuid: tuple(sorted(ids)) for uuid, ids in found.items()}


def capacities(need: Resources, inventory: Inventory, replicas: Iterable[Replica]) -> dict[str, float]:
    """How many replicas each device could hold were no other service there; a device of a larger set holds a
    part of one. Devices that can hold none are left out. Pure."""
    found: dict[str, float] = {}
    for view in _views(inventory, replicas):
        alone = _View(view.device, (), foreign=view.foreign, committed=0)
        if need.gpu <= 0 or _unfit(view.device, need, inventory) or _against_memory(alone, need):
            continue
        found[view.device.uuid] = 1 / need.gpu if need.gpu >= 1 else _shares_of(alone, need)
    return found


def _shares_of(empty: _View, need: Resources) -> float:
    promised = _promise(need, empty.device) or 1
    by_memory = max(1, (empty.device.memory_total - empty.foreign) // promised)
    return float(min(math.floor(1 / need.gpu + _EPSILON), by_memory))


def type_matches(wanted: str | None, type_key: str) -> bool:
    """Whether a device of that type is what was asked for: `h100` and `gpu.h100` match `gpu.h100.80g` and
    `gpu.h100.94g.nvl`, `h100.nvl` only the latter; None and `any` match every type. Pure."""
    asked = (wanted or "any").lower().removeprefix("gpu.").split(".")
    if asked == ["any"]:
        return True
    have = iter(type_key.lower().removeprefix("gpu.").split("."))
    return asked[0] == next(have) and all(part in have for part in asked[1:])


# --- what there is ----------------------------------------------------------------------------------------


def _views(inventory: Inventory, replicas: Iterable[Replica]) -> list[_View]:
    held: dict[str, list[tuple[Replica, Reservation]]] = {}
    for replica in replicas:
        for reservation in replica.reservations:
            held.setdefault(reservation.uuid, []).append((replica, reservation))
    return [
        _view(device, tuple(held.get(device.uuid, ())))
        for device in sorted(inventory.devices, key=lambda device: (device.index, device.uuid))
    ]


def _view(device: Device, held: tuple[tuple[Replica, Reservation], ...]) -> _View:
    """Split the memory in use into ours and foreign.

    A worker whose own pid is on the device accounts for what it uses. One whose pid is not there may do
    its work in a child process: up to what it was promised, memory in use is taken for its own.
    """
    in_use = {process.pid: process.memory or 0 for process in device.processes}
    committed = ours = 0
    for replica, reservation in held:
        promised = device.memory_total if reservation.memory is None else reservation.memory
        pid = replica.handle.pid if replica.handle else None
        seen = in_use.get(pid) if pid is not None else 0
        committed += max(promised, seen or 0)
        ours += promised if seen is None else seen
    return _View(device, held, foreign=max(0, device.memory_used - ours), committed=committed)


def _hopeless(need: Resources, inventory: Inventory) -> str:
    """Why there is no use in looking at single devices, "" if there is."""
    if need.gpu > 1 and need.gpu != int(need.gpu):
        return "above 1 only whole GPUs can be given; write 1, 2, 3 ..."
    if inventory.state != "ok":
        return inventory.reason or "no GPU can be seen"
    return "" if inventory.devices else "this box shows no GPU"


def _against(view: _View, need: Resources, inventory: Inventory) -> str:
    """Why this device cannot be given, "" if it can. Starts with a verb: "is lost (...)"."""
    unfit = _unfit(view.device, need, inventory)
    if unfit:
        return unfit
    if view.device.withheld:
        return f"is not free yet ({view.device.withheld})"
    return _against_holders(view, need) or _against_memory(view, need)


def _unfit(device: Device, need: Resources, inventory: Inventory) -> str:
    """Why this device is none for the service, whoever holds it, "" if it is one."""
    if device.health != "healthy":
        return f"is {device.health}" + (f" ({device.health_reason})" if device.health_reason else "")
    if any(other.parent == device.uuid for other in inventory.devices):
        return "is split into MIG instances"
    if need.devices and not device.uuid.startswith(need.devices):
        return "is not among the devices asked for"
    if not type_matches(need.gpu_type, device.type_key):
        return f"is {device.type_key}"
    if need.gpu > 1 and device.unlinked:
        return f"is not fit for a set ({device.unlinked})"
    return _against_mig(device, need, inventory)


def _against_mig(device: Device, need: Resources, inventory: Inventory) -> str:
    if device.parent is None:
        return ""
    if need.gpu > 1:
        return "is of kind MIG, of which a process can use only one"
    named = need.devices or "mig" in (need.gpu_type or "").lower().split(".")
    if not named and any(device.parent is None for device in inventory.devices):
        return "is of kind MIG, which the service does not ask for"
    return ""


def _against_holders(view: _View, need: Resources) -> str:
    if not view.holders:
        return ""
    if need.gpu >= 1 or any(reservation.share >= 1 for _, reservation in view.holders):
        return f"is held by {view.held_by}"
    if need.gpu > view.share_left + _EPSILON:
        return f"has a share of {max(0.0, view.share_left):.2g} left (held by {view.held_by})"
    return ""


def _against_memory(view: _View, need: Resources) -> str:
    device, wanted = view.device, _promise(need, view.device)
    if wanted is None:
        return ""
    exact = need.gpu_memory is not None and not _nominal(need, device)
    overlooked = 0 if exact else min(view.foreign, int(RESERVE * device.memory_total))
    if wanted <= view.memory_left + overlooked:
        return ""
    parts = [f"{format_bytes(view.foreign)} in use by other processes"] if view.foreign else []
    if view.committed:
        parts.append(f"{format_bytes(view.committed)} promised to {view.held_by}")
    left = format_bytes(max(0, view.memory_left))
    return f"has {left} of memory" + (f" left ({', '.join(parts)})" if parts else "")


def _nominal(need: Resources, device: Device) -> bool:
    """Whether the size asked for is the one under which the device is sold ("80Gi" of an H100)."""
    size = memory_class(device.memory_total)
    return size is not None and need.gpu_memory == size * 2**30


def _promise(need: Resources, device: Device) -> int | None:
    """Bytes to set aside on this device; None if a whole GPU was asked for without a size."""
    if need.gpu_memory is not None:
        return min(need.gpu_memory, device.memory_total) if _nominal(need, device) else need.gpu_memory
    return int(need.gpu * device.memory_total) if need.gpu < 1 else None


# --- choosing ---------------------------------------------------------------------------------------------


def _place_share(able: Sequence[_View], need: Resources, views: Sequence[_View]) -> Placement:
    def left_over(view: _View) -> tuple[int, float, str]:
        return view.memory_left - (_promise(need, view.device) or 0), view.share_left, view.device.uuid

    shared = [view for view in able if view.holders]
    if shared:
        best = min(shared, key=left_over)
        left = format_bytes(max(0, left_over(best)[0]))
        after = f"a share of {max(0.0, best.share_left - need.gpu):.2g} and {left} left after it"
        why = f"already shared with {best.held_by}, the tightest fit: {after}"
    else:
        best = _choose(able, 1, need, _Links(views))[0]
        why = _why_alone(best, able, need, "empty, opened for shares")
    promised = _promise(need, best.device)
    given = Reservation(uuid=best.device.uuid, share=need.gpu, memory=promised)
    return Placement(reservations=(given,), reason=f"share {need.gpu:g} of {_title(best.device)}: {why}")


def _place_whole(able: Sequence[_View], need: Resources, views: Sequence[_View]) -> Placement:
    count, links = int(need.gpu), _Links(views)
    chosen = _choose(able, count, need, links)
    given = tuple(Reservation(uuid=view.device.uuid) for view in chosen)
    if count == 1:
        reason = f"{_title(chosen[0].device)}: {_why_alone(chosen[0], able, need, 'free')}"
        return Placement(reservations=given, reason=reason)
    names = " + ".join(_title(view.device) for view in chosen)
    score = links.total([view.device.uuid for view in chosen])
    linked = f"the best linked {count} (score {score})" if score else f"{count} without known links,"
    return Placement(
        reservations=given, reason=f"{names}: {linked} of {len(able)} free{_crowd_notes(chosen, able)}"
    )


def _choose(able: Sequence[_View], count: int, need: Resources, links: _Links) -> list[_View]:
    """The best `count` devices, in index order. Crowded devices only if there are too few others."""
    quiet = [view for view in able if not view.crowded]
    if len(quiet) < count:
        crowded = sorted((view for view in able if view.crowded), key=lambda view: view.foreign)
        quiet = sorted([*quiet, *crowded[: count - len(quiet)]], key=able.index)

    def rank(views: Iterable[_View]) -> tuple[float, ...]:
        some = list(views)
        uuids = [view.device.uuid for view in some]
        types = len({view.device.type_key for view in some})
        memory = sum(view.device.memory_total for view in some) if need.gpu_memory is not None else 0
        busy = sum(bool(view.device.processes) for view in some)
        pairs, quads = links.residual(uuids)
        return -links.total(uuids), types, memory, -pairs, -quads, busy, *(quiet.index(view) for view in some)

    if len(quiet) <= EXHAUSTIVE or count == 1:
        return list(min(combinations(quiet, count), key=rank))
    grown = [links.grow(seed, quiet, count) for seed in quiet]
    return min(grown, key=rank)


class _Links:
    """How well devices are joined, and what would be left of that without some of them."""

    def __init__(self, views: Sequence[_View]) -> None:
        self._scores: dict[tuple[str, str], int] = {
            (view.device.uuid, peer): score for view in views for peer, score in view.device.links
        }
        self._free = [
            view.device.uuid for view in views if not view.holders and view.device.health == "healthy"
        ]

    def total(self, uuids: Sequence[str]) -> int:
        """The sum over all pairs."""
        return sum(self._score((one,), (other,)) for one, other in combinations(uuids, 2))

    def grow(self, seed: _View, among: Sequence[_View], count: int) -> list[_View]:
        """A set around `seed`: one by one the device that is joined best to those in it."""
        chosen = [seed]
        while len(chosen) < count:
            uuids = tuple(view.device.uuid for view in chosen)
            rest = [view for view in among if view not in chosen]
            chosen.append(max(rest, key=lambda view: self._score((view.device.uuid,), uuids)))
        return sorted(chosen, key=among.index)

    def residual(self, taken: Sequence[str]) -> tuple[int, int]:
        """What pairs, and fours made of these, the free devices would still form without `taken`."""
        if not self._scores:
            return 0, 0
        pairs, score = self._match([(uuid,) for uuid in self._free if uuid not in taken])
        return score, self._match(pairs)[1]

    def _match(self, groups: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], int]:
        """Join groups two by two, best joint first."""
        scored = ((self._score(a, b), a, b) for a, b in combinations(groups, 2))
        joined: list[tuple[str, ...]] = []
        used: set[tuple[str, ...]] = set()
        total = 0
        for score, a, b in sorted(scored, key=lambda joint: -joint[0]):
            if score > 0 and a not in used and b not in used:
                used |= {a, b}
                joined.append(a + b)
                total += score
        return joined, total

    def _score(self, a: tuple[str, ...], b: tuple[str, ...]) -> int:
        get = self._scores.get
        return sum(get((one, other), get((other, one), 0)) for one in a for other in b)


# --- in words ---------------------------------------------------------------------------------------------


def _refuse(reason: str) -> Placement:
    return Placement(placed=False, reason=reason)


def _wish(need: Resources) -> str:
    if need.gpu < 1:
        text = f"a share of {need.gpu:g} of a GPU"
    else:
        text = "1 whole GPU" if need.gpu == 1 else f"{need.gpu:g} whole GPUs"
    if need.gpu_type:
        text += f" of type {need.gpu_type}"
    if need.gpu_memory is not None:
        text += f" with {format_bytes(need.gpu_memory)}"
    return text + (f" among {', '.join(need.devices)}" if need.devices else "")


def _label(device: Device) -> str:
    return f"GPU {device.index}" if device.parent is None else device.uuid[:12]


def _title(device: Device) -> str:
    return f"{device.uuid[:12]} (index {device.index}, {device.name})"


def _crowd_notes(chosen: Sequence[_View], able: Sequence[_View]) -> str:
    """What memory in use by strangers meant for this choice."""
    notes = []
    avoided = [
        f"{_label(v.device)} ({format_bytes(v.foreign)})" for v in able if v.crowded and v not in chosen
    ]
    if avoided:
        notes.append(f"avoided for memory in use by other processes: {', '.join(avoided)}")
    for view in chosen:
        if view.crowded:
            pids = ", ".join(str(process.pid) for process in view.device.processes) or "pid unknown"
            used = (
                f"{_label(view.device)} has {format_bytes(view.foreign)} in use by other processes ({pids})"
            )
            notes.append(f"{used}, but no better one is free")
    return "".join(f"; {note}" for note in notes)


def _why_alone(best: _View, able: Sequence[_View], need: Resources, what: str) -> str:
    larger = any(view.device.memory_total > best.device.memory_total for view in able)
    if need.gpu_memory is not None and larger:
        what += f", the smallest that holds {format_bytes(need.gpu_memory)}"
    return what + _crowd_notes([best], able)


def _summary(views: Sequence[_View], against: Mapping[str, str], need: Resources) -> str:
    """What stands against each device, those with the same reason together."""
    missing = [name for name in need.devices if not any(v.device.uuid.startswith(name) for v in views)]
    parts = [f"{name} is not on this box" for name in missing]
    grouped: dict[str, list[Device]] = {}
    for view in views:
        grouped.setdefault(against[view.device.uuid] or "is free", []).append(view.device)
    if need.devices and not missing:
        grouped.pop("is not among the devices asked for", None)
    return ", ".join([*parts, *(_several(devices, why) for why, devices in grouped.items())])


def _several(devices: Sequence[Device], why: str) -> str:
    if len(devices) == 1:
        return f"{_label(devices[0])} {why}"
    verb, _, rest = why.partition(" ")
    whole = [str(device.index) for device in devices if device.parent is None]
    names = [f"GPUs {', '.join(whole)}"] if len(whole) > 1 else [f"GPU {index}" for index in whole]
    names += [_label(device) for device in devices if device.parent is not None]
    return f"{', '.join(names)} {'are' if verb == 'is' else 'have'} {rest}"
