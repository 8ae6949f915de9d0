"""What the plan before has seen, so that a plan need not look again at services of which nothing changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stoker.decide.draft import Draft
from stoker.decide.pool import Pool, pools
from stoker.decide.routing import RouteMemo
from stoker.model.device import Inventory
from stoker.model.service import DesiredState, ServiceKey, ServiceSpec
from stoker.model.state import ObservedState


@dataclass(frozen=True, slots=True)
class _Rest:
    """A service with nothing to do until `wake_at`, as long as these are the very same objects."""

    pool: Pool
    good: ServiceSpec | None
    wake_at: float | None


class Memo:
    """Handed from plan to plan by whoever makes them in a row. Plans are the same with and without it."""

    def __init__(self) -> None:
        self.pools: Mapping[ServiceKey, Pool] = {}
        """As they were seen last."""
        self.routes = RouteMemo()
        self._resting: dict[ServiceKey, _Rest] = {}
        self._desired: DesiredState | None = None
        self._inventory: Inventory | None = None

    def look(self, desired: DesiredState, observed: ObservedState) -> Mapping[ServiceKey, Pool]:
        """All pools of these states."""
        if desired is not self._desired or observed.inventory is not self._inventory or observed.stopping:
            self._resting.clear()
            self._desired, self._inventory = desired, observed.inventory
        self.pools = pools(desired, observed, self.pools)
        return self.pools

    def news(self, observed: ObservedState, draft: Draft) -> list[Pool]:
        """The pools that must be looked at; the draft is told when the others must."""
        found = []
        for pool in self.pools.values():
            rest = self._resting.get(pool.key)
            if (
                rest is None
                or rest.pool is not pool
                or rest.good is not observed.good.get(pool.key)
                or (rest.wake_at is not None and draft.due(rest.wake_at))
            ):
                found.append(pool)
        return found

    def keep(self, seen: Iterable[Pool], observed: ObservedState, draft: Draft) -> None:
        """Remember which of the pools that were looked at have nothing to do. What a pending replica waits
        for may be anything, and at the end services wait for each other."""
        for pool in seen:
            if observed.stopping or pool.spec is None or pool.pending or draft.touched(pool.key):
                self._resting.pop(pool.key, None)
            else:
                self._resting[pool.key] = _Rest(pool, observed.good.get(pool.key), draft.wake_of(pool.key))
