"""Which replicas come and go when a service's number or its revision changes. Pure.

The law of every update: ready replicas never fall below `wanted - max_unavailable` because of it, and there
are never more than `wanted + max_surge`. Old replicas that do not serve are replaced first and freely, for
nobody misses them. Example: wanted 3, surge 1, unavailable 0, three old ones ready: one new one comes; when
it is ready one old one goes; and so on.

Where a surge finds no free device the update would wait for ever; then old replicas make room one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stoker.decide.pool import Pool, is_ready, victims
from stoker.model.replica import Replica
from stoker.model.service import Update

OUTDATED = "its revision is not the one in force"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to change now: how many replicas to add, and which to let go, each with the reason."""

    add: int = 0
    resume: tuple[Replica, ...] = ()
    """Draining ones to take back, in place of as many to add."""
    drop: tuple[tuple[Replica, str], ...] = ()


def step(
    pool: Pool,
    *,
    fits_without: Callable[[Sequence[Replica]], bool],
    sound: Callable[[Replica], bool] = lambda replica: True,
) -> Step:
    """Return the next step towards `pool.wanted` replicas of `pool.revision`. Pure.

    `fits_without(some)`: whether one more new replica would find its devices if those were gone.
    `sound(replica)`: whether it can stay where it is.
    """
    fresh = [r for r in pool.counted if r.revision == pool.revision]
    old = [r for r in pool.counted if r.revision != pool.revision]
    surplus = victims(fresh, len(fresh) - pool.wanted)
    drop = [(r, f"{pool.wanted} wanted") for r in surplus]
    if not old:
        return _with_resumed(pool, Step(add=max(0, pool.wanted - len(fresh)), drop=tuple(drop)), sound)
    kept = [r for r in fresh if r not in surplus]
    outdated = _outdated(pool, kept, old, fits_without)
    remaining = len(old) - len(outdated)
    surge, _ = bounds(_update(pool), pool.wanted)
    room = pool.wanted if _update(pool).strategy == "Recreate" else pool.wanted + surge - remaining
    change = max(0, min(pool.wanted, room)) - len(kept)
    early = victims([r for r in kept if r.phase == "pending"], -change)
    drop += [(r, "too early in the update") for r in early]
    return _with_resumed(pool, Step(add=max(0, change), drop=(*drop, *outdated)), sound)


def _with_resumed(pool: Pool, planned: Step, sound: Callable[[Replica], bool]) -> Step:
    """What drains only because fewer were wanted comes back before anything is started: it is warm. The one
    that began to drain last has the most in flight, and is the furthest from its end."""
    if not planned.add:
        return planned
    able = [r for r in pool.members if r.revision == pool.revision and _resumable(r) and sound(r)]
    able.sort(key=lambda replica: (-replica.since, replica.id))
    back = tuple(able[: planned.add])
    return replace(planned, add=planned.add - len(back), resume=back)


def _resumable(replica: Replica) -> bool:
    fit = replica.ready_at is not None and not replica.condemned and not replica.unfit and not replica.moving
    return replica.phase == "draining" and replica.leave and fit


def bounds(update: Update, wanted: int) -> tuple[int, int]:
    """How many replicas there may be beyond the wanted ones, and how many of these may be missing. Pure.

    Both 0 would forbid any update; then one may be missing. A surge's share is rounded up, the other down: of
    5 replicas 20 % are one, of 4 none.
    """
    surge, unavailable = update.max_surge, update.max_unavailable
    if update.surge_share is not None:
        surge = min(surge, -(-wanted * update.surge_share // 100))
    if update.unavailable_share is not None:
        unavailable = min(unavailable, wanted * update.unavailable_share // 100)
    match update.strategy:
        case "Recreate":
            return 0, 0
        case "RampedSlowRollout":
            return 1, 0
        case "BestEffortControlledRollout":
            return 0, max(1, unavailable)
        case "RollingUpdate":
            return surge, unavailable or (0 if surge else 1)


def _update(pool: Pool) -> Update:
    return pool.spec.update if pool.spec else Update()


def _outdated(
    pool: Pool, fresh: Sequence[Replica], old: Sequence[Replica], fits: Callable[[Sequence[Replica]], bool]
) -> list[tuple[Replica, str]]:
    """The old replicas that may leave now."""
    if _update(pool).strategy == "Recreate" or pool.wanted == 0:
        return [(r, OUTDATED) for r in old]
    serving = [r for r in old if is_ready(r)]
    idle = [(r, f"{OUTDATED} and it does not serve") for r in old if not is_ready(r)]
    _, unavailable = bounds(_update(pool), pool.wanted)
    spare = len(serving) + sum(is_ready(r) for r in fresh) - (pool.wanted - unavailable)
    leaving = [(r, OUTDATED) for r in victims(serving, spare)]
    if not leaving and spare >= 0 and _stuck(pool, fresh):
        leaving = [
            (r, f"{OUTDATED}; no free device for a surge, so it makes room") for r in _room(serving, fits)
        ]
    return idle + leaving


def _stuck(pool: Pool, fresh: Sequence[Replica]) -> bool:
    """Whether a new replica waits for its first start while nothing is on the way that could help it."""
    coming_or_going = any(r.phase in ("starting", "draining", "stopping") for r in pool.members)
    return not coming_or_going and any(r.phase == "pending" and not r.failures for r in fresh)


def _room(serving: Sequence[Replica], fits: Callable[[Sequence[Replica]], bool]) -> tuple[Replica, ...]:
    """The fewest old replicas whose devices are enough for a new one; none if no number of them is."""
    if fits(()):
        return ()
    order = victims(serving, len(serving))
    for count in range(1, len(order) + 1):
        if fits(order[:count]):
            return order[:count]
    return ()
