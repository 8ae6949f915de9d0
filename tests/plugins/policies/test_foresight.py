"""Foresight: what it learns, what it keeps warm, and that it stays a pure function of its input."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate.loads import poisson, policy_named, service, trace
from stoker.model.load import LoadWindow, PoolState
from stoker.model.service import PolicySpec
from stoker.plugin.ports import PolicyInput
from stoker.simulate.replay import Case, replay
from stoker.simulate.report import figures
from stoker_policies import forecast, warmth
from stoker_policies.foresight import WARM_UP, Foresight

RULE = PolicySpec(metric="foresight", scale_down_stabilization_window=0.0)


def ask(load, *, state=None, now=100.0, ready=1, starting=0, target=1, startup=20.0, low=0, high=8):
    return Foresight().decide(
        PolicyInput(
            service=service("foresight", low=low, high=high, slots=2),
            policy=RULE,
            window=lambda _seconds: load,
            pool=PoolState(ready=ready, starting=starting, target=target, startup_seconds=startup),
            now=now,
            state=state or {},
        )
    )


def busy(in_flight, queued=0, rps=1.0, **more):
    return LoadWindow(
        seconds=1.0, in_flight=in_flight, queued=queued, in_flight_now=round(in_flight), queued_now=queued,
        rps=rps, **more,
    )  # fmt: skip


def run(load, *, startup=5.0, low=1, high=16, slots=2, slo_wait=2.0, initial=None):
    spec = service("foresight", low=low, high=high, slots=slots, down=0.0, slo_wait=slo_wait)
    case = Case(spec=spec, trace=load, startup=startup, slo_wait=slo_wait, initial=initial)
    return replay([case], policy_named)[0]


def test_no_data_is_no_opinion():
    answer = ask(LoadWindow())
    assert (answer.valid, answer.target, answer.code) == (False, 1, "no_data")


def test_stale_data_is_no_opinion():
    assert not ask(LoadWindow(seconds=5.0, in_flight=0.0, age=60.0)).valid


def test_the_scale_it_finds_is_kept_at_first():
    first = ask(LoadWindow(seconds=1.0), target=5, ready=5)
    assert (first.target, first.need, first.code) == (5, 1, "keep_warm")
    assert first.wake_at is not None
    later = ask(LoadWindow(seconds=1.0), target=5, ready=5, now=100 + 3 * WARM_UP, state=first.state)
    assert later.target <= 1


def test_the_same_input_gives_the_same_answer_and_changes_no_memory():
    state = ask(busy(2.0)).state
    before = copy.deepcopy(state)
    one, two = (ask(busy(6.0, queued=3, rps=5.0), state=state, now=101.0) for _ in range(2))
    assert (one, state) == (two, before)


def test_its_memory_is_json():
    outcome_state = ask(busy(2.0), state=ask(busy(1.0)).state, now=106.0).state
    again = json.loads(json.dumps(outcome_state))
    assert again == outcome_state
    later = busy(3.0, queued=1)
    assert ask(later, state=again, now=107.0) == ask(later, state=outcome_state, now=107.0)


def test_a_queue_does_not_inflate_demand():
    state, now = ask(busy(2.0, rps=1.0, completions=1.0, service_time=2.0)).state, 100.0
    for queued in range(1, 60):
        now += 1
        stuck = busy(2.0, queued=queued, rps=1.0, completions=1.0, service_time=2.0)
        state = ask(stuck, state=state, now=now).state
    assert state["demand"] == pytest.approx(2.0, rel=0.3)


def test_base_need_and_want_are_in_order_and_explained():
    found = run(poisson(3, 1.5, 4000), low=0)
    for decision in (decision for _, decision in found.decisions if decision.valid):
        assert decision.base <= decision.need <= decision.want
        assert str(decision.need) in decision.reason or "no request" in decision.reason
        assert decision.code in {"forecast", "backlog", "keep_warm", "idle", "warm_up"}
        assert all(value >= 0 for value in decision.value)
        assert list(decision.value) == sorted(decision.value, reverse=True)


def test_head_room_is_learned_steady_load_needs_little():
    """Requests that come like a clock need no head-room; ones in bursts of the same rate need much."""
    steady = trace(*((i * 0.25, 2.0) for i in range(8000)))
    bursty = trace(*((i // 40 * 10.0, 2.0) for i in range(8000)))
    assert figures(run(steady)).replica_seconds / 2000 < 5.5
    assert figures(run(steady)).slo_miss_ratio < 0.005
    assert figures(run(bursty)).replica_seconds / 2000 > 8.0


def test_a_slow_start_makes_it_look_further_ahead():
    load = poisson(4, 1.5, 6000)
    quick, slow = figures(run(load, startup=2.0)), figures(run(load, startup=60.0))
    assert quick.replica_seconds < slow.replica_seconds


def test_a_service_with_rare_requests_goes_to_zero():
    found = run(trace(*((i * 1500.0, 2.0) for i in range(12))), low=0, startup=5.0, slo_wait=30.0)
    assert figures(found).slo_miss_ratio == 0
    assert found.tally.replica_seconds < 0.1 * 12 * 1500


def test_a_pool_that_comes_back_soon_is_kept():
    """Every 20 s a burst; a start takes 20 s: ending replicas between bursts would make each one late."""
    found = run(trace(*((100 + i // 8 * 20.0, 4.0) for i in range(1600))), low=0, startup=20.0)
    late = [wait for wait in list(found.waits)[400:] if wait > 2.0]
    assert not late


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 60)), min_size=1, max_size=80),
    st.integers(0, 2),
    st.integers(2, 6),
    st.floats(0.5, 90),
)
def test_bounds_hold_and_everything_is_served(requests, low, high, startup):
    found = run(trace(*sorted(requests)), low=low, high=high, startup=startup)
    assert found.tally.peak <= high
    assert figures(found).unserved == 0
    assert all(low <= moment.target <= high for moment in found.moments)


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [([], 100.0), ([5.0, 5.0], 100.0), ([5.0] * 10, 6.25), ([1000.0] * 10, 1.0), ([4000.0] * 10, 1.0)],
)
def test_the_timeout_is_the_one_that_would_have_cost_least(gaps, expected):
    assert warmth.timeout(gaps, worth=100.0) == pytest.approx(expected)


def test_levels_remember_their_own_gaps():
    memory = warmth.fresh(0.0, 1)
    for start in range(10, 100, 10):
        warmth.use(memory, 3, start - 1.0, float(start))
        warmth.use(memory, 1, start + 2.0, start + 3.0)
    assert [len(gaps) for gaps in memory["gaps"]] == [0, 8, 8]
    assert warmth.kept(memory, 8, 50.0, 95.0) == (3, pytest.approx(92.0 + 8 * 1.05 + 1))
    assert warmth.kept(memory, 2, 50.0, 95.0)[0] == 2
    assert warmth.kept(memory, 8, 50.0, 200.0) == (1, None)


def test_a_long_silence_is_as_if_it_had_been_watched():
    watched, asleep = forecast.fresh(0.0), forecast.fresh(0.0)
    seen = {"arrivals": 4.0, "completions": 2.0, "service_seconds": 3.0, "in_flight": 3.0, "queued": 0.0}
    rest = dict.fromkeys(seen, 0.0)
    for memory in (watched, asleep):
        forecast.measure(memory, 1.0, 20.0, 2.0, **seen)
    for _ in range(40):
        forecast.measure(watched, 5.0, 20.0, 2.0, **rest)
    forecast.measure(asleep, 200.0, 20.0, 2.0, **rest)
    assert watched["smooth"] == pytest.approx(asleep["smooth"], abs=0.05)
    assert watched["demand"] == asleep["demand"] == 0


def test_a_promise_that_outlasts_a_start_is_kept_without_anything_in_store():
    """Requests are rare, 30 s of wait are good, a start takes 20: cold starts are in time."""
    load = trace(*sorted((i * 397.0 % 20_000, 10.0 + i * 7 % 50) for i in range(150)))
    found = figures(run(load, low=0, slots=1, startup=20.0, slo_wait=30.0))
    assert found.slo_miss_ratio == 0
    assert found.replica_seconds < 2.2 * sum(load.services)


def test_a_queue_that_stands_longer_than_promised_is_part_of_the_base():
    """What comes in keeps one busy; with 60 requests in the queue one would never get through them."""
    state = None
    for now in range(300, 400):
        state = ask(busy(1.0, rps=1.0, completions=1.0, service_time=1.0), state=state, now=float(now)).state
    calm = ask(busy(1.0, rps=1.0, completions=1.0, service_time=1.0), state=state, now=400.0)
    short = ask(busy(1.0, queued=1, rps=1.0, completions=1.0, service_time=1.0), state=state, now=400.0)
    long = ask(busy(1.0, queued=60, rps=1.0, completions=1.0, service_time=1.0), state=state, now=400.0)
    assert calm.base == short.base < long.base <= long.need


def test_the_reason_says_how_far_ahead_and_what_a_replica_bears():
    """A queue is told as it is and as it will be; the time is that for which the load was forecast."""
    state = ask(busy(2.0), now=100.0).state
    reason = ask(busy(2.0, queued=60, rps=4.0), state=state, now=101.0).reason
    assert " busy slots expected in 19 s " in reason  # a start of 20 s, less the promised 2 s, and a second
    assert ", 2 a replica, 60 queued now and " in reason
    assert " when a new replica is ready: " in reason
