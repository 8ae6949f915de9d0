"""Other systems' autoscalers: the traits they are known for, at their defaults."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulate.loads import policy_named, service, trace
from stoker.simulate.replay import Case, replay

STEADY = [(i * 0.5, 2.0) for i in range(2400)]
"""Four requests in flight for twenty minutes."""


def run(policy, load, *, low=1, high=10, slots=1, initial=None, startup=10.0):
    spec = service(policy, low=low, high=high, slots=slots, down=0.0)
    return replay([Case(spec=spec, trace=trace(*load), startup=startup, initial=initial)], policy_named)[0]


def at(outcome, seconds):
    return next(m.target for m in reversed(outcome.moments) if m.at <= seconds)


@pytest.mark.parametrize(("policy", "expected"), [("kpa", 6), ("hpa", 6), ("ray", 6), ("bento", 4)])
def test_steady_load_over_its_target(policy, expected):
    """4 in flight / 0.7 is 6; BentoCloud's target is the concurrency itself."""
    assert at(run(policy, STEADY, initial=expected), 1100) == expected


def test_kpa_panics_and_does_not_come_down_for_a_minute():
    burst = [*((i * 1.0, 0.5) for i in range(100)), *((100.0, 2.0) for _ in range(20))]
    load = sorted([*burst, *((100 + i, 0.5) for i in range(200))])
    found = run("kpa", load, high=40)
    assert at(found, 103) >= 4
    assert at(found, 150) == max(moment.target for moment in found.moments)
    assert at(found, 290) == 1


@pytest.mark.parametrize(("policy", "seconds"), [("hpa", 300), ("bento", 600)])
def test_hpa_keeps_the_highest_answer_of_its_window(policy, seconds):
    load = [*((i * 0.5, 2.0) for i in range(200)), *((100.0 + i, 0.2) for i in range(900))]
    found = run(policy, load, initial=6)
    assert at(found, 100 + seconds - 30) >= 4
    assert at(found, 100 + seconds + 60) == 1


def test_ray_waits_thirty_seconds_up_and_ten_minutes_down():
    load = [*((i, 0.2) for i in range(100)), *((100 + i * 0.5, 2.0) for i in range(400))]
    load += [(300.0 + i, 0.2) for i in range(900)]
    found = run("ray", load)
    assert at(found, 128) == 1
    assert at(found, 200) >= 5
    assert at(found, 700) >= 5
    assert at(found, 1000) == 1


@pytest.mark.parametrize("policy", ["kpa", "hpa", "bento"])
def test_from_zero_and_back(policy):
    found = run(policy, [(50.0, 1.0), (1500.0, 1.0)], low=0, initial=0, slots=2)
    assert found.tally.starts == 2
    assert found.waits[0] == pytest.approx(10.0, abs=0.01)


def test_the_file_may_set_another_target():
    spec = service("hpa", low=1, high=10, slots=4, down=0.0)
    rule = replace(spec.scaling.policies[0], target=1.0)
    spec = replace(spec, scaling=replace(spec.scaling, policies=(rule,)))
    found = replay([Case(spec=spec, trace=trace(*STEADY), initial=4)], policy_named)[0]
    assert at(found, 600) == 4
