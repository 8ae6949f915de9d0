"""The clairvoyant schedule: small cases by hand, and that no policy without misses is cheaper by much."""

from __future__ import annotations

import pytest

from simulate.loads import poisson, policy_named, service, trace
from stoker.simulate.bound import clairvoyant
from stoker.simulate.replay import Case, replay
from stoker.simulate.report import figures


def bound(load, *, slots=1, slo_wait=0.0, startup=10.0, low=0):
    return clairvoyant(load, slots=slots, slo_wait=slo_wait, startup=startup, min_replicas=low)


def test_one_request_costs_a_start_and_itself():
    assert bound(trace((5.0, 3.0))) == pytest.approx(13)


def test_short_gaps_are_kept_over_long_ones_are_not():
    assert bound(trace((0.0, 1.0), (5.0, 1.0))) == pytest.approx(10 + 1 + 4 + 1)
    assert bound(trace((0.0, 1.0), (100.0, 1.0))) == pytest.approx(10 + 1 + 10 + 1)


def test_a_wait_that_nobody_minds_saves_a_replica():
    together = trace((0.0, 1.0), (0.0, 1.0))
    assert bound(together) == pytest.approx(22)
    assert bound(together, slo_wait=1.0) == pytest.approx(12)
    assert bound(together, slots=2) == pytest.approx(11)
    assert bound(together, slots=None) == pytest.approx(11)


def test_guaranteed_replicas_are_paid_all_the_time():
    assert bound(trace((0.0, 1.0), (99.0, 1.0)), low=1) == pytest.approx(100)


@pytest.mark.parametrize("policy", ["foresight", "hpa"])
def test_policies_that_miss_little_cost_more(policy):
    load = poisson(3.0, 2.0, 3000)
    spec = service(policy, low=1, high=20, slots=2, down=0.0)
    row = figures(replay([Case(spec=spec, trace=load, startup=5.0, initial=5)], policy_named)[0])
    assert row.slo_miss_ratio < 0.02
    assert row.replica_seconds > bound(load, slots=2, slo_wait=2.0, startup=5.0, low=1)
