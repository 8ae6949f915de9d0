"""The laws that hold in every state and at every start, written down apart from the code that keeps them.

Deliberately naive: nothing here calls the deciding functions.
"""

from __future__ import annotations

from collections.abc import Iterable

from stoker.model.event import Event, ReplicaForgotten, StartRequested
from stoker.model.replica import ALIVE, Replica
from stoker.model.service import DesiredState, ServiceSpec, revision
from stoker.model.state import ObservedState


def surge_of(spec: ServiceSpec) -> int:
    """How many replicas an update may add."""
    return {"RollingUpdate": spec.update.max_surge, "RampedSlowRollout": 1}.get(spec.update.strategy, 0)


def shares(replicas: Iterable[Replica]) -> dict[str, float]:
    """What is taken of each device."""
    taken: dict[str, float] = {}
    for replica in replicas:
        for reservation in replica.reservations:
            taken[reservation.uuid] = taken.get(reservation.uuid, 0.0) + reservation.share
    return taken


def check_state(state: ObservedState) -> None:
    """Raise AssertionError if the state alone breaks a law."""
    for uuid, share in shares(state.replicas.values()).items():
        owners = [r.id for r in state.replicas.values() if any(x.uuid == uuid for x in r.reservations)]
        assert share <= 1 + 1e-6, f"{uuid} is owned {share} times over, by {owners}"
    for replica in state.replicas.values():
        if replica.phase not in ALIVE:
            assert not replica.reservations, f"{replica.id} is {replica.phase} and holds devices"
            assert replica.handle is None, f"{replica.id} is {replica.phase} and has a worker"
        if replica.serving:
            assert replica.handle is not None, f"{replica.id} is ready without a worker"


def check_start(event: StartRequested, before: ObservedState, desired: DesiredState) -> None:
    """Raise AssertionError if this start breaks a law. `before`: the state in which it was decided."""
    spec = desired.services[event.service]
    assert not spec.held, f"{event.replica} started although its service is held"
    assert not before.stopping, f"{event.replica} started although everything is to end"
    assert event.revision == revision(spec), f"{event.replica} started with revision {event.revision}"
    mine = [r for r in before.replicas.values() if r.service == event.service and r.phase in ALIVE]
    update = any(r.revision != event.revision for r in before.replicas.values() if r.service == event.service)
    cap = spec.scaling.max_replicas + (surge_of(spec) if update else 0) + sum(bool(r.moving) for r in mine)
    assert len(mine) + 1 <= cap, f"{event.replica} would be living worker {len(mine) + 1} of at most {cap}"
    wanted = spec.resources.gpu
    assert sum(r.share for r in event.reservations) == wanted, f"{event.replica} got {event.reservations}"
    for given in event.reservations:
        device = before.inventory.get(given.uuid)
        assert before.inventory.state == "ok", f"{event.replica} got a device while the driver is silent"
        assert device is not None, f"{event.replica} got {given.uuid}, which does not exist"
        assert device.health == "healthy", f"{event.replica} got {given.uuid}, which is {device.health}"


class LawWatch:
    """Checks every event of a run: call `after` with the state that each event led to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._before = ObservedState()

    def after(self, event: Event, state: ObservedState, desired: DesiredState) -> None:
        self.events.append(event)
        check_state(state)
        if isinstance(event, StartRequested):
            check_start(event, self._before, desired)
        if isinstance(event, ReplicaForgotten):
            old = self._before.replicas.get(event.replica)
            assert old is None or old.phase not in ALIVE, (
                f"{event.replica} forgotten while {old and old.phase}"
            )
        self._before = state
