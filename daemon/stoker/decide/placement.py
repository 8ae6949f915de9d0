"""Which devices a replica gets, or the reason why none. Pure; the caller applies the answer.

The rules, in this order:

* a device that is lost, sick, split into MIG instances, of another type or too small is no candidate;
* whole GPUs are never shared: one reservation of any kind takes the device out;
* memory in use by strangers is respected: a device with more than a tenth of it gone is taken last;
* the type asked for comes before a better one, the smallest of the better ones first;
* sets of GPUs are the best linked ones, on one NUMA node, and among equals those that leave the best linked
  rest;
* a share goes where the least is left over: onto a GPU already shared, else onto the empty GPU whose
  loss breaks up the least; with `spread` first of all where the fewest replicas of its service are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

from stoker.decide.device_types import fitness, type_matches
from stoker.decide.links import Links
from stoker.decide.views import EPSILON, View, against, named, promise, views
from stoker.model.device import Device, Inventory, Placement, Reservation
from stoker.model.quantity import format_bytes
from stoker.model.replica import Replica
from stoker.model.service import Pin, Resources, ServiceSpec

__all__ = ["cuda_environment", "holders", "numa_node_of", "place", "type_matches"]

EXHAUSTIVE = 8
"""Up to so many free devices every set is compared (70 sets of 4 out of 8); above, sets are grown."""


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
    seen = views(inventory, [replica for replica in replicas if replica.id not in exclude])
    least = min(need.gpu, 1.0)
    # What is taken is passed over first: most devices of a full box are, and the words for it cost time.
    able = [view for view in seen if view.share_left > least - EPSILON and not against(view, need)]
    count = max(1, int(need.gpu))
    if len(able) < count:
        refusals = {view.device.uuid: against(view, need) for view in seen}
        return _refuse(f"needs {_wish(need)}: {_summary(seen, refusals, need)}")
    if need.gpu < 1:
        return _place_share(spec, able, seen)
    return _place_whole(able, need, seen)


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


def numa_node_of(need: Resources, reservations: Sequence[Reservation]) -> int | None:
    """The node near which a worker is to run: that of all its devices; None without one. Pure."""
    nodes = {given.numa_node for given in reservations}
    return nodes.pop() if need.numa == "local" and len(nodes) == 1 else None


def holders(replicas: Iterable[Replica]) -> dict[str, tuple[str, ...]]:
    """Ids of the replicas that hold each device, by its UUID. Pure."""
    found: dict[str, list[str]] = {}
    for replica in replicas:
        for reservation in replica.reservations:
            found.setdefault(reservation.uuid, []).append(replica.id)
    return {uuid: tuple(sorted(ids)) for uuid, ids in found.items()}


def _hopeless(need: Resources, inventory: Inventory) -> str:
    """Why there is no use in looking at single devices, "" if there is."""
    if need.gpu > 1 and need.gpu != int(need.gpu):
        return "above 1 only whole GPUs can be given; write 1, 2, 3 ..."
    if inventory.state != "ok":
        return inventory.reason or "no GPU can be seen"
    there = len(inventory.devices)
    if 0 < there < need.gpu:
        return f"this box has only {there} GPU{'s' * (there != 1)}"
    return "" if there else inventory.reason or "this box shows no GPU"


# --- choosing ---------------------------------------------------------------------------------------------


def _place_share(spec: ServiceSpec, able: Sequence[View], seen: Sequence[View]) -> Placement:
    need = spec.resources

    def rank(view: View) -> tuple[float, ...]:
        """The right type, then by wish away from its like, then the tightest."""
        device = view.device
        siblings = sum(replica.service == spec.key for replica, _ in view.holders) if need.spread else 0
        left = view.memory_left - (promise(need, device) or 0)
        return fitness(need, device.type_key, device.memory_total) or 0, siblings, left, view.share_left

    empty = [view for view in able if not view.holders]
    shared = min(((rank(view), view.device.uuid, view) for view in able if view.holders), default=None)
    perfect = shared is not None and not any(shared[0][:2])
    opened = _choose(empty, 1, need, _links(seen))[0] if empty and not perfect else None
    if shared is not None and (opened is None or shared[0][:2] <= rank(opened)[:2]):
        best = shared[2]
        left = format_bytes(max(0, best.memory_left - (promise(need, best.device) or 0)))
        after = f"a share of {max(0.0, best.share_left - need.gpu):.2g} and {left} left after it"
        why = f"already shared with {best.held_by}, the tightest fit: {after}"
    elif opened is not None:
        best = opened
        what = "empty, opened for shares" + (" (spread)" if shared and need.spread else "")
        why = _why_alone(best, able, need, what)
    promised = promise(need, best.device)
    given = Reservation(uuid=best.device.uuid, share=need.gpu, memory=promised)
    return Placement(reservations=(given,), reason=f"share {need.gpu:g} of {_title(best.device)}: {why}")


def _place_whole(able: Sequence[View], need: Resources, seen: Sequence[View]) -> Placement:
    count, links = int(need.gpu), _links(seen)
    chosen = _choose(able, count, need, links)
    given = tuple(Reservation(uuid=view.device.uuid) for view in chosen)
    if count == 1:
        reason = f"{_title(chosen[0].device)}: {_why_alone(chosen[0], able, need, 'free')}"
        return Placement(reservations=given, reason=reason)
    names = " + ".join(_title(view.device) for view in chosen)
    score = links.total([view.device.uuid for view in chosen])
    linked = f"the best linked {count} (score {score})" if score else f"{count} without known links,"
    nodes = {view.device.numa_node for view in chosen}
    where = f" on NUMA node {nodes.pop()}" if len(nodes) == 1 and None not in nodes else ""
    return Placement(
        reservations=given, reason=f"{names}: {linked} of {len(able)} free{where}{_crowd_notes(chosen, able)}"
    )


def _links(seen: Sequence[View]) -> Links:
    free = {view.device.uuid for view in seen if not view.holders and view.device.health == "healthy"}
    return Links([view.device for view in seen], free)


def _choose(able: Sequence[View], count: int, need: Resources, links: Links) -> list[View]:
    """The best `count` devices, in index order. Crowded devices only if there are too few others."""
    quiet = [view for view in able if not view.crowded]
    if len(quiet) < count:
        crowded = sorted((view for view in able if view.crowded), key=lambda view: view.foreign)
        quiet = sorted([*quiet, *crowded[: count - len(quiet)]], key=able.index)
    order = {view.device.uuid: number for number, view in enumerate(quiet)}

    def rank(views: Iterable[View]) -> tuple[float, ...]:
        some = list(views)
        uuids = [view.device.uuid for view in some]
        devices = [view.device for view in some]
        other = max(fitness(need, device.type_key, device.memory_total) or 0 for device in devices)
        types = len({device.type_key for device in devices})
        nodes = len({device.numa_node for device in devices})
        memory = sum(device.memory_total for device in devices) if need.gpu_memory is not None else 0
        busy = sum(bool(device.processes) for device in devices)
        pairs, quads = links.residual(uuids)
        numbers = [order[uuid] for uuid in uuids]
        return other, -links.total(uuids), types, nodes, memory, -pairs, -quads, busy, *numbers

    if len(quiet) <= EXHAUSTIVE or count == 1:
        return list(min(combinations(quiet, count), key=rank))
    by_uuid = {view.device.uuid: view for view in quiet}
    grown = [links.grow(seed, list(order), count) for seed in order]
    return list(min(([by_uuid[uuid] for uuid in some] for some in grown), key=rank))


# --- in words ---------------------------------------------------------------------------------------------


def _refuse(reason: str) -> Placement:
    return Placement(placed=False, reason=reason)


def _wish(need: Resources) -> str:
    if need.gpu < 1:
        text = f"a share of {need.gpu:g} of a GPU"
    else:
        text = "1 whole GPU" if need.gpu == 1 else f"{need.gpu:g} whole GPUs"
    if need.gpu_type:
        text += f" of type {need.gpu_type}" + (" or better" if need.or_better else "")
    if need.gpu_memory is not None:
        text += f" with {format_bytes(need.gpu_memory)}"
    return text + (f" among {', '.join(map(_called, need.devices))}" if need.devices else "")


def _called(name: str) -> str:
    """A device as the service names it."""
    return f"GPU {name}" if name.isdecimal() else name


def _label(device: Device) -> str:
    return f"GPU {device.index}" if device.parent is None else device.uuid[:12]


def _title(device: Device) -> str:
    return f"{device.uuid[:12]} (index {device.index}, {device.name})"


def _crowd_notes(chosen: Sequence[View], able: Sequence[View]) -> str:
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


def _why_alone(best: View, able: Sequence[View], need: Resources, what: str) -> str:
    larger = any(view.device.memory_total > best.device.memory_total for view in able)
    if need.gpu_memory is not None and larger:
        what += f", the smallest that holds {format_bytes(need.gpu_memory)}"
    return what + _crowd_notes([best], able)


def _summary(seen: Sequence[View], refusals: Mapping[str, str], need: Resources) -> str:
    """What stands against each device, those with the same reason together."""
    missing = [name for name in need.devices if not any(named(v.device, [name]) for v in seen)]
    parts = [f"{_called(name)} is not on this box" for name in missing]
    grouped: dict[str, list[Device]] = {}
    for view in seen:
        grouped.setdefault(refusals[view.device.uuid] or "is free", []).append(view.device)
    if need.devices and (parts or len(grouped) > 1):
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
