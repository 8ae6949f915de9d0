"""Moves that free whole GPUs come to an end: what moves does not go where it is in the way again."""

from __future__ import annotations

from typing import Any

from stoker.decide.reconcile import reconcile
from stoker.model.action import MoveReplica, StartReplica
from stoker.model.device import Reservation
from stoker.model.replica import Replica
from stoker.model.service import Resources
from worlds import box, make_replica, make_spec, seeing, wanting

SHARE = make_spec("share", resources=Resources(gpu=0.5, exclude=("0",)), replicas=(1, 1))
TWO = make_spec("two", resources=Resources(gpu=2, devices=("1", "2")), replicas=(1, 1))


def sharer(tag: str, **more: Any) -> Replica:
    held = (Reservation(uuid="GPU-1", share=0.5, memory=1),)
    return make_replica(SHARE, tag, **{"reservations": held, **more})


def test_a_mover_makes_room_for_all_of_a_set() -> None:
    there = [sharer("a"), make_replica(TWO, "w", "pending")]
    plan = reconcile(wanting(SHARE, TWO), seeing(*there, inventory=box(0, 1, 2, 3)), 100.0)
    (move,) = [action for action in plan.actions if isinstance(action, MoveReplica)]
    assert (move.replica, set(move.devices)) == ("share-a", {"GPU-1", "GPU-2"})


def test_its_successor_goes_to_none_of_these_devices() -> None:
    moving = sharer("a", moving="two-w needs its GPU whole", leave=True, vacates=("GPU-1", "GPU-2"))
    there = [moving, make_replica(SHARE, "b", "pending"), make_replica(TWO, "w", "pending")]
    plan = reconcile(wanting(SHARE, TWO), seeing(*there, inventory=box(0, 1, 2, 3)), 100.0)
    (start,) = [action for action in plan.actions if isinstance(action, StartReplica)]
    assert (start.replica, [given.uuid for given in start.reservations]) == ("share-b", ["GPU-3"])
