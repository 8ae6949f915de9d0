"""Rules of the plan, one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from stoker.decide.reconcile import reconcile, replica_id
from stoker.model.action import (
    AddReplica,
    DrainReplica,
    ForgetReplica,
    HoldReplica,
    KillReplica,
    Plan,
    StartReplica,
    StopReplica,
)
from stoker.model.device import Inventory, Placement, Reservation
from stoker.model.replica import ExitStatus, Replica
from stoker.model.service import Drain, Probe, Probes, ServiceSpec, Update
from stoker.model.state import DesiredState, ObservedState
from worlds import OLD, box, make_device, make_replica, make_spec, seeing, wanting

NOW = 500.0


def plan(desired: DesiredState, observed: ObservedState, now: float = NOW) -> Plan:
    return reconcile(desired, observed, now)


def only(given: Plan) -> Any:
    assert len(given.actions) == 1, given.actions
    return given.actions[0]


# --- numbers ----------------------------------------------------------------------------------------------


def test_a_quiet_world_gives_an_empty_plan_and_no_wake_up() -> None:
    spec = make_spec(replicas=(1, 3))
    assert plan(wanting(spec), seeing(make_replica(spec))) == Plan()


def test_missing_replicas_are_added_with_readable_ids() -> None:
    spec = make_spec(replicas=(2, 3))
    actions = plan(wanting(spec), seeing(causes={"config": "e1"})).actions
    assert all(isinstance(action, AddReplica) for action in actions)
    assert len({action.replica for action in actions}) == 2
    for action in actions:
        name, _, tail = action.replica.rpartition("-")
        assert (name, len(tail), action.cause) == ("web", 4, "e1")
        assert tail == tail.lower()


def test_an_id_is_never_given_twice() -> None:
    first = replica_id("app/web", 0, ())
    assert replica_id("app/web", 0, {first}) not in ("", first)
    assert replica_id("app/web", 1, ()) != first
    taken: set[str] = set()
    for _ in range(50):
        taken.add(replica_id("app/web", 3, taken))
    assert len(taken) == 50


@pytest.mark.parametrize(
    ("target", "expected"), [(None, 1), (0, 1), (2, 2), (9, 3)], ids=["none: min", "below", "inside", "above"]
)
def test_the_target_moves_within_its_bounds(target: int | None, expected: int) -> None:
    spec = make_spec(replicas=(1, 3))
    targets = {} if target is None else {spec.key: target}
    assert len(plan(wanting(spec), seeing(targets=targets)).actions) == expected


def test_a_waiting_request_wakes_a_service_at_zero() -> None:
    spec = make_spec(replicas=(0, 2))
    state = seeing(targets={spec.key: 0}, demand=frozenset({spec.key}))
    assert isinstance(only(plan(wanting(spec), state)), AddReplica)
    assert plan(wanting(replace(spec, held=True)), state).empty
    assert plan(wanting(make_spec(replicas=(0, 0))), state).empty


def test_the_cause_of_a_change_of_number_is_the_event_behind_it() -> None:
    spec = make_spec(replicas=(0, 3))
    observed = seeing(make_replica(spec), targets={spec.key: 0}, causes={spec.key: "e7", "config": "e1"})
    action = only(plan(wanting(spec), observed))
    assert action.match(replica="web-a", cause="e7", reason="scaled to zero")
    assert isinstance(action, DrainReplica)


def test_one_that_is_being_replaced_under_its_id_still_counts() -> None:
    spec = make_spec()
    returning = make_replica(spec, "a", "stopping", leave=False, since=NOW)
    assert plan(wanting(spec), seeing(returning)).actions == ()
    leaving = replace(returning, leave=True)
    assert isinstance(only(plan(wanting(spec), seeing(leaving))), AddReplica)


def test_a_crash_looping_replica_counts() -> None:
    spec = make_spec()
    looping = make_replica(
        spec, "a", "pending", failures=7, restarts=7, not_before=NOW + 30, reason="crash loop"
    )
    assert plan(wanting(spec), seeing(looping)) == Plan(wake_at=NOW + 30)


@pytest.mark.parametrize(
    ("desired", "stopping", "reason"),
    [
        (wanting(make_spec(held=True)), False, "stopped by the operator"),
        (wanting(), False, "its service is no longer configured"),
        (wanting(make_spec()), True, "everything is being stopped"),
    ],
)
def test_what_is_not_wanted_at_all_drains_and_says_why(
    desired: DesiredState, stopping: bool, reason: str
) -> None:
    state = seeing(make_replica(make_spec()), stopping=stopping)
    action = only(plan(desired, state))
    assert isinstance(action, DrainReplica)
    assert action.match(leave=True, reason=reason)


def test_the_way_out_depends_on_the_phase() -> None:
    spec = make_spec(held=True)
    observed = seeing(
        make_replica(spec, "pending", "pending"),
        make_replica(spec, "starting", "starting"),
        make_replica(spec, "ready", "ready"),
        make_replica(spec, "unready", "unready"),
        make_replica(spec, "hung", "unready", condemned="liveness failed"),
        make_replica(spec, "exited", "exited"),
    )
    chosen = {action.replica: type(action) for action in plan(wanting(spec), observed).actions}
    assert chosen == {
        "web-pending": ForgetReplica,
        "web-starting": StopReplica,
        "web-ready": DrainReplica,
        "web-unready": DrainReplica,
        "web-hung": StopReplica,
        "web-exited": ForgetReplica,
    }


# --- starts -----------------------------------------------------------------------------------------------


def test_a_pending_replica_starts_with_its_devices_and_the_reason() -> None:
    spec = make_spec(gpu=1)
    action = only(plan(wanting(spec), seeing(make_replica(spec, "a", "pending"), inventory=box(0))))
    assert isinstance(action, StartReplica)
    assert action.reservations == (Reservation(uuid="GPU-0"),)
    assert action.devices_reason


def test_it_waits_for_its_backoff() -> None:
    spec = make_spec()
    waiting = make_replica(spec, "a", "pending", not_before=NOW + 4, restarts=2)
    assert plan(wanting(spec), seeing(waiting)) == Plan(wake_at=NOW + 4)
    assert isinstance(only(plan(wanting(spec), seeing(waiting), NOW + 4)), StartReplica)


def test_two_starts_of_one_plan_never_share_a_device() -> None:
    spec = make_spec(gpu=1, replicas=(3, 3))
    observed = seeing(*(make_replica(spec, tag, "pending") for tag in "abc"), inventory=box(0, 1))
    actions = plan(wanting(spec), observed).actions
    starts = [action for action in actions if isinstance(action, StartReplica)]
    assert len({start.reservations[0].uuid for start in starts}) == len(starts) == 2
    (hold,) = (action for action in actions if isinstance(action, HoldReplica))
    assert "GPU" in hold.reason


def test_a_hold_is_said_once() -> None:
    spec = make_spec(gpu=1)
    waiting = make_replica(spec, "a", "pending")
    reason = only(plan(wanting(spec), seeing(waiting))).reason
    assert plan(wanting(spec), seeing(replace(waiting, reason=reason))) == Plan()


def test_priority_then_age_decides_who_gets_the_device() -> None:
    low, high = make_spec("low", gpu=1), make_spec("high", gpu=1, priority=5)
    young = make_replica(high, "young", "pending", created=9)
    old = make_replica(high, "old", "pending", created=8)
    observed = seeing(make_replica(low, "a", "pending", created=1), young, old, inventory=box(0))
    desired = wanting(low, replace(high, scaling=make_spec(replicas=(2, 2)).scaling))
    starts = [a.replica for a in plan(desired, observed).actions if isinstance(a, StartReplica)]
    assert starts == ["high-old"]


def test_a_failed_worker_keeps_its_turn_for_the_device_while_it_waits() -> None:
    mine, other = make_spec("mine", gpu=1), make_spec("other", gpu=1)
    failed = make_replica(mine, "a", "pending", restarts=2, failures=2, not_before=NOW + 2, created=1)
    observed = seeing(failed, make_replica(other, "b", "pending", created=2), inventory=box(0))
    assert isinstance(only(plan(wanting(mine, other), observed)), HoldReplica)


def test_a_crash_loop_keeps_no_device_from_others() -> None:
    mine, other = make_spec("mine", gpu=1), make_spec("other", gpu=1)
    looping = make_replica(mine, "a", "pending", restarts=9, failures=9, not_before=NOW + 60, created=1)
    observed = seeing(looping, make_replica(other, "b", "pending", created=2), inventory=box(0))
    assert only(plan(wanting(mine, other), observed)).match(replica="other-b")


def test_an_update_gets_its_own_device_back_before_others_of_equal_rank() -> None:
    mine, other = make_spec("mine", gpu=1), make_spec("other", gpu=1)
    observed = seeing(
        make_replica(mine, "old", "exited", revision=OLD),
        make_replica(mine, "new", "pending", created=50),
        make_replica(other, "b", "pending", created=2),
        inventory=box(0),
    )
    starts = [a for a in plan(wanting(mine, other), observed).actions if isinstance(a, StartReplica)]
    assert [start.replica for start in starts] == ["mine-new"]


def test_workers_that_still_stop_count_against_the_bound() -> None:
    spec = make_spec(replicas=(0, 1))
    leaving = make_replica(spec, "a", "draining", leave=True, since=NOW)
    observed = seeing(leaving, make_replica(spec, "b", "pending"), targets={spec.key: 1})
    action = only(plan(wanting(spec), observed))
    assert isinstance(action, HoldReplica)
    assert action.reason == "waits for a worker to end: 1 live, max_replicas is 1"


def test_recreate_waits_until_the_old_revision_is_gone() -> None:
    spec = make_spec(replicas=(1, 3), update=Update(strategy="Recreate"))
    old = make_replica(spec, "a", "draining", revision=OLD, leave=True, since=NOW)
    action = only(plan(wanting(spec), seeing(old, make_replica(spec, "b", "pending"))))
    assert isinstance(action, HoldReplica)
    assert "Recreate" in action.reason


def faulty(*uuids: str) -> Any:
    def place(spec: ServiceSpec, inventory: Inventory, replicas: Iterable[Replica]) -> Placement:
        return Placement(reservations=tuple(Reservation(uuid=uuid) for uuid in uuids), reason="because")

    return place


@pytest.mark.parametrize("uuids", [("GPU-7",), ("GPU-1",), ("GPU-2",), ("GPU-0", "GPU-0")])
def test_no_fault_of_placement_breaks_the_law(uuids: tuple[str, ...]) -> None:
    """Not there; owned by another; sick; twice the same."""
    spec, other = make_spec(gpu=1), make_spec("other", gpu=1)
    observed = seeing(
        make_replica(spec, "a", "pending"),
        make_replica(other, "b", "draining", devices=("GPU-1",), since=NOW, leave=True),
        inventory=box(0, 1, make_device(2, health="suspect")),
    )
    actions = reconcile(wanting(spec), observed, NOW, place=faulty(*uuids)).actions
    assert not any(isinstance(action, StartReplica) for action in actions)
    assert any("a fault of Stoker" in action.reason for action in actions)


# --- dependencies -----------------------------------------------------------------------------------------

FRONT = make_spec("front", depends=("back",))
BACK = make_spec("back")


def held_reason(desired: DesiredState, *others: Replica, **changes: Any) -> str:
    waiting = make_replica(FRONT, "a", "pending", **changes)
    actions = [a for a in plan(desired, seeing(waiting, *others)).actions if a.replica == waiting.id]
    return "" if isinstance(actions[0], StartReplica) else actions[0].reason


def test_a_first_start_waits_for_its_dependencies() -> None:
    desired = wanting(FRONT, BACK)
    assert held_reason(desired) == "waits for back to be ready"
    assert held_reason(desired, make_replica(BACK, "b", "starting")) == "waits for back to be ready"
    assert held_reason(desired, make_replica(BACK, "b", "ready")) == ""


def test_a_dependency_at_zero_by_choice_is_no_reason_to_wait() -> None:
    assert held_reason(wanting(FRONT, replace(BACK, scaling=make_spec(replicas=(0, 1)).scaling))) == ""


def test_a_dependency_that_an_operator_stopped_is() -> None:
    reason = held_reason(wanting(FRONT, replace(BACK, held=True)))
    assert reason == "waits for back, which is stopped by the operator (stoker start back)"


def test_a_service_that_has_run_starts_again_without_waiting() -> None:
    assert held_reason(wanting(FRONT, BACK), restarts=1) == ""
    two = replace(FRONT, scaling=make_spec(replicas=(2, 2)).scaling)
    assert held_reason(wanting(two, BACK), make_replica(FRONT, "other", "ready")) == ""


def test_at_the_end_dependencies_stop_last() -> None:
    desired = wanting(FRONT, BACK)
    front, back = make_replica(FRONT, "a", "ready"), make_replica(BACK, "b", "ready")
    assert only(plan(desired, seeing(front, back, stopping=True))).replica == "front-a"
    draining = replace(front, phase="draining", leave=True, since=NOW)
    assert plan(desired, seeing(draining, back, stopping=True)).actions == ()
    gone = replace(front, phase="exited")
    acted = {a.replica for a in plan(desired, seeing(gone, back, stopping=True)).actions}
    assert "back-b" in acted


# --- timers -----------------------------------------------------------------------------------------------


def test_a_start_that_takes_too_long_is_ended_and_tried_again() -> None:
    spec = make_spec(probes=Probes(startup_timeout=120), drain=Drain(signal=2))
    starting = make_replica(spec, "a", "starting", started=NOW - 100)
    assert plan(wanting(spec), seeing(starting)) == Plan(wake_at=NOW + 20)
    action = only(plan(wanting(spec), seeing(starting), NOW + 20))
    assert isinstance(action, StopReplica)
    assert action.match(
        leave=False, signal=2, reason="not ready within 2m: nothing listens at 127.0.0.1:web-a"
    )


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (Probe(http="/readyz"), "no good answer to GET /readyz at 127.0.0.1:40001"),
        (Probe(tcp=True), "nothing listens at 127.0.0.1:40001"),
        (Probe(exec=("grep", "ready", "log")), "`grep ready log` did not end well"),
        (Probe(notify=True), "it did not say READY=1 (sd_notify)"),
    ],
)
def test_a_start_that_takes_too_long_is_told_by_what_did_not_answer(probe: Probe, words: str) -> None:
    spec = make_spec(probes=Probes(startup=probe, startup_timeout=4))
    starting = make_replica(spec, "a", "starting", started=NOW - 4, endpoint="127.0.0.1:40001")
    assert only(plan(wanting(spec), seeing(starting))).match(reason=f"not ready within 4s: {words}")


def test_a_restart_is_told_by_what_went_wrong_not_by_the_signal_that_ended_it() -> None:
    ended = {"failure": "not ready within 4s (killed by SIGTERM)", "last_exit": ExitStatus(signal=15)}
    waiting = make_replica(make_spec(), "a", "pending", restarts=1, failures=1, **ended)
    assert only(plan(wanting(make_spec()), seeing(waiting))).reason == f"restart 1: {ended['failure']}"


def test_a_failed_liveness_probe_replaces_the_worker() -> None:
    spec = make_spec()
    action = only(plan(wanting(spec), seeing(make_replica(spec, condemned="liveness failed: hangs"))))
    assert isinstance(action, StopReplica)
    assert action.match(leave=False, reason="liveness failed: hangs")


def test_draining_ends_when_drained_or_when_its_time_is_up() -> None:
    spec = make_spec(drain=Drain(timeout=30, signal=10))
    going = make_replica(spec, "a", "draining", since=NOW, leave=True, reason="scaled to zero")
    desired = wanting(replace(spec, held=True))
    assert plan(desired, seeing(going)) == Plan(wake_at=NOW + 30)
    drained = only(plan(desired, seeing(replace(going, drained=True))))
    assert drained.match(signal=10, leave=True, reason="scaled to zero; nothing is in flight")
    late = only(plan(desired, seeing(going), NOW + 30))
    assert late.match(reason="scaled to zero; requests still in flight after 30s")


def test_one_that_never_served_has_nothing_to_drain() -> None:
    spec = make_spec()
    going = make_replica(spec, "a", "draining", since=NOW, leave=False, ready_at=None)
    assert isinstance(only(plan(wanting(spec), seeing(going))), StopReplica)


def test_a_drain_of_a_service_that_is_gone_goes_by_what_was_remembered() -> None:
    spec = make_spec()
    going = make_replica(spec, "a", "draining", since=NOW, leave=True, drain=Drain(timeout=5))
    assert plan(wanting(), seeing(going)).wake_at == NOW + 5


def test_a_worker_that_ignores_the_signal_is_killed_once() -> None:
    spec = make_spec(drain=Drain(grace=10))
    stopping = make_replica(spec, "a", "stopping", since=NOW)
    assert plan(wanting(spec), seeing(stopping)) == Plan(wake_at=NOW + 10)
    action = only(plan(wanting(spec), seeing(stopping), NOW + 10))
    assert isinstance(action, KillReplica)
    assert "10s after the stop signal" in action.reason
    assert plan(wanting(spec), seeing(replace(stopping, kill_sent=True)), NOW + 99) == Plan()


def test_the_earliest_deadline_wakes() -> None:
    spec = make_spec(replicas=(2, 2), probes=Probes(startup_timeout=120))
    observed = seeing(
        make_replica(spec, "a", "starting", started=NOW - 20),
        make_replica(spec, "b", "pending", not_before=NOW + 7, restarts=1),
    )
    assert plan(wanting(spec), observed) == Plan(wake_at=NOW + 7)


# --- devices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inventory", "reason"),
    [
        (box(make_device(0, health="lost", health_reason="Xid 79")), "device GPU-0 is lost (Xid 79)"),
        (box(make_device(0, health="quarantined")), "device GPU-0 is quarantined"),
        (box(1), "device GPU-0 is no longer there"),
    ],
)
def test_a_worker_on_a_dead_device_is_moved(inventory: Inventory, reason: str) -> None:
    spec = make_spec(gpu=1)
    action = only(plan(wanting(spec), seeing(make_replica(spec, devices=("GPU-0",)), inventory=inventory)))
    assert isinstance(action, DrainReplica)
    assert action.match(leave=False, reason=reason)
    starting = make_replica(spec, "a", "starting", devices=("GPU-0",), started=NOW)
    assert isinstance(only(plan(wanting(spec), seeing(starting, inventory=inventory))), StopReplica)


def test_an_update_waits_for_a_device_that_is_on_its_way_to_be_free() -> None:
    """Else each worker that leaves would have another make room for the next, though there is room."""
    spec = make_spec(gpu=1, replicas=(1, 1), update=Update(max_surge=1, max_unavailable=0))
    old = make_replica(spec, "a", revision=OLD, devices=("GPU-0",))
    new = make_replica(spec, "b", "pending")
    free_soon = box(0, make_device(1, withheld="c has just ended"))
    waits = plan(wanting(spec), seeing(old, new, inventory=free_soon))
    assert not [action for action in waits.actions if isinstance(action, DrainReplica)]
    taken = plan(wanting(spec), seeing(old, new, inventory=box(0)))
    assert [type(action) for action in taken.actions if action.replica == old.id] == [DrainReplica]


@pytest.mark.parametrize(
    "inventory",
    [box(make_device(0, health="unreachable")), replace(box(1), nameless=1), replace(box(), nameless=1)],
)
def test_a_worker_on_a_device_of_which_nothing_is_known_stays(inventory: Inventory) -> None:
    spec = make_spec(gpu=1)
    worker = make_replica(spec, devices=("GPU-0",))
    assert plan(wanting(spec), seeing(worker, inventory=inventory)).actions == ()


@pytest.mark.parametrize("state", ["unreachable", "none"])
def test_while_the_driver_does_not_answer_nobody_is_touched_and_none_is_placed(state: Any) -> None:
    spec, plain = make_spec(gpu=1, replicas=(2, 2)), make_spec("plain")
    observed = seeing(
        make_replica(spec, "a", devices=("GPU-0",)),
        make_replica(spec, "b", "pending"),
        make_replica(plain, "c", "pending"),
        inventory=Inventory(state=state, reason="driver hangs"),
    )
    actions = {a.replica: type(a) for a in plan(wanting(spec, plain), observed).actions}
    assert actions == {"web-b": HoldReplica, "plain-c": StartReplica}


def test_a_cordoned_device_keeps_its_worker() -> None:
    spec = make_spec(gpu=1)
    inventory = box(make_device(0, health="cordoned"))
    assert plan(wanting(spec), seeing(make_replica(spec, devices=("GPU-0",)), inventory=inventory)) == Plan()


def test_an_update_on_a_full_box_makes_room_one_by_one() -> None:
    spec = make_spec(gpu=1, replicas=(2, 2))
    old = [make_replica(spec, f"o{n}", revision=OLD, devices=(f"GPU-{n}",), created=n) for n in range(2)]
    full = {"inventory": box(0, 1)}
    added = only(plan(wanting(spec), seeing(*old, **full)))
    assert isinstance(added, AddReplica)
    new = make_replica(spec, "new", "pending", created=9)
    actions = plan(wanting(spec), seeing(*old, new, **full)).actions
    (drain,) = (action for action in actions if isinstance(action, DrainReplica))
    assert drain.match(replica="web-o1", leave=True)
    assert "makes room" in drain.reason


# --- lost -------------------------------------------------------------------------------------------------


def test_a_lost_worker_is_replaced_within_the_bound_and_killed_when_patience_ends() -> None:
    spec = make_spec(replicas=(1, 2), drain=Drain(timeout=30))
    lost = make_replica(spec, "a", "lost", since=NOW, reason="host is silent")
    added = plan(wanting(spec), seeing(lost))
    assert isinstance(only(added), AddReplica)
    assert added.wake_at == NOW + 30
    late = plan(wanting(spec), seeing(lost, make_replica(spec, "b")), NOW + 30)
    assert isinstance(only(late), KillReplica)


def test_the_reason_of_a_restart_names_the_end_before() -> None:
    spec = make_spec()
    failed = make_replica(spec, "a", "pending", restarts=1, last_exit=ExitStatus(signal=9))
    assert only(plan(wanting(spec), seeing(failed))).reason == "restart 1: killed by SIGKILL"


# --- the order of the end ---------------------------------------------------------------------------------


def ended(desired: DesiredState, *replicas: Replica) -> set[str]:
    """The replicas that are let go now."""
    actions = plan(desired, seeing(*replicas)).actions
    return {a.replica for a in actions if isinstance(a, DrainReplica | StopReplica)}


def test_removed_services_end_after_those_that_depend_on_them() -> None:
    back, front, other = make_spec("back"), make_spec("front", depends=("back",)), make_spec("other")
    below, beside = make_replica(back), make_replica(other)
    above = make_replica(front, depends=(back.key,))
    assert ended(wanting(other), below, above, beside) == {above.id}
    leaving = replace(above, phase="stopping", leave=True)
    assert ended(wanting(other), below, leaving, beside) == set()
    assert ended(wanting(other), below, beside) == {below.id}


def test_a_removed_service_waits_for_the_last_worker_that_was_started_with_it() -> None:
    back, front = make_spec("back"), make_spec("front")
    below = make_replica(back)
    old = make_replica(front, "old", revision=OLD, depends=(back.key,))
    assert below.id not in ended(wanting(front), below, old)
    assert ended(wanting(front), below, make_replica(front)) == {below.id}


def test_what_waits_for_each_other_ends_all_the_same() -> None:
    one, two = make_spec("one"), make_spec("two")
    replicas = [make_replica(one, depends=(two.key,)), make_replica(two, depends=(one.key,))]
    steady = make_spec("steady")
    assert ended(wanting(steady), *replicas, make_replica(steady)) == {r.id for r in replicas}


def test_a_worker_condemned_gently_drains_and_one_condemned_for_its_device_stops_under_that_word() -> None:
    spec = make_spec()
    gentle = make_replica(spec, condemned="took too much", condemned_for="memory", gently=True)
    drain = only(plan(wanting(spec), seeing(gentle)))
    assert isinstance(drain, DrainReplica)
    assert (drain.leave, drain.reason) == (False, "took too much")
    faulty = make_replica(spec, condemned="Xid 31", condemned_for="device-fault")
    stop = only(plan(wanting(spec), seeing(faulty)))
    assert isinstance(stop, StopReplica)
    assert (stop.fault, stop.leave) == ("device-fault", False)
