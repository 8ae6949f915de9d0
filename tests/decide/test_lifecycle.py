"""What each event does to a replica, which transitions cannot be, and which races are normal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from stoker.decide import lifecycle
from stoker.decide.lifecycle import RACES, InvalidTransitionError, fold
from stoker.model import event as events
from stoker.model.device import Reservation
from stoker.model.event import (
    ConfigApplied,
    DemandArrived,
    DrainRequested,
    Event,
    InventoryChanged,
    KillSignalled,
    LivenessFailed,
    Notice,
    Recorded,
    ReplicaAdded,
    ReplicaBecameReady,
    ReplicaBecameUnready,
    ReplicaDrained,
    ReplicaEvent,
    ReplicaForgotten,
    ReplicaHeld,
    ReplicaMoving,
    ReplicaResumed,
    SpawnFailed,
    StartRequested,
    StopSignalled,
    TargetChanged,
    WorkerAdopted,
    WorkerCondemned,
    WorkerExited,
    WorkerLost,
    WorkerSpawned,
)
from stoker.model.load import Decision
from stoker.model.replica import ExitStatus, Phase, Replica, WorkerHandle
from stoker.model.service import Drain, Restart
from stoker.model.state import ObservedState
from worlds import box, make_replica, make_spec, seeing, wanting

SPEC = make_spec()
DESIRED = wanting(SPEC)
HANDLE = WorkerHandle(driver="fake", pid=7)
WEB: dict[str, Any] = {"replica": "web-a", "service": SPEC.key, "at": 100.0, "id": "e9"}

REPLICA_EVENTS: list[ReplicaEvent] = [
    ReplicaAdded(**WEB, revision="r"),
    ReplicaHeld(**WEB, reason="no device"),
    StartRequested(**WEB, revision="r"),
    WorkerSpawned(**WEB, handle=HANDLE, endpoint="h:1"),
    SpawnFailed(**WEB, error="no such command"),
    WorkerAdopted(**WEB, handle=HANDLE, endpoint="h:1", revision="r"),
    ReplicaBecameReady(**WEB),
    ReplicaBecameUnready(**WEB, reason="503"),
    LivenessFailed(**WEB, reason="hangs"),
    WorkerCondemned(**WEB, reason="Xid 31", fault="device-fault"),
    DrainRequested(**WEB, reason="scaled down"),
    ReplicaDrained(**WEB),
    ReplicaResumed(**WEB, reason="wanted again"),
    ReplicaMoving(**WEB, reason="big-x needs its GPU whole"),
    StopSignalled(**WEB),
    KillSignalled(**WEB),
    WorkerExited(**WEB, status=ExitStatus(code=1)),
    WorkerLost(**WEB, reason="host is silent"),
    ReplicaForgotten(**WEB),
]


def after(event: Event, *replicas: Replica, **state: Any) -> ObservedState:
    return fold(seeing(*replicas, **state), event, DESIRED)


def one(event: ReplicaEvent, phase: Phase, **changes: Any) -> Replica:
    return after(event, make_replica(SPEC, "a", phase, **changes)).replicas["web-a"]


def test_every_event_class_has_a_rule_and_a_sample_here() -> None:
    unfolded = (Event, ReplicaEvent, Recorded)
    classes = {
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, Event) and value not in unfolded
    }
    assert classes == set(lifecycle._REPLICA_RULES) | set(lifecycle._STATE_RULES)
    assert {type(e) for e in REPLICA_EVENTS} == set(lifecycle._REPLICA_RULES)


@pytest.mark.parametrize("phase", [*get_args(Phase), "gone"])
@pytest.mark.parametrize("event", REPLICA_EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_applies_is_a_known_race_or_raises(event: ReplicaEvent, phase: str) -> None:
    before = seeing() if phase == "gone" else seeing(make_replica(SPEC, "a", phase))  # type: ignore[arg-type]
    allowed = phase in lifecycle._REPLICA_RULES[type(event)].phases
    race = phase in RACES.get(type(event), {})
    assert not (allowed and race), "a line of one table contradicts the other"
    if race:
        assert fold(before, event, DESIRED) is before
    elif allowed:
        assert fold(before, event, DESIRED) != before
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            fold(before, event, DESIRED)
        assert (caught.value.replica, caught.value.phase, caught.value.event) == ("web-a", phase, event)
        assert type(event).__name__ in str(caught.value)


def test_every_race_has_its_reason() -> None:
    assert all(reason for reasons in RACES.values() for reason in reasons.values())


def test_added_is_pending_and_counts_the_serial() -> None:
    state = after(ReplicaAdded(**WEB, revision="r1", reason="1 wanted"))
    replica = state.replicas["web-a"]
    assert (replica.phase, replica.created, replica.cause, replica.revision) == ("pending", 100.0, "e9", "r1")
    assert state.serial == 1


def test_a_start_takes_the_devices_before_there_is_a_process() -> None:
    given = (Reservation(uuid="GPU-1"),)
    event = StartRequested(**WEB, revision="r2", reservations=given, devices_reason="free")
    replica = one(event, "pending", failures=2)
    assert (replica.phase, replica.reservations, replica.revision) == ("starting", given, "r2")
    assert (replica.handle, replica.started, replica.failures) == (None, 100.0, 2)
    assert replica.devices_reason == "free"


def test_a_start_remembers_how_to_drain() -> None:
    desired = wanting(replace(SPEC, drain=Drain(timeout=7, signal=2)))
    state = fold(seeing(make_replica(SPEC, "a", "pending")), StartRequested(**WEB), desired)
    assert state.replicas["web-a"].drain == Drain(timeout=7, signal=2)


@pytest.mark.parametrize("phase", ["starting", "stopping"])
def test_a_spawn_is_noted_whatever_was_decided_meanwhile(phase: Phase) -> None:
    replica = one(WorkerSpawned(**WEB, handle=HANDLE, endpoint="h:1"), phase, handle=None)
    assert (replica.phase, replica.handle, replica.endpoint) == (phase, HANDLE, "h:1")


def test_ready_measures_the_startup_once() -> None:
    first = one(ReplicaBecameReady(**WEB), "starting", started=97.5)
    assert (first.phase, first.startup_seconds, first.ready_at) == ("ready", 2.5, 100.0)
    again = one(ReplicaBecameReady(**WEB), "unready", startup_seconds=2.5, ready_at=60.0)
    assert (again.phase, again.startup_seconds, again.ready_at) == ("ready", 2.5, 60.0)


def test_unready_keeps_the_newest_reason() -> None:
    assert one(ReplicaBecameUnready(**WEB, reason="503"), "ready").phase == "unready"
    assert one(ReplicaBecameUnready(**WEB, reason="timeout"), "unready").reason == "timeout"


def test_a_condemned_worker_is_marked_and_its_end_is_a_failure_by_that_word() -> None:
    marked = one(WorkerCondemned(**WEB, reason="Xid 31", fault="device-fault"), "ready")
    assert (marked.phase, marked.condemned, marked.condemned_for) == ("ready", "Xid 31", "device-fault")
    again = one(
        WorkerExited(**WEB, status=ExitStatus(code=0)), "stopping", condemned="Xid 31", condemned_for="memory"
    )
    assert (again.phase, again.fault, again.failures) == ("pending", "memory", 1)
    assert (again.condemned, again.condemned_for) == ("", "")


def test_a_failed_liveness_probe_only_marks() -> None:
    replica = one(LivenessFailed(**WEB, reason="hangs"), "ready")
    assert (replica.phase, replica.condemned, replica.cause) == ("ready", "hangs", "e9")


def test_draining_then_drained() -> None:
    replica = one(DrainRequested(**WEB, reason="scaled down"), "ready")
    assert (replica.phase, replica.leave, replica.drained, replica.since) == ("draining", True, False, 100.0)
    assert one(ReplicaDrained(**WEB), "draining").drained


def test_who_is_to_leave_stays_so() -> None:
    assert one(StopSignalled(**WEB, leave=False), "draining", leave=True).leave
    assert not one(StopSignalled(**WEB, leave=False), "ready").leave


def test_a_kill_keeps_the_time_of_the_stop() -> None:
    killed = one(KillSignalled(**WEB, reason="still there"), "stopping", since=90.0)
    assert (killed.phase, killed.kill_sent, killed.since) == ("stopping", True, 90.0)
    assert one(KillSignalled(**WEB), "lost").phase == "stopping"


def test_a_lost_replica_that_is_killed_leaves_for_good() -> None:
    assert one(KillSignalled(**WEB), "lost").leave
    assert not one(KillSignalled(**WEB), "stopping").leave


@pytest.mark.parametrize("phase", ["draining", "stopping"])
def test_one_that_is_to_leave_exits_and_frees_its_devices(phase: Phase) -> None:
    replica = one(WorkerExited(**WEB, status=ExitStatus(code=0)), phase, leave=True, devices=("GPU-0",))
    assert (replica.phase, replica.handle, replica.reservations) == ("exited", None, ())
    assert after(ReplicaForgotten(**WEB), replica).replicas == {}


def test_the_first_failure_of_a_stable_worker_is_answered_at_once() -> None:
    killed = WorkerExited(**WEB, status=ExitStatus(signal=9))
    replica = one(killed, "ready", devices=("GPU-0",), ready_at=50.0, failures=3)
    assert (replica.phase, replica.not_before, replica.failures) == ("pending", 100.0, 1)
    assert replica.reason == "killed by SIGKILL; restarting now"
    assert (replica.reservations, replica.handle, replica.endpoint, replica.restarts) == ((), None, "", 1)
    assert replica.ready_at is None


def test_failures_in_a_row_wait_longer_and_say_so() -> None:
    exited = WorkerExited(**WEB, status=ExitStatus(code=1, detail="out of cheese"))
    replica = one(exited, "ready", ready_at=99.0, failures=2, restarts=2)
    assert replica.failures == 3
    assert replica.not_before == pytest.approx(102, abs=0.2)
    assert replica.reason.startswith("exit code 1: out of cheese; restart 3 in ")


def test_a_crash_loop_is_called_by_its_name() -> None:
    exited = WorkerExited(**WEB, status=ExitStatus(code=1, detail="boom"))
    replica = one(exited, "starting", failures=4)
    assert replica.reason.startswith("crash loop: 5 failures in a row; next try in ")
    assert replica.reason.endswith("last: exit code 1: boom")


def test_an_end_that_was_asked_for_is_no_failure() -> None:
    replica = one(
        WorkerExited(**WEB, status=ExitStatus(code=1)),
        "stopping",
        reason="device GPU-0 is lost",
        ready_at=99.0,
        failures=1,
    )
    assert (replica.phase, replica.failures, replica.not_before) == ("pending", 1, 100.0)
    assert replica.reason == "device GPU-0 is lost; starting again"


def test_a_start_that_was_given_up_is_a_failure() -> None:
    exited = WorkerExited(**WEB, status=ExitStatus(signal=15))
    asked: dict[str, Any] = {"reason": "not ready within 2m", "fault": "hung-start"}
    replica = one(exited, "stopping", **asked, ready_at=None, failures=1)
    assert (replica.failures, replica.fault) == (2, "hung-start")
    assert replica.reason.startswith("not ready within 2m (killed by SIGTERM); restart 1 in ")


def test_a_worker_condemned_by_its_liveness_probe_is_a_failure_even_after_a_long_life() -> None:
    exited = WorkerExited(**WEB, status=ExitStatus(signal=15))
    replica = one(exited, "stopping", condemned="hangs", reason="hangs", ready_at=98.0, failures=1)
    assert (replica.failures, replica.fault) == (2, "liveness")
    assert replica.condemned == ""


def test_a_start_that_is_called_off_for_its_device_is_no_failure() -> None:
    exited = WorkerExited(**WEB, status=ExitStatus(signal=15))
    replica = one(exited, "stopping", reason="device GPU-0 is lost", ready_at=None, failures=1)
    assert (replica.failures, replica.not_before) == (1, replica.since)
    assert replica.reason == "device GPU-0 is lost; starting again"


@pytest.mark.parametrize(
    ("status", "fault"), [(ExitStatus(code=3), "exit"), (ExitStatus(signal=11), "signal")]
)
def test_each_failure_has_its_word(status: ExitStatus, fault: str) -> None:
    replica = one(WorkerExited(**WEB, status=status), "ready", ready_at=98.0)
    assert (replica.fault, replica.failure) == (fault, str(status))


def test_a_command_that_does_not_exist_is_tried_slowly() -> None:
    desired = wanting(replace(SPEC, restart=Restart(max_backoff=30)))
    event = SpawnFailed(**WEB, error="command not found: srve", permanent=True)
    replica = fold(seeing(make_replica(SPEC, "a", "starting")), event, desired).replicas["web-a"]
    assert (replica.phase, replica.not_before, replica.failures) == ("pending", 130.0, 1)
    assert replica.reason == "cannot start: command not found: srve; next try in 30s"


def test_a_failed_spawn_of_one_that_is_to_leave_is_its_end() -> None:
    assert one(SpawnFailed(**WEB, error="x"), "stopping", leave=True).phase == "exited"


def test_an_adopted_worker_is_ready_or_gets_its_whole_startup_time() -> None:
    given = (Reservation(uuid="GPU-0"),)
    adopted = WorkerAdopted(
        **WEB,
        handle=HANDLE,
        endpoint="h:1",
        revision="r",
        reservations=given,
        restarts=2,
        ready=True,
        created=4.0,
    )
    ready = after(adopted).replicas["web-a"]
    assert (ready.phase, ready.ready_at, ready.created, ready.restarts) == ("ready", 4.0, 4.0, 2)
    assert ready.reservations == given
    starting = after(replace(adopted, ready=False)).replicas["web-a"]
    assert (starting.phase, starting.started, starting.ready_at) == ("starting", 100.0, None)


def test_a_target_is_kept_with_its_cause() -> None:
    event = TargetChanged(
        service=SPEC.key, before=1, target=3, decision=Decision(target=3, reason="load"), id="e3"
    )
    state = after(event)
    assert state.targets == {SPEC.key: 3}
    assert state.causes[SPEC.key] == "e3"


def test_demand_is_kept_until_a_replica_serves() -> None:
    waiting = after(DemandArrived(service=SPEC.key), make_replica(SPEC, "a", "starting"))
    assert waiting.demand == {SPEC.key}
    assert fold(waiting, DemandArrived(service=SPEC.key), DESIRED) is waiting
    assert fold(waiting, ReplicaBecameReady(**WEB), DESIRED).demand == frozenset()


def test_demand_of_a_service_that_serves_or_is_unknown_is_old_news() -> None:
    assert after(DemandArrived(service=SPEC.key), make_replica(SPEC)).demand == frozenset()
    assert after(DemandArrived(service="app/gone")).demand == frozenset()


def test_a_target_that_was_decided_before_the_demand_was_known_does_not_end_it() -> None:
    event = TargetChanged(service=SPEC.key, before=1, target=0, decision=Decision(target=0, reason="idle"))
    assert after(event, demand=frozenset({SPEC.key})).demand == {SPEC.key}


def test_an_inventory_replaces_the_one_before() -> None:
    state = after(InventoryChanged(inventory=box(0, 1), id="e4"))
    assert len(state.inventory.devices) == 2
    assert state.causes["inventory"] == "e4"


def test_a_configuration_forgets_targets_of_services_that_are_gone() -> None:
    before = {"targets": {SPEC.key: 2, "app/gone": 5}, "demand": frozenset({"app/gone"})}
    state = after(
        ConfigApplied(generation=2, id="e5"), causes={"app/gone": "e1", "inventory": "e2"}, **before
    )
    assert (state.targets, state.demand) == ({SPEC.key: 2}, frozenset())
    assert state.causes == {"inventory": "e2", "config": "e5"}


def test_a_notice_changes_nothing() -> None:
    state = seeing(make_replica(SPEC))
    assert fold(state, Notice(message="disk is full"), DESIRED) is state


def test_fold_never_changes_its_input() -> None:
    before = seeing(make_replica(SPEC, "a", "ready"))
    kept = dict(before.replicas)
    fold(before, WorkerExited(**WEB, status=ExitStatus(code=1)), DESIRED)
    assert before.replicas == kept
