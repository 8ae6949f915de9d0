"""Workers that share a device begin one after the other."""

from __future__ import annotations

from dataclasses import replace

from stoker.decide.reconcile import reconcile
from stoker.model.action import HoldReplica, StartReplica
from stoker.model.device import Reservation
from stoker.model.state import ObservedState
from worlds import GIB, box, make_replica, make_spec, wanting


def test_on_a_shared_device_one_worker_loads_at_a_time() -> None:
    spec = make_spec("share", gpu=0.25, replicas=(3, 3))
    starting = make_replica(spec, "a", "starting", devices=())
    starting = replace(starting, reservations=(Reservation(uuid="GPU-0", share=0.25, memory=20 * GIB),))
    waiting = [make_replica(spec, tag, "pending") for tag in "bc"]
    desired, there = wanting(spec), box(0)

    def plan(first):
        replicas = {replica.id: replica for replica in (first, *waiting)}
        return reconcile(desired, ObservedState(replicas=replicas, inventory=there), 10.0)

    held = [action for action in plan(starting).actions if isinstance(action, HoldReplica)]
    assert [hold.reason for hold in held] == [
        "waits until share-a has started: on a shared GPU one loads at a time"
    ] * 2
    then = plan(replace(starting, phase="ready", ready_at=5.0)).actions
    assert [type(action) for action in then] == [StartReplica, HoldReplica]
    assert "waits until share-b has started" in then[1].reason


def test_workers_on_devices_of_their_own_load_together() -> None:
    spec = make_spec("share", gpu=0.75, replicas=(2, 2))
    waiting = {replica.id: replica for replica in (make_replica(spec, tag, "pending") for tag in "ab")}
    plan = reconcile(wanting(spec), ObservedState(replicas=waiting, inventory=box(0, 1)), 10.0)
    assert [type(action) for action in plan.actions] == [StartReplica, StartReplica]
