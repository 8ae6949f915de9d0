"""`preempt`: replicas of a lower priority give their devices to one that finds none."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.decide.apportion import clash, kinds_of
from stoker.decide.reconcile import reconcile
from stoker.model.action import DrainReplica, StopReplica
from stoker.model.device import Inventory, Reservation
from stoker.model.replica import Replica
from stoker.model.service import Resources, ServiceSpec
from worlds import box, make_device, make_replica, make_spec, seeing, wanting


def spec_of(name: str, gpu: float, priority: int = 0, **more: Any) -> ServiceSpec:
    return make_spec(name, resources=Resources(gpu=gpu), replicas=(1, 4), priority=priority, **more)


LOW, MID = spec_of("low", 1), spec_of("mid", 1, priority=3)
HIGH = spec_of("high", 1, priority=5, preempt=True)


def gone(
    inventory: Inventory, *there: Replica, specs: tuple[ServiceSpec, ...] = (LOW, MID, HIGH)
) -> list[str]:
    """Ids of the replicas that are preempted."""
    plan = reconcile(wanting(*specs), seeing(*there, inventory=inventory), 100.0)
    leaving = [
        action
        for action in plan.actions
        if isinstance(action, DrainReplica | StopReplica) and "preempts it (priority" in action.reason
    ]
    assert not any(action.leave for action in leaving), "they wait, under the same id"
    return sorted(action.replica for action in leaving)


def waiting(spec: ServiceSpec = HIGH) -> Replica:
    return make_replica(spec, "w", "pending")


def on(spec: ServiceSpec, tag: str, *devices: str, **more: Any) -> Replica:
    return make_replica(spec, tag, devices=devices, **more)


def test_the_lowest_priority_gives_way_and_only_as_far_as_it_takes() -> None:
    there = [on(MID, "m", "GPU-0"), on(LOW, "a", "GPU-1"), waiting()]
    assert gone(box(0, 1), *there) == ["low-a"]


def test_only_when_asked_for_and_only_downwards() -> None:
    meek = spec_of("high", 1, priority=5)
    there = [on(MID, "m", "GPU-0"), on(LOW, "a", "GPU-1")]
    assert gone(box(0, 1), *there, waiting(meek), specs=(LOW, MID, meek)) == []
    equal = spec_of("high", 1, priority=0, preempt=True)
    assert gone(box(0), on(LOW, "a", "GPU-0"), waiting(equal), specs=(LOW, equal)) == []


def test_nobody_goes_where_that_would_not_help() -> None:
    many = spec_of("high", 2, priority=5, preempt=True)
    there = [on(LOW, "a", "GPU-0"), waiting(many)]
    assert gone(box(0, make_device(1, health="lost")), *there, specs=(LOW, MID, many)) == []
    assert gone(Inventory(state="unreachable", reason="hangs", devices=box(0).devices), *there) == []


def test_nobody_goes_where_room_is_free_or_on_its_way() -> None:
    assert gone(box(0, 1), on(LOW, "a", "GPU-0"), waiting()) == []
    soon = box(0, make_device(1, withheld="x has just ended"))
    assert gone(soon, on(LOW, "a", "GPU-0"), waiting()) == []
    leaving = on(LOW, "b", "GPU-1", phase="draining")
    assert gone(box(0, 1), on(LOW, "a", "GPU-0"), leaving, waiting()) == []


def test_a_set_takes_the_fewest() -> None:
    half = spec_of("half", 0.5)
    pair = spec_of("high", 2, priority=5, preempt=True)

    def sharer(tag: str, device: str) -> Replica:
        return make_replica(half, tag, reservations=(Reservation(uuid=device, share=0.5, memory=1),))

    there = [sharer("a", "GPU-0"), sharer("b", "GPU-0"), on(LOW, "c", "GPU-1"), waiting(pair)]
    assert gone(box(0, 1, 2), *there, specs=(LOW, half, pair)) == ["low-c"]


@pytest.mark.parametrize("preempt", [True, False])
def test_guarantees_that_do_not_fit_together_are_taken_only_with_preemption(preempt: bool) -> None:
    high = spec_of("high", 1, priority=5, preempt=preempt)
    kinds = kinds_of([LOW, high], box(0), ())
    assert (clash(wanting(LOW, high), kinds) is None) == preempt
