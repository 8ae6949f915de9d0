"""The operator's marks over the driver's word, and what follows for placement and for workers that run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.health import (
    FORGET,
    PROBATION,
    WINDOW,
    Case,
    Verdict,
    charted,
    kept,
    objection,
    overlay,
    pardon,
    revived,
    step,
)
from stoker.decide.reconcile import reconcile
from stoker.model.action import DrainReplica, StartReplica
from stoker.model.device import DeviceFault, Inventory
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
        ("cordoned", "unreachable", "cordoned"),
        ("released", "unreachable", "quarantined"),
        ("released", "healthy", "quarantined"),
        ("released", "draining", "quarantined"),
        ("released", "lost", "lost"),
    ],
)
def test_the_stricter_word_stands(mark, health, expected) -> None:
    there = box(make_device(0, health=health), 1)
    over = overlay(there, {"GPU-0": mark})
    assert [device.health for device in over.devices] == [expected, "healthy"]


@pytest.mark.parametrize(
    "case",
    [Case(state="probation", illnesses=1), Case(state="suspect", strikes=((0.0, "app/a"), (0.0, "app/b")))],
)
def test_a_device_that_is_away_wakes_nobody_and_is_judged_when_it_is_back(case) -> None:
    now = 2 * max(WINDOW, PROBATION)
    away = step({"GPU-0": case}, box(1), {}, now, users={})
    assert away.wake_at is None, "nothing of it can change: to be woken for it again and again is a loop"
    back = step(away.cases, box(0, 1), {}, now + 1, users={})
    assert all(case.state == "healthy" for case in back.cases.values())


def test_a_device_that_does_not_answer_keeps_its_case_until_it_does() -> None:
    silent = make_device(0, health="unreachable", health_reason="it does not answer")

    def at(now, device, cases, *faults, users=frozenset()):
        news = {"GPU-0": faults} if faults else {}
        return step(cases, box(device), news, now, users={"GPU-0": users}).cases

    def seen(device, cases):
        (found,) = charted(box(device), cases).devices
        return found.health, found.health_reason

    cases = at(0.0, silent, {})
    assert seen(silent, cases) == ("unreachable", "it does not answer")
    ill = {"GPU-0": Case(state="quarantined", reason="Xid 95", away=True, illnesses=1)}
    assert at(1.0, silent, ill)["GPU-0"].state == "quarantined", "not cured before it speaks"
    assert seen(silent, ill)[0] == "quarantined"
    assert at(2.0, make_device(0), ill)["GPU-0"].state == "probation"
    hung = DeviceFault(serial=1, kind="device", what="Xid 119")
    cases = at(3.0, silent, {}, hung, users=frozenset({"app/a"}))
    assert seen(silent, cases)[0] == "draining", "its faults are heard all the same"
    assert at(4.0, silent, cases)["GPU-0"].state == "quarantined"
    watched = {"GPU-0": Case(state="suspect", reason="x", since=0.0, strikes=((1.0, "memory 1"),))}
    assert seen(silent, watched) == ("unreachable", "it does not answer")
    assert "does not answer" in objection(silent)


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


# --- what has happened to a device ------------------------------------------------------------------------


def fault(kind: str, serial: int = 1, what: str = "Xid 95") -> DeviceFault:
    return DeviceFault(serial=serial, kind=kind, what=what)  # type: ignore[arg-type]


class Patient:
    """One device through time: `at` steps the cases and gives the state."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.wake_at: float | None = None

    def at(self, now: float, *news: DeviceFault, users: str = "", **device) -> str:
        working = frozenset(users.split())
        verdict = step(
            self.cases,
            box(make_device(0, **device)),
            {"GPU-0": news},
            now,
            users={"GPU-0": working} if working else {},
        )
        self.cases, self.wake_at = dict(verdict.cases), verdict.wake_at
        return self.shown(**device)

    def shown(self, **device) -> str:
        return charted(box(make_device(0, **device)), self.cases).devices[0].health

    @property
    def case(self) -> Case:
        return self.cases["GPU-0"]


def test_a_healthy_device_has_no_case_and_no_wake_up() -> None:
    patient = Patient()
    assert patient.at(0.0, fault("note")) == "healthy"
    assert (patient.cases, patient.wake_at) == ({}, None)


def test_a_fault_of_the_device_drains_it_then_it_stays_in_quarantine() -> None:
    patient = Patient()
    assert patient.at(0.0, fault("device"), users="app/infer") == "draining"
    assert patient.at(5.0, users="app/infer") == "draining"
    assert patient.at(9.0) == "quarantined"
    assert patient.at(10_000.0) == "quarantined"
    assert patient.wake_at is None
    assert patient.case.reason == "Xid 95"


def test_a_device_with_nobody_on_it_goes_straight_to_quarantine() -> None:
    assert Patient().at(0.0, fault("fatal")) == "quarantined"


def test_a_device_that_was_away_is_watched_and_then_healthy() -> None:
    patient = Patient()
    patient.at(0.0, fault("device"))
    assert patient.at(10.0, health="lost", health_reason="fell off the bus") == "lost"
    assert patient.at(20.0) == "probation"
    assert patient.wake_at == 20.0 + PROBATION
    assert patient.at(20.0 + PROBATION - 1) == "probation"
    assert patient.at(20.0 + PROBATION) == "healthy"
    assert patient.wake_at is None


def test_a_device_that_is_not_listed_for_a_while_was_away() -> None:
    patient = Patient()
    patient.at(0.0, fault("device"))
    verdict = step(patient.cases, box(1), {}, 5.0, users={})
    patient.cases = dict(verdict.cases)
    assert patient.at(9.0) == "probation"


def test_while_the_driver_asks_for_a_recovery_it_is_ill_and_cured_when_it_no_longer_does() -> None:
    patient = Patient()
    assert patient.at(0.0, ailing="needs a reset") == "quarantined"
    assert patient.at(100.0, ailing="needs a reset") == "quarantined"
    assert patient.at(101.0) == "probation"
    assert patient.case.reason == "the driver no longer asks for a recovery (was: needs a reset)"


def test_each_illness_doubles_the_probation_until_it_is_forgotten() -> None:
    patient, now = Patient(), 0.0
    terms = []
    for _ in range(3):
        patient.at(now, ailing="needs a reset")
        patient.at(now + 1)
        assert patient.wake_at is not None
        terms.append(patient.wake_at - now - 1)
        now = patient.wake_at
        assert patient.at(now) == "healthy"
    assert terms == [PROBATION, 2 * PROBATION, 4 * PROBATION]
    patient.at(now + FORGET)
    assert patient.cases == {}


def test_a_memory_error_on_probation_is_a_relapse() -> None:
    patient = Patient()
    patient.at(0.0, ailing="needs a reset")
    patient.at(1.0)
    assert patient.at(2.0, fault("memory", what="1 uncorrected memory error")) == "quarantined"


def test_faults_of_one_program_are_not_held_against_the_device() -> None:
    patient = Patient()
    for number in range(5):
        assert patient.at(float(number), fault("app", number), users="app/infer") == "healthy"


def test_faults_in_several_services_make_it_suspect_for_a_while() -> None:
    patient = Patient()
    patient.at(0.0, fault("app", 1), users="app/infer")
    assert patient.at(100.0, fault("app", 2), users="app/embed") == "suspect"
    assert patient.case.reason == "faults in app/embed, app/infer within 10m"
    assert patient.wake_at == WINDOW
    assert patient.at(WINDOW + 1, users="app/embed") == "healthy"


def test_a_shared_device_does_not_blame_its_sharers() -> None:
    patient = Patient()
    patient.at(0.0, fault("app", 1), users="app/a app/b")
    assert patient.cases == {}


def test_many_contained_memory_errors_make_it_suspect() -> None:
    patient = Patient()
    states = [patient.at(float(number), fault("memory", number)) for number in range(3)]
    assert states == ["healthy", "healthy", "suspect"]


def test_a_link_fault_takes_it_out_of_sets_only_until_it_is_reset() -> None:
    patient = Patient()
    assert patient.at(0.0, fault("link", what="Xid 74")) == "healthy"
    assert charted(box(0), patient.cases).devices[0].unlinked == "Xid 74"
    patient.at(1.0, health="lost")
    patient.at(2.0)
    assert charted(box(0), patient.cases).devices[0].unlinked == ""


def test_while_the_driver_is_silent_nothing_changes() -> None:
    patient = Patient()
    patient.at(0.0, fault("device"), users="app/infer")
    silent = Inventory(state="unreachable", reason="hangs", devices=(make_device(0),))
    verdict = step(patient.cases, silent, {}, 1e6, users={})
    assert verdict == Verdict(cases=patient.cases)


def test_the_operators_word_ends_quarantine_by_way_of_probation() -> None:
    patient = Patient()
    patient.at(0.0, fault("device"), fault("link", 2, "Xid 74"))
    patient.cases["GPU-0"] = pardon(patient.case, 50.0)
    assert patient.shown() == "probation"
    assert patient.case.unlinked == ""
    assert patient.at(50.0 + PROBATION) == "healthy"
    assert objection(make_device(0, health="lost", health_reason="gone")) == "it is lost (gone)"
    assert objection(make_device(0, ailing="needs a reset")) == "needs a reset"
    assert objection(make_device(0)) == ""


def test_cases_are_kept_as_they_are_for_the_same_boot() -> None:
    patient = Patient()
    patient.at(0.0, fault("app", 1), users="app/infer")
    patient.at(1.0, fault("app", 2), users="app/embed")
    raw = json.loads(json.dumps(kept(patient.cases, "boot-1")))
    assert revived(raw, "boot-1", 9.0) == patient.cases


def test_a_boot_is_a_reset_and_a_new_clock() -> None:
    ill, suspicious = Patient(), Patient()
    ill.at(5000.0, fault("device"))
    suspicious.at(0.0, fault("app", 1), users="app/a")
    suspicious.at(1.0, fault("app", 2), users="app/b")
    ill.cases = revived(kept(ill.cases, "boot-1"), "boot-2", 3.0)
    assert ill.case.since == 3.0
    assert ill.at(4.0) == "probation"
    assert revived(kept(suspicious.cases, "boot-1"), "boot-2", 3.0) == {}


@pytest.mark.parametrize("raw", [{}, {"cases": 3}, {"cases": {"GPU-0": 3}}, {"cases": {"GPU-0": {"x": 1}}}])
def test_what_cannot_be_read_is_left_out(raw) -> None:
    assert revived(raw, "boot", 0.0) == {}


def test_the_case_of_a_lost_device_keeps_the_drivers_word() -> None:
    patient = Patient()
    assert patient.at(0.0, health="lost", health_reason="fell off the bus") == "lost"
    assert patient.case.state == "quarantined"
    (device,) = charted(box(make_device(0, health="lost", health_reason="gone")), patient.cases).devices
    assert (device.health_reason, device.health_since) == ("gone", 0.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "app", "memory", "device", "link", "lost", "ailing"]),
            st.sampled_from(["", "app/a", "app/a app/b"]),
        ),
        max_size=30,
    )
)
def test_no_history_skips_probation_or_leaves_a_worker_on_a_quarantined_device(history) -> None:
    patient, before = Patient(), "healthy"
    for number, (what, users) in enumerate(history):
        news = (fault(what, number),) if what in ("app", "memory", "device", "link") else ()
        signs = {"lost": {"health": "lost"}, "ailing": {"ailing": "needs a reset"}}.get(what, {})
        patient.at(number * 30.0, *news, users=users, **signs)
        state = patient.case.state if patient.cases else "healthy"
        if before in ("draining", "quarantined"):
            assert state in ("draining", "quarantined", "probation")
        if state == "quarantined" and before != "quarantined":
            assert not users or what == "lost"
        if what in ("device", "ailing", "lost"):
            assert state in ("draining", "quarantined")
        before = state
