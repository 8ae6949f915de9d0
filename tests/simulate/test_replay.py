"""The simulator against queueing theory, against itself, and against its own bookkeeping."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate.loads import integral, poisson, policy_named, service, trace
from stoker.simulate.replay import Case, replay
from stoker.simulate.report import figures, percentile


def run(spec, load, **more):
    return replay([Case(spec=spec, trace=load, **more)], policy_named)[0]


def erlang_c(servers, offered):
    """Probability that an arrival waits in M/M/c."""
    top = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return top / (sum(offered**k / math.factorial(k) for k in range(servers)) + top)


@pytest.mark.parametrize(("replicas", "slots", "offered"), [(4, 1, 3.0), (2, 4, 6.0), (1, 1, 0.6)])
def test_waiting_is_that_of_m_m_c(replicas, slots, offered):
    load = poisson(rate=offered, mean=1.0, count=40_000)
    found = run(service("static", low=replicas, high=replicas, slots=slots), load)
    servers = replicas * slots
    waiting = sum(wait > 0 for wait in found.waits) / len(load)
    assert waiting == pytest.approx(erlang_c(servers, offered), rel=0.08)


def earliest_free(load, servers):
    """Waits of the textbook: each request takes the server that is free first."""
    free, waits = [0.0] * servers, []
    for arrival, seconds in zip(load.arrivals, load.services, strict=True):
        begin = max(arrival, free[0])
        heapq.heapreplace(free, begin + seconds)
        waits.append(begin - arrival)
    return waits


def test_each_wait_is_that_of_servers_in_a_row():
    load = poisson(rate=6, mean=1.0, count=5000)
    found = run(service("static", low=2, high=2, slots=4), load)
    assert list(found.waits) == pytest.approx(earliest_free(load, 8), abs=1e-9)


def test_the_same_input_gives_the_same_outcome():
    load, spec = poisson(3, 1.0, 3000), service(low=0)
    first, second = run(spec, load, startup=5), run(spec, load, startup=5)
    assert figures(first).document() == figures(second).document()
    assert list(first.waits) == list(second.waits)
    assert first.tally.timeline == second.tally.timeline


def test_a_request_at_zero_waits_exactly_for_the_start():
    found = run(service(low=0), trace((100.25, 1.0), (100.5, 1.0)), startup=7)
    assert found.waits == pytest.approx([7.0, 6.75])
    assert found.tally.starts == 1


def test_a_fixed_pool_costs_its_size_times_the_time():
    found = run(service("static", low=3, high=3), trace((0.0, 1.0), (50.0, 10.0)))
    assert (found.ended, found.tally.starts, found.tally.peak) == (pytest.approx(60), 0, 3)
    assert found.tally.replica_seconds == pytest.approx(180)


def test_without_a_limit_of_slots_nothing_waits():
    found = run(service(low=1, high=1, slots=None), trace(*((0.0, 5.0),) * 40))
    assert set(found.waits) == {0.0}


def test_a_service_goes_to_zero_between_its_requests():
    found = run(service(low=0, down=30), trace((0.0, 1.0), (1000.0, 1.0)), startup=5)
    assert found.tally.starts == 2
    assert found.tally.replica_seconds < 100


def test_quiet_hours_cost_no_time_and_change_no_figure():
    """A rest is passed over tick by tick or at once: waits and starts are those of the same bursts."""
    near = run(service(low=0, down=30), trace((0.0, 1.0), (500.0, 1.0)), startup=5)
    far = run(service(low=0, down=30), trace((0.0, 1.0), (500_000.0, 1.0)), startup=5)
    assert figures(near).replica_seconds == pytest.approx(figures(far).replica_seconds)
    assert list(near.waits) == pytest.approx(list(far.waits))


REQUESTS = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 20)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, st.integers(0, 2), st.integers(1, 5), st.integers(1, 3), st.floats(0.5, 40))
def test_laws_of_every_run(requests, low, high, slots, startup):
    load = trace(*sorted(requests))
    high = max(low, high)
    found = run(service(low=low, high=high, slots=slots, down=5), load, startup=startup)
    assert integral(found.tally.timeline) == pytest.approx(found.tally.replica_seconds)
    assert all(ready + starting <= high for _, ready, starting, _ in found.tally.timeline)
    assert found.tally.peak <= high
    assert all(wait >= 0 and math.isfinite(wait) for wait in found.waits)
    assert found.tally.replica_seconds >= sum(load.services) / slots - 1e-6
    assert low <= min(moment.target for moment in found.moments)
    assert max(moment.target for moment in found.moments) <= high


def test_services_side_by_side_do_not_disturb_each_other():
    one, two = poisson(3, 1.0, 2000, seed=1), poisson(1, 2.0, 500, seed=2)
    cases = [Case(spec=service(name="a"), trace=one), Case(spec=service(name="b"), trace=two)]
    together = replay(cases, policy_named)
    assert list(together[0].waits) == list(run(service(name="a"), one).waits)
    assert list(together[1].waits) == list(run(service(name="b"), two).waits)


def test_percentiles_interpolate():
    assert percentile([], 0.5) == 0
    assert percentile([3.0], 0.99) == 3
    assert percentile([0.0, 1.0, 2.0, 3.0], 0.5) == pytest.approx(1.5)
