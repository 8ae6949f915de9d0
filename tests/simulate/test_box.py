"""Several services on one simulated box: never more than the box, and nobody starves."""

from __future__ import annotations

import math

from simulate.loads import integral, poisson, policy_named, service
from stoker.decide.budget import Amount
from stoker.model.service import Resources
from stoker.simulate.box import SharedBox
from stoker.simulate.replay import Case, grant_all, replay
from stoker.simulate.report import figures


def cases(policy="foresight", **priorities):
    return [
        Case(
            spec=service(
                policy,
                name=name,
                high=8,
                slots=1,
                down=0.0,
                resources=Resources(gpu=1.0),
                priority=priorities.get(name, 0),
            ),
            trace=poisson(2.0, 1.5, 2500, seed=seed),
            startup=10.0,
            initial=3,
        )
        for seed, name in enumerate("ab")
    ]


def gpus(count):
    return SharedBox(Amount(devices=count, cpu=math.inf, memory=math.inf))


def test_the_box_is_never_exceeded_and_the_books_agree():
    box = gpus(7)
    found = replay(cases(), policy_named, apportion=box)
    assert 6 <= box.most_held.devices <= 7
    for outcome in found:
        assert integral(outcome.tally.timeline) == outcome.tally.replica_seconds or math.isclose(
            integral(outcome.tally.timeline), outcome.tally.replica_seconds
        )
        assert figures(outcome).unserved == 0


def test_equals_share_a_tight_box_evenly_and_priority_tips_it():
    even = [figures(o) for o in replay(cases(), policy_named, apportion=gpus(6))]
    assert abs(even[0].replica_seconds / even[1].replica_seconds - 1) < 0.25
    tipped = [figures(o) for o in replay(cases(b=10), policy_named, apportion=gpus(6))]
    assert tipped[1].slo_miss_ratio < tipped[0].slo_miss_ratio
    assert tipped[1].slo_miss_ratio < even[1].slo_miss_ratio


def test_a_roomy_box_changes_nothing():
    alone = replay(cases(), policy_named, apportion=grant_all)
    boxed = replay(cases(), policy_named, apportion=gpus(100))
    assert [figures(o) for o in alone] == [figures(o) for o in boxed]


def test_who_gets_less_is_told_why():
    box = gpus(5)
    replay(cases(b=10), policy_named, apportion=box)
    assert "short, held by b (priority 10)" in box.reasons["d/a"]
