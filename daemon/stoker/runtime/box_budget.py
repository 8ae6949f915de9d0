"""The box of this daemon and how it is shared out from one decision to the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from stoker.decide.apportion import Asked, Kinds, Portion, apportion, kinds_of
from stoker.decide.budget import BudgetMemory
from stoker.decide.claims import ANY, Amount
from stoker.model.device import Inventory
from stoker.model.event import Notice
from stoker.model.service import DesiredState, ServiceKey, ServiceSpec
from stoker.model.state import ObservedState
from stoker.plugin.processes import PAGE

LASTING = 15.0
"""Seconds that an overload must last to be told, and be over to be told again."""


class BoxBudget:
    """Keeps what must be remembered between two sharings. `room`: cores and bytes that there are; `clusters`:
    what there is for services that run elsewhere, by backend. Of a cluster that is not known nothing is
    counted: whoever finds no place there waits."""

    def __init__(
        self, room: Amount, clusters: Callable[[], Mapping[str, Amount]] = dict[str, Amount]
    ) -> None:
        self.room = room
        self.wake_at: float | None = None
        self._clusters = clusters
        self._memories: dict[str, BudgetMemory] = {}
        """By backend of a cluster, "" for the box."""
        self._kinds: tuple[Inventory, Mapping[ServiceKey, ServiceSpec], Kinds | None] | None = None
        self._overloaded: dict[ServiceKey, tuple[float, bool]] = {}
        """Since when, and whether it was told."""
        self._calm: dict[ServiceKey, float] = {}

    def due(self, now: float) -> bool:
        """Whether the shares can change by themselves now."""
        return self.wake_at is not None and self.wake_at <= now

    def share(
        self,
        desired: DesiredState,
        observed: ObservedState,
        asked: Mapping[ServiceKey, Asked],
        now: float,
    ) -> tuple[dict[ServiceKey, Portion], list[Notice]]:
        """Each service's part, and what is to be told to the operator."""
        kinds = self._kinds_of(desired, observed)
        room = Amount(
            cpu=desired.box.cpu or self.room.cpu, memory=float(desired.box.memory or self.room.memory)
        )
        clusters = self._clusters()
        shares = [("", desired, kinds, room)]
        shares += [
            (name, of_cluster(desired, name), _devices_of(desired, name, there), there)
            for name, there in clusters.items()
        ]
        portions: dict[ServiceKey, Portion] = {}
        wakes = []
        for name, of, devices, there in shares:
            part = {key: one for key, one in asked.items() if _home(desired, key, clusters) == name}
            memory = self._memories.get(name, BudgetMemory())
            found, self._memories[name], wake_at = apportion(
                of, observed, part, now, kinds=devices, room=there, memory=memory, name=name or "the box"
            )
            portions |= found
            wakes += [wake_at] if wake_at is not None else []
        # Strictly later: a move is made when its dwell is over, not in the instant in which it ends.
        self.wake_at = min(wakes) + 0.01 if wakes else None
        return portions, self._words(desired, portions, now)

    def _kinds_of(self, desired: DesiredState, observed: ObservedState) -> Kinds | None:
        """Worked out anew when the devices or the services change; both are replaced whole when they do."""
        known = self._kinds
        if known is None or known[0] is not observed.inventory or known[1] is not desired.services:
            services = [desired.services[key] for key in sorted(desired.services)]
            found = kinds_of(services, observed.inventory, list(observed.replicas.values()))
            known = self._kinds = (observed.inventory, desired.services, found)
        return known[2]

    def _words(
        self, desired: DesiredState, portions: Mapping[ServiceKey, Portion], now: float
    ) -> list[Notice]:
        """Overload that lasts is no matter of scaling any more: the operator must hear of it, once."""
        notices = []
        since = {key: self._overloaded.get(key, (now, False)) for key, one in portions.items() if one.lacking}
        for key, (began, told) in self._overloaded.items():
            if told and key in portions and key not in since:
                # Kept for a while: a load that swings around what the box bears is one overload, not many.
                quiet = portions[key].lacking == 0 and now - self._calm.setdefault(key, now) >= LASTING
                if not quiet:
                    since[key] = (began, told)
        self._calm = {key: at for key, at in self._calm.items() if key in since and not portions[key].lacking}
        for key, (began, told) in since.items():
            if not told and now - began >= LASTING:
                since[key] = (began, True)
                spec, one = desired.services[key], portions[key]
                who = spec.backend if spec.elsewhere else "the box"
                message = (
                    f"{spec.name} is overloaded: what comes in takes {one.target + one.lacking} replicas and "
                    f"{who} gives {one.target}; beyond {spec.traffic.max_queue} waiting requests the "
                    "router refuses"
                )
                notices.append(Notice(message=message, severity="warning", service=key))
        self._overloaded = since
        return notices


def of_cluster(desired: DesiredState, backend: str) -> DesiredState:
    """What is desired there, with what it takes there. Pure. Idle devices of a cluster are others' too."""
    services = {
        key: replace(spec, resources=spec.elsewhere.resources)
        for key, spec in desired.services.items()
        if spec.backend == backend and spec.elsewhere is not None
    }
    return replace(desired, services=services, box=replace(desired.box, idle="release"))


def _devices_of(desired: DesiredState, backend: str, there: Amount) -> Kinds:
    """All of a cluster's devices as one kind: which are good for whom is its own business."""
    takes = {
        key: {ANY: spec.resources.gpu} if spec.resources.gpu else {}
        for key, spec in of_cluster(desired, backend).services.items()
    }
    return Kinds(devices={ANY: there.devices}, takes=takes)


def _home(desired: DesiredState, key: ServiceKey, clusters: Mapping[str, Amount]) -> str:
    """The cluster whose part a service takes, "" for the box."""
    spec = desired.services.get(key)
    there = spec is not None and spec.elsewhere is not None and spec.backend in clusters
    return spec.backend if spec is not None and there else ""


def measure_room() -> Amount:
    """The cores that this process may use, and the box's memory."""
    return Amount(cpu=float(len(os.sched_getaffinity(0))), memory=float(os.sysconf("SC_PHYS_PAGES") * PAGE))
