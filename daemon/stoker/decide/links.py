"""How well devices are joined, and what would be left of that without some of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from stoker.model.device import Device


class Links:
    """The joints between the devices of a box. `free`: UUIDs of those that nobody holds."""

    def __init__(self, devices: Sequence[Device], free: Collection[str]) -> None:
        joints = tuple((device.uuid, device.links) for device in devices)
        self._scores = _scores(joints)
        self._edges = [edge for edge in _edges(joints) if edge[1][0] in free and edge[2][0] in free]
        self._joints: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}

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
        pairs, score = _match(self._edges, taken)
        fours = [(self._joint(a, b), a, b) for a, b in combinations(pairs, 2)]
        fours.sort(key=lambda joint: -joint[0])
        return score, _match(fours, ())[1]

    def _joint(self, a: tuple[str, ...], b: tuple[str, ...]) -> int:
        known = self._joints.get((a, b))
        if known is None:
            known = self._joints[a, b] = self._score(a, b)
        return known

    def _score(self, a: Sequence[str], b: Sequence[str]) -> int:
        get = self._scores.get
        return sum(get((one, other), get((other, one), 0)) for one in a for other in b)


def _match(
    joints: Sequence[tuple[int, tuple[str, ...], tuple[str, ...]]], taken: Sequence[str]
) -> tuple[list[tuple[str, ...]], int]:
    """Join groups two by two, in that order; those with a taken device stay alone."""
    joined: list[tuple[str, ...]] = []
    used: set[tuple[str, ...]] = {(uuid,) for uuid in taken}
    total = 0
    for score, a, b in joints:
        if score > 0 and a not in used and b not in used:
            used |= {a, b}
            joined.append(a + b)
            total += score
    return joined, total


@lru_cache(maxsize=16)
def _scores(joints: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]) -> Mapping[tuple[str, str], int]:
    return {(uuid, peer): score for uuid, peers in joints for peer, score in peers}


@lru_cache(maxsize=16)
def _edges(
    joints: tuple[tuple[str, tuple[tuple[str, int], ...]], ...],
) -> Sequence[tuple[int, tuple[str], tuple[str]]]:
    """All pairs that are joined at all, the best first."""
    scores = _scores(joints)
    found = [
        (scores.get((a, b), scores.get((b, a), 0)), (a,), (b,)) for (a, _), (b, _) in combinations(joints, 2)
    ]
    return sorted((edge for edge in found if edge[0] > 0), key=lambda edge: -edge[0])
