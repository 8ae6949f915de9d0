"""A plan in the making: local to one call of `reconcile`, so the whole stays pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from stoker.decide.defragment import Opening, opening
from stoker.model.action import Action, Plan, RejectRevision
from stoker.model.device import Inventory, Placement, Reservation
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec

_EPSILON = 1e-6


class Place(Protocol):
    """Chooses devices for one replica; `stoker.decide.placement.place` or a test's own."""

    def __call__(self, spec: ServiceSpec, inventory: Inventory, replicas: Iterable[Replica]) -> Placement:
        """The replicas given hold what they have reserved."""
        ...


class Draft:
    """Collects at most one action per replica and the earliest time to look again. Devices given to one
    start of a plan are taken for the next one."""

    def __init__(self, replicas: Iterable[Replica], inventory: Inventory, now: float, place: Place) -> None:
        self.now = now
        self._holders = {replica.id: replica for replica in replicas if replica.reservations}
        self._inventory = inventory
        self._place = place
        self._actions: dict[str, Action] = {}
        self._declared: list[Action] = []
        self._subject = ""
        self._touched: set[ServiceKey] = set()
        self._wakes: dict[ServiceKey, float] = {}

    def turn_to(self, service: ServiceKey) -> None:
        """From now on it is about that service."""
        self._subject = service

    def lean(self) -> None:
        """What is decided for this service hangs on others."""
        self._touched.add(self._subject)

    def touched(self, service: ServiceKey) -> bool:
        """Whether anything is done for that service, or hung on more than its own replicas and the time."""
        return service in self._touched

    def wake_of(self, service: ServiceKey) -> float | None:
        """When that service must be looked at again though nothing happens; None: never."""
        return self._wakes.get(service)

    def act(self, action: Action) -> None:
        """Put an action into the plan. The first one for a replica stands."""
        self._touched.add(action.service)
        self._actions.setdefault(action.replica, action)

    def declare(self, action: Action) -> None:
        """Put an action into the plan that is about a whole service."""
        self._touched.add(action.service)
        self._declared.append(action)

    @property
    def turns_back(self) -> bool:
        """Whether a revision is rejected: what else there is to do is known only after that."""
        return any(isinstance(action, RejectRevision) for action in self._declared)

    def open(self, replica: Replica) -> bool:
        """Whether nothing was decided for it yet."""
        return replica.id not in self._actions

    def due(self, at: float) -> bool:
        """Whether that time has come; if not, the plan is to be made again then."""
        if at <= self.now:
            return True
        self._wakes[self._subject] = min(at, self._wakes.get(self._subject, at))
        return False

    def place(self, spec: ServiceSpec) -> Placement:
        """Where one more replica of `spec` would run now. Holds the answer to the law."""
        self.lean()
        others = list(self._holders.values())
        answer = self._place(spec, self._for(spec, self._inventory), others)
        fault = _unlawful(answer, self._inventory, others) if answer.placed else ""
        return Placement(placed=False, reason=fault) if fault else _described(answer, self._inventory)

    def fits(self, spec: ServiceSpec, *, without: Sequence[Replica] = ()) -> bool:
        """Whether one more replica of `spec` would find its devices, were those gone. A device that is only
        withheld until its last worker has left it counts: it will be free."""
        self.lean()
        gone = {replica.id for replica in without}
        others = [replica for replica in self._holders.values() if replica.id not in gone]
        devices = tuple(
            replace(device, withheld="") if device.withheld else device for device in self._inventory.devices
        )
        return self._place(spec, self._for(spec, replace(self._inventory, devices=devices)), others).placed

    def opening(self, spec: ServiceSpec, services: Mapping[ServiceKey, ServiceSpec]) -> Opening | None:
        """Which sharers would have to move for a replica of `spec` to have its whole devices."""
        return opening(spec, self._inventory, list(self._holders.values()), services)

    def _for(self, spec: ServiceSpec, inventory: Inventory) -> Inventory:
        """The devices as they are for that service: one that is being emptied takes no new sharers."""
        movers = [holder for holder in self._holders.values() if holder.moving]
        emptied = {
            uuid: mover
            for mover in movers
            for uuid in (*(given.uuid for given in mover.reservations), *mover.vacates)
        }
        if not emptied or spec.resources.gpu >= 1:
            return inventory
        devices = [
            replace(device, withheld=emptied[device.uuid].moving) if device.uuid in emptied else device
            for device in inventory.devices
        ]
        return replace(inventory, devices=tuple(devices))

    def take(self, replica: Replica, reservations: tuple[Reservation, ...]) -> None:
        """Count these devices as taken for the rest of the plan."""
        if reservations:
            self._holders[replica.id] = replace(replica, reservations=reservations)
        else:
            self._holders.pop(replica.id, None)

    def plan(self) -> Plan:
        """The finished plan."""
        return Plan(
            actions=(*self._declared, *self._actions.values()),
            wake_at=min(self._wakes.values(), default=None),
        )


def _described(answer: Placement, inventory: Inventory) -> Placement:
    """With each reservation what a worker must be told of its device."""
    found = []
    for given in answer.reservations:
        device = inventory.get(given.uuid)
        found.append(
            replace(given, ordinal=device.ordinal, limits=device.limits, numa_node=device.numa_node)
            if device is not None
            else given
        )
    return replace(answer, reservations=tuple(found))


def _unlawful(answer: Placement, inventory: Inventory, replicas: Sequence[Replica]) -> str:
    """What is wrong with a placement, "" if nothing: each device must exist, be healthy, and never be given
    beyond its whole. Cheap enough to ask every time, and no rule of placement can then break the law."""
    shares: dict[str, float] = {}
    for given in (r for replica in replicas for r in replica.reservations):
        shares[given.uuid] = shares.get(given.uuid, 0.0) + given.share
    for given in answer.reservations:
        device = inventory.get(given.uuid) if inventory.state == "ok" else None
        if device is None or device.health != "healthy":
            return f"placement chose {given.uuid}, which is not there or not healthy: a fault of Stoker"
        shares[given.uuid] = shares.get(given.uuid, 0.0) + given.share
        if shares[given.uuid] > 1 + _EPSILON:
            return f"placement chose {given.uuid}, which is taken: a fault of Stoker"
    return ""
