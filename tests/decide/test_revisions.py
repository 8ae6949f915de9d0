"""Updates that fail are taken back: when, to what, and when the configuration gets another chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.decide.lifecycle import fold
from stoker.decide.reconcile import reconcile
from stoker.decide.restart import STABLE
from stoker.decide.revisions import in_force, reconsider
from stoker.model.action import AcceptRevision, Action, RejectRevision, StartReplica
from stoker.model.event import ReplicaBecameReady, RevisionAccepted, RevisionRejected
from stoker.model.replica import Replica
from stoker.model.service import Command, Probe, Probes, Scaling, ServiceSpec, revision
from stoker.model.state import ObservedState
from worlds import event_of, make_replica, make_spec, seeing, wanting

NOW = 500.0
GOOD = make_spec(replicas=(2, 2), user="old", probes=Probes(startup=Probe(http="/old")))
NEW = make_spec(replicas=(2, 2), user="new", probes=Probes(startup=Probe(http="/new")))


def updating(*fresh: Replica, old: int = 2, spec: ServiceSpec = NEW, good: ServiceSpec = GOOD) -> Any:
    """The first actions of an update of `good` to `spec` with these new replicas."""
    replicas = [make_replica(good, f"old{number}", created=number) for number in range(old)]
    state = seeing(*replicas, *fresh, good={good.key: good})
    return reconcile(wanting(spec), state, NOW).actions


def judgements(actions: tuple[Action, ...]) -> list[Action]:
    return [action for action in actions if isinstance(action, AcceptRevision | RejectRevision)]


def failed(spec: ServiceSpec = NEW, **changes: Any) -> Replica:
    how = {"failures": 1, "restarts": 1, "fault": "hung-start", "failure": "not ready within 2m"} | changes
    return make_replica(spec, "new", "pending", created=10.0, **how)


def test_the_first_revision_that_gets_ready_is_good() -> None:
    starting = make_replica(GOOD, phase="starting")
    ready = ReplicaBecameReady(replica=starting.id, service=GOOD.key, at=NOW)
    state = fold(seeing(starting), ready, wanting(GOOD))
    assert state.good == {GOOD.key: GOOD}
    later = fold(seeing(replace(starting, revision=revision(NEW)), good=state.good), ready, wanting(NEW))
    assert later.good == {GOOD.key: GOOD}, "a later one has to serve for a while"


def test_a_revision_that_serves_for_a_while_is_accepted_and_the_world_is_quiet_again() -> None:
    young = make_replica(NEW, "new", ready_at=NOW - STABLE + 3)
    state = seeing(young, make_replica(NEW, "two", ready_at=NOW), good={GOOD.key: GOOD})
    plan = reconcile(wanting(NEW), state, NOW)
    assert (plan.actions, plan.wake_at) == ((), NOW + 3)
    (accept,) = reconcile(wanting(NEW), state, NOW + 3).actions
    assert isinstance(accept, AcceptRevision)
    after = fold(state, event_of(accept, NOW + 3), wanting(NEW))
    assert after.good == {NEW.key: NEW}
    plan = reconcile(wanting(NEW), after, NOW + 3)
    assert (plan.actions, plan.wake_at) == ((), None)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({}, "not ready within 2m"),
        ({"fault": "cannot-start", "failure": "cannot start: no such file"}, "cannot start: no such file"),
        (
            {"fault": "exit", "failures": 5, "failure": "exit code 1: no weights"},
            "5 failures in a row, the last: exit code 1: no weights",
        ),
    ],
    ids=["hung start", "cannot start", "crash loop"],
)
def test_a_revision_that_fails_is_rejected_before_anything_else(failure: dict[str, Any], words: str) -> None:
    (reject,) = updating(failed(**failure))
    assert reject.match(revision=revision(NEW), back_on=revision(GOOD), reason=words, service=NEW.key)


@pytest.mark.parametrize(
    "accident",
    [{"fault": "exit", "failures": 4}, {"fault": "signal"}, {"fault": "liveness"}, {"failures": 0}],
    ids=str,
)
def test_an_accident_is_no_reason(accident: dict[str, Any]) -> None:
    actions = updating(failed(**accident))
    assert judgements(actions) == []
    assert any(isinstance(action, StartReplica) for action in actions), "it is tried again"


def test_a_service_that_never_was_good_just_goes_on_trying() -> None:
    actions = reconcile(wanting(NEW), seeing(failed()), NOW).actions
    assert judgements(actions) == []


def test_what_has_proved_itself_is_never_taken_back() -> None:
    state = seeing(failed(), good={NEW.key: replace(NEW, scaling=Scaling(max_replicas=9))})
    assert judgements(reconcile(wanting(NEW), state, NOW).actions) == []


def test_a_restart_is_taken_back_only_while_old_workers_serve() -> None:
    again = replace(GOOD, restart_token="1")
    assert judgements(updating(failed(again), spec=again))
    assert not judgements(updating(failed(again), spec=again, old=0))


def test_a_service_that_is_held_or_ending_is_left_alone() -> None:
    assert not judgements(updating(failed(), spec=replace(NEW, held=True)))
    state = seeing(failed(), good={GOOD.key: GOOD}, stopping=True)
    assert not judgements(reconcile(wanting(NEW), state, NOW).actions)


def rejected(good: ServiceSpec = GOOD) -> ObservedState:
    state = seeing(good={good.key: good})
    event = RevisionRejected(
        id="e9", service=NEW.key, revision=revision(NEW), back_on=revision(good), reason="why"
    )
    return fold(state, event, wanting(NEW))


def test_a_rejected_revision_leaves_the_last_good_one_in_force_with_the_new_bounds() -> None:
    wanted = wanting(replace(NEW, scaling=Scaling(min_replicas=3, max_replicas=4)))
    spec = in_force(wanted, rejected()).services[NEW.key]
    assert revision(spec) == revision(GOOD)
    assert (spec.scaling.max_replicas, spec.probes, spec.user) == (4, GOOD.probes, "old")


def test_after_a_rejection_the_failed_replica_goes_and_the_old_ones_stay() -> None:
    old = [make_replica(GOOD, f"old{number}", created=number) for number in range(2)]
    state = replace(rejected(), replicas={r.id: r for r in (*old, failed())})
    (action,) = reconcile(in_force(wanting(NEW), state), state, NOW).actions
    assert action.replica == failed().id


def test_another_configuration_gets_its_chance_and_so_does_the_same_one_after_it() -> None:
    state = rejected()
    assert reconsider(state, wanting(replace(NEW, priority=3))).rejected == state.rejected
    other = reconsider(state, wanting(replace(NEW, user="third")))
    assert (other.rejected, other.good) == ({}, state.good)
    assert in_force(wanting(NEW), other) == wanting(NEW)
    assert reconsider(state, wanting()).good == {}


def test_nothing_is_taken_back_to_what_needs_a_service_that_is_gone() -> None:
    good = replace(GOOD, depends=("store",), launch=Command(argv=("serve", "{url:store}")))
    assert not judgements(updating(failed(), good=good))
    assert in_force(wanting(NEW), rejected(good)) == wanting(NEW)


def test_the_word_of_a_judgement_that_comes_too_late_changes_nothing() -> None:
    event = RevisionAccepted(service=NEW.key, revision=revision(GOOD))
    assert fold(seeing(), event, wanting(NEW)).good == {}
