"""The operator's marks over the driver's word, and what follows for placement and for workers that run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.decide.health import overlay
from stoker.decide.reconcile import reconcile
from stoker.model.action import DrainReplica, StartReplica
from stoker.model.state import ObservedState
from worlds import box, make_device, make_replica, make_spec, wanting


def test_without_marks_nothing_changes() -> None:
    there = box(0, 1)
    assert overlay(there, {}) is there
    assert overlay(there, {"GPU-9": "cordoned"}) == there


@pytest.mark.parametrize(
    ("mark", "health", "expected"),
    [
        ("cordoned", "healthy", "cordoned"),
        ("cordoned", "suspect", "cordoned"),
        ("cordoned", "quarantined", "quarantined"),
        ("cordoned", "lost", "lost"),
        ("released", "healthy", "quarantined"),
        ("released", "draining", "quarantined"),
        ("released", "lost", "lost"),
    ],
)
def test_the_stricter_word_stands(mark, health, expected) -> None:
    there = box(make_device(0, health=health), 1)
    over = overlay(there, {"GPU-0": mark})
    assert [device.health for device in over.devices] == [expected, "healthy"]


def test_the_reason_says_who_and_keeps_what_was_known() -> None:
    sick = make_device(0, health="suspect", health_reason="Xid 31 twice")
    (device,) = overlay(box(sick), {"GPU-0": "cordoned"}).devices
    assert device.health_reason == "cordoned by the operator; Xid 31 twice"


def test_a_mark_on_a_gpu_holds_for_its_instances() -> None:
    part = replace(make_device(0), uuid="MIG-0", parent="GPU-0")
    (device,) = overlay(box(part), {"GPU-0": "released"}).devices
    assert device.health == "quarantined"


def running():
    """One whole-GPU replica on GPU-0, two wanted, of a box of two."""
    spec = make_spec("infer", gpu=1, replicas=(2, 2))
    ready = make_replica(spec, "a", devices=("GPU-0",))
    pending = make_replica(spec, "b", "pending")
    return wanting(spec), {replica.id: replica for replica in (ready, pending)}


def test_a_cordoned_device_keeps_its_worker_and_gets_no_other() -> None:
    desired, replicas = running()
    both = overlay(box(0, 1), {"GPU-0": "cordoned", "GPU-1": "cordoned"})
    plan = reconcile(desired, ObservedState(replicas=replicas, inventory=both), 10.0)
    assert not any(isinstance(action, DrainReplica | StartReplica) for action in plan.actions)
    (hold,) = plan.actions
    assert "cordoned (cordoned by the operator)" in hold.reason


def test_a_released_device_loses_its_worker_to_another_device() -> None:
    desired, replicas = running()
    one = overlay(box(0, 1), {"GPU-0": "released"})
    plan = reconcile(desired, ObservedState(replicas=replicas, inventory=one), 10.0)
    drain = next(action for action in plan.actions if isinstance(action, DrainReplica))
    assert (drain.replica, drain.leave) == ("infer-a", False)
    assert "released by the operator" in drain.reason
    start = next(action for action in plan.actions if isinstance(action, StartReplica))
    assert [given.uuid for given in start.reservations] == ["GPU-1"]
