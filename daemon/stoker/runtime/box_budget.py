"""The box of this daemon and how it is shared out from one decision to the next."""

from __future__ import annotations

import os
from collections.abc import Mapping

from stoker.decide.apportion import Asked, Kinds, Portion, apportion, kinds_of
from stoker.decide.budget import BudgetMemory
from stoker.decide.claims import Amount
from stoker.model.device import Inventory
from stoker.model.event import Notice
from stoker.model.service import DesiredState, ServiceKey, ServiceSpec
from stoker.model.state import ObservedState
from stoker.plugin.processes import PAGE

LASTING = 15.0
"""Seconds that an overload must last to be told, and be over to be told again."""


class BoxBudget:
    """Keeps what must be remembered between two sharings. `room`: cores and bytes that there are."""

    def __init__(self, room: Amount) -> None:
        self.room = room
        self.wake_at: float | None = None
        self._memory = BudgetMemory()
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
        portions, self._memory, wake_at = apportion(
            desired, observed, asked, now, kinds=kinds, room=room, memory=self._memory
        )
        # Strictly later: a move is made when its dwell is over, not in the instant in which it ends.
        self.wake_at = None if wake_at is None else wake_at + 0.01
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
                message = (
                    f"{spec.name} is overloaded: what comes in takes {one.target + one.lacking} replicas and "
                    f"the box gives {one.target}; beyond {spec.traffic.max_queue} waiting requests the "
                    "router refuses"
                )
                notices.append(Notice(message=message, severity="warning", service=key))
        self._overloaded = since
        return notices


def measure_room() -> Amount:
    """The cores that this process may use, and the box's memory."""
    return Amount(cpu=float(len(os.sched_getaffinity(0))), memory=float(os.sysconf("SC_PHYS_PAGES") * PAGE))
