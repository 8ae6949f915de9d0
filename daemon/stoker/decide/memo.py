"""What the plan before has seen, so that a plan need not look again at services of which nothing changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stoker.decide.draft import Draft
from stoker.decide.pool import Pool, pool_of, pools
from stoker.decide.routing import RouteMemo
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
        self.pools: dict[ServiceKey, Pool] = {}
        """As they were seen last."""
        self.routes = RouteMemo()
        self._resting: dict[ServiceKey, _Rest] = {}
        self._timed: set[ServiceKey] = set()
        """Those whose rest ends by itself."""
        self._awake: set[ServiceKey] = set()
        """Those that must be looked at; `_all`: any may be among them."""
        self._all = True
        self._desired = DesiredState()
        self._observed = ObservedState()
        self._good = self._observed.good

    def look(self, desired: DesiredState, observed: ObservedState) -> Mapping[ServiceKey, Pool]:
        """All pools of these states."""
        before, same = self._observed, desired is self._desired
        if same and observed is before:
            return self.pools
        if not same or observed.stopping or observed.inventory is not before.inventory:
            self._resting.clear()
            self._all = True
        changed = observed.replicas.changed_since(before.replicas)
        if same and _same_numbers(observed, before) and self._still_there(changed, desired, observed):
            made = {key: pool_of(key, desired, observed) for key in changed}
            self.pools = {**self.pools, **made} if made else self.pools
            self._awake |= changed
        else:
            self.pools = pools(desired, observed, self.pools)
            self._all = True
        self._desired, self._observed = desired, observed
        return self.pools

    def news(self, observed: ObservedState, draft: Draft) -> list[Pool]:
        """The pools that must be looked at; the draft is told when the others must."""
        if self._all:
            self._resting = {key: rest for key, rest in self._resting.items() if key in self.pools}
            keys = list(self.pools)
        else:
            proved = _differing(observed.good, self._good) & self.pools.keys()
            keys = sorted(self._awake | self._timed | proved)
        self._all, self._good = False, observed.good
        found = [self.pools[key] for key in keys if not self._rests(key, observed, draft)]
        self._awake = {pool.key for pool in found}
        self._timed &= self._resting.keys()
        return found

    def keep(self, seen: Iterable[Pool], observed: ObservedState, draft: Draft) -> None:
        """Remember which of the pools that were looked at have nothing to do. What a pending replica waits
        for may be anything, and services that end wait for each other."""
        for pool in seen:
            key = pool.key
            self._timed.discard(key)
            if observed.stopping or pool.pending or draft.touched(key):
                self._resting.pop(key, None)
                continue
            wake_at = draft.wake_of(key)
            self._resting[key] = _Rest(pool, observed.good.get(key), wake_at)
            self._awake.discard(key)
            if wake_at is not None:
                self._timed.add(key)

    def _rests(self, key: ServiceKey, observed: ObservedState, draft: Draft) -> bool:
        rest = self._resting.get(key)
        return (
            rest is not None
            and rest.pool is self.pools[key]
            and rest.good is observed.good.get(key)
            and (rest.wake_at is None or not draft.due(rest.wake_at))
        )

    def _still_there(
        self, changed: Iterable[ServiceKey], desired: DesiredState, observed: ObservedState
    ) -> bool:
        """Whether no pool comes or goes with these changes."""
        services = observed.replicas.services
        return all(key in self.pools and (key in desired.services or key in services) for key in changed)


def _differing(
    one: Mapping[ServiceKey, ServiceSpec], other: Mapping[ServiceKey, ServiceSpec]
) -> set[ServiceKey]:
    """The keys of which the two do not have the very same."""
    if one is other:
        return set()
    return {key for key, spec in one.items() if other.get(key) is not spec} | (other.keys() - one.keys())


def _same_numbers(one: ObservedState, other: ObservedState) -> bool:
    """Whether all that a pool's wanted number comes from is the same, its spec aside."""
    return (
        one.targets is other.targets
        and (one.demand is other.demand or one.demand == other.demand)
        and one.stopping == other.stopping
    )
