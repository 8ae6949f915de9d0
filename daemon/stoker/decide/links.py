"""How well devices are joined, and what would be left of that without some of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from stoker.model.device import Device


class Links:
    """The joints between the devices of a box. `free`: UUIDs of those that nobody holds."""

    def __init__(self, devices: Sequence[Device], free: Sequence[str]) -> None:
        self._scores = _scores(tuple((device.uuid, device.links) for device in devices))
        self._free = tuple(free)

    def total(self, uuids: Sequence[str]) -> int:
        """The sum over all pairs."""
        return sum(self._score((one,), (other,)) for one, other in combinations(uuids, 2))

    def grow(self, seed: str, among: Sequence[str], count: int) -> list[str]:
        """A set around `seed`: one by one the device that is joined best to those in it."""
        chosen = [seed]
        while len(chosen) < count:
            rest = [uuid for uuid in among if uuid not in chosen]
            chosen.append(max(rest, key=lambda uuid: self._score((uuid,), chosen)))
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

    def _score(self, a: Sequence[str], b: Sequence[str]) -> int:
        get = self._scores.get
        return sum(get((one, other), get((other, one), 0)) for one in a for other in b)


@lru_cache(maxsize=16)
def _scores(joints: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]) -> Mapping[tuple[str, str], int]:
    return {(uuid, peer): score for uuid, peers in joints for peer, score in peers}
