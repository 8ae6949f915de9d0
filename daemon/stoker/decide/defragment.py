"""Which replicas that share GPUs would have to move for a pending one to find whole ones. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from stoker.decide.links import Links
from stoker.decide.placement import EXHAUSTIVE, place
from stoker.decide.views import View, against, views
from stoker.model.device import Inventory
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec

MOST = 4
"""Replicas that are moved at most for one that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Devices that would be free if these replicas were elsewhere, and where they could go."""

    devices: tuple[str, ...]
    moves: tuple[Replica, ...]
    """As they would be after the move."""


def opening(
    spec: ServiceSpec,
    inventory: Inventory,
    replicas: Sequence[Replica],
    services: Mapping[ServiceKey, ServiceSpec],
    *,
    most: int = MOST,
) -> Opening | None:
    """The fewest moves of shared replicas after which `spec` has its whole devices, None if no few do.

    Only replicas that serve, of services that are configured, are moved; each to where placement puts it.
    """
    count = int(spec.resources.gpu)
    if spec.resources.gpu < 1 or inventory.state != "ok":
        return None
    seen = views(inventory, replicas)
    able = [view for view in seen if _could_open(view, spec, services)]
    links = Links([view.device for view in seen], {v.device.uuid for v in seen if not v.holders})
    for some in _sets(able, count, links):
        if sum(len(view.holders) for view in some) > most:
            return None
        uuids = tuple(view.device.uuid for view in some)
        moved = _elsewhere(
            [r for view in some for r, _ in view.holders], uuids, inventory, replicas, services
        )
        if moved is not None:
            return Opening(devices=uuids, moves=moved)
    return None


def _could_open(view: View, spec: ServiceSpec, services: Mapping[ServiceKey, ServiceSpec]) -> bool:
    empty = replace(view, holders=(), committed=0, share_left=1.0)
    return not against(empty, spec.resources) and all(
        held.share < 1 and replica.phase == "ready" and not replica.leave and replica.service in services
        for replica, held in view.holders
    )


def _sets(able: Sequence[View], count: int, links: Links) -> Iterator[tuple[View, ...]]:
    """Sets of that size, those with the fewest to move first, of these the best linked."""
    by_load = sorted(able, key=lambda view: (len(view.holders), view.device.index))
    near = by_load[: max(EXHAUSTIVE, count + 2)] if len(able) > EXHAUSTIVE else by_load

    def rank(some: tuple[View, ...]) -> tuple[int, int, int]:
        uuids = [view.device.uuid for view in some]
        return sum(len(view.holders) for view in some), -links.total(uuids), -links.residual(uuids)[0]

    yield from sorted(combinations(near, count), key=rank)


def _elsewhere(
    who: Sequence[Replica],
    uuids: tuple[str, ...],
    inventory: Inventory,
    replicas: Sequence[Replica],
    services: Mapping[ServiceKey, ServiceSpec],
) -> tuple[Replica, ...] | None:
    """Where these go if none of the devices may be theirs; the largest first. None: one finds no place."""
    state = {replica.id: replica for replica in replicas}
    moved = []
    for replica in sorted(who, key=lambda one: (-sum(r.share for r in one.reservations), one.id)):
        spec = services[replica.service]
        barred = replace(spec.resources, exclude=(*spec.resources.exclude, *uuids))
        # Until it is drained a mover holds both places: its old one counts, the new one must be free beside.
        found = place(replace(spec, resources=barred), inventory, list(state.values()))
        if not found.placed:
            return None
        after = replace(replica, reservations=found.reservations)
        state[f"{replica.id} moved"] = after
        moved.append(after)
    return tuple(moved)
