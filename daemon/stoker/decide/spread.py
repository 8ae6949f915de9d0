"""Which of several processes of a router has which service.

A service belongs to one process alone, which owns its queue: two of them would each know half of its load.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from stoker.model.service import ServiceKey


def spread(
    services: Iterable[ServiceKey],
    count: int,
    *,
    present: Mapping[ServiceKey, int],
    fixed: Collection[ServiceKey] = (),
) -> dict[ServiceKey, int]:
    """Return the process, 0 to `count` - 1, of each service.

    Those of `fixed` belong to the first. The others stay where they are `present`, as long as no process has
    two services more than another: a move is seen by nobody, and yet it is work.
    """
    found: dict[ServiceKey, int] = {}
    homes: list[list[ServiceKey]] = [[] for _ in range(count)]
    free = []
    for service in sorted(services):
        place = 0 if service in fixed else present.get(service, count)
        if place < count:
            homes[place].append(service)
        else:
            free.append(service)
    for service in free:
        min(homes, key=len).append(service)
    while True:
        fullest, emptiest = max(homes, key=len), min(homes, key=len)
        movable = [service for service in fullest if service not in fixed]
        if len(fullest) - len(emptiest) < 2 or not movable:
            break
        fullest.remove(movable[-1])
        emptiest.append(movable[-1])
    for place, those in enumerate(homes):
        found |= dict.fromkeys(those, place)
    return found
