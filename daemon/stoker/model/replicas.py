"""All replicas at one moment, by id and by service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from stoker.model.replica import Replica
from stoker.model.service import ServiceKey

_AGE = attrgetter("created", "id")


class Replicas(dict[str, Replica]):
    """Replicas by id. Never changed in place: `put` and `without` make another one, which shares with this
    one all that did not change. What a service has is the same object until something of it changes, so
    that who has seen it once need not look again."""

    __slots__ = ("_groups",)

    def __init__(
        self, replicas: Mapping[str, Replica] | None = None, groups: dict[ServiceKey, _Group] | None = None
    ) -> None:
        super().__init__(replicas or {})
        self._groups = _grouped(self.values()) if groups is None else groups

    @property
    def services(self) -> Mapping[ServiceKey, object]:
        """The services that have replicas."""
        return self._groups

    def of(self, service: ServiceKey) -> tuple[Replica, ...]:
        """The replicas of one service, oldest first."""
        group = self._groups.get(service)
        return group.oldest_first() if group else ()

    def changed_since(self, other: Replicas) -> set[ServiceKey]:
        """The services of which something is not the same object as there, or is only there."""
        mine, others = self._groups, other._groups
        if mine is others:
            return set()
        found = {service for service, group in mine.items() if others.get(service) is not group}
        return found | (others.keys() - mine.keys())

    def put(self, replica: Replica) -> Replicas:
        """With this one, in place of the one of its id."""
        before = self.get(replica.id)
        if before is not None and before.service != replica.service:
            return self.without(replica.id).put(replica)
        groups = self._groups.copy()
        group = groups.get(replica.service)
        groups[replica.service] = _Group({**(group.members if group else {}), replica.id: replica})
        return Replicas({**self, replica.id: replica}, groups)

    def without(self, replica: str) -> Replicas:
        """Less the one of that id."""
        if replica not in self:
            return self
        others = dict(self)
        service = others.pop(replica).service
        groups = self._groups.copy()
        rest = dict(groups.pop(service).members)
        del rest[replica]
        if rest:
            groups[service] = _Group(rest)
        return Replicas(others, groups)


class _Group:
    """The replicas of one service."""

    __slots__ = ("_ordered", "members")

    def __init__(self, members: dict[str, Replica]) -> None:
        self.members = members
        self._ordered: tuple[Replica, ...] | None = None

    def oldest_first(self) -> tuple[Replica, ...]:
        """In order of age; sorted when it is asked for the first time."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self.members.values(), key=_AGE))
        return self._ordered


def _grouped(replicas: Iterable[Replica]) -> dict[ServiceKey, _Group]:
    members: dict[ServiceKey, dict[str, Replica]] = {}
    for replica in replicas:
        members.setdefault(replica.service, {})[replica.id] = replica
    return {service: _Group(mine) for service, mine in members.items()}
