"""From policies' answers to a target: windows, bounds, zero, several rules, and the reason for all of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.scaling import ScalingMemory, settle
from stoker.model.load import Decision, PoolState
from stoker.model.service import Command, PolicySpec, Scaling, ServiceSpec


def rule_of(metric="concurrency", up=0.0, down=60.0, target=None):
    return PolicySpec(
        metric=metric,
        target=target,
        scale_up_stabilization_window=up,
        scale_down_stabilization_window=down,
    )


def spec_of(minimum=1, maximum=10, **changes):
    scaling = Scaling(min_replicas=minimum, max_replicas=maximum)
    return ServiceSpec(
        deployment="d", name="s", launch=Command(("run",)), working_dir="/", scaling=scaling, **changes
    )


def answer(count, **changes):
    return Decision(target=count, reason=f"load wants {count}", **changes)


BLIND = Decision(target=0, reason="no load measured yet", valid=False)


class Pool:
    """A service whose settled target is applied at once, as the daemon does it."""

    def __init__(self, spec, rule=None, target=1):
        self.spec, self.rule, self.target = spec, rule or rule_of(), target
        self.memory = ScalingMemory()
        self.settled = None

    def at(self, now, *counts, demand=False):
        answers = [(self.rule, each if isinstance(each, Decision) else answer(each)) for each in counts]
        pool = PoolState(ready=self.target, target=self.target)
        self.settled = settle(self.spec, answers, self.memory, pool, now, demand=demand)
        self.memory, self.target = self.settled.memory, self.settled.decision.target
        return self.target

    @property
    def reason(self):
        return self.settled.decision.reason


def test_up_at_once_without_a_window():
    pool = Pool(spec_of())
    assert pool.at(0, 4) == 4
    assert pool.reason == "load wants 4"
    assert pool.settled.wake_at is None


def test_down_when_the_highest_recommendation_of_the_window_has_run_out():
    pool = Pool(spec_of())
    pool.at(0, 5)
    pool.at(10, 4)
    assert pool.at(20, 2) == 5
    assert pool.reason == "load wants 2; stays at 5 for the 60 s scale-down window, 50 s left"
    assert pool.settled.wake_at == 70
    assert pool.at(69.9, 2) == 5
    assert pool.at(70, 2) == 4
    assert pool.reason == "load wants 2; no lower than 4 for the 60 s scale-down window, 10 s left"
    assert pool.settled.wake_at == 80
    assert pool.at(80, 2) == 2
    assert pool.settled.wake_at is None


def test_a_recommendation_stands_until_the_next_one():
    pool = Pool(spec_of())
    pool.at(0, 5)
    assert pool.at(1000, 1) == 5
    assert pool.settled.wake_at == 1060
    assert pool.at(1060, 1) == 1


def test_a_dip_inside_the_window_starts_nothing():
    pool = Pool(spec_of())
    targets = [pool.at(now, 3 if now % 20 == 0 else 1) for now in range(0, 300, 10)]
    assert set(targets) == {3}


def test_up_only_as_far_as_the_lowest_of_the_up_window():
    pool = Pool(spec_of(), rule_of(up=30))
    assert pool.at(0, 1) == 1
    assert pool.at(10, 6) == 1
    assert pool.reason == "load wants 6; stays at 1 for the 30 s scale-up window, 30 s left"
    assert pool.settled.wake_at == 40
    assert pool.at(20, 4) == 1
    assert pool.at(40, 5) == 4
    assert pool.reason == "load wants 5; no higher than 4 for the 30 s scale-up window, 30 s left"
    assert pool.at(69, 5) == 4
    assert pool.at(70, 5) == 5


def test_a_short_burst_inside_the_up_window_is_ignored():
    pool = Pool(spec_of(), rule_of(up=30))
    assert {pool.at(now, 6 if now == 50 else 1) for now in range(0, 200, 10)} == {1}


def test_windows_of_nothing_follow_every_answer():
    pool = Pool(spec_of(0), rule_of(up=0, down=0))
    assert [pool.at(now, count) for now, count in enumerate([3, 7, 2, 0, 1])] == [3, 7, 2, 0, 1]


def test_bounds_are_said():
    pool = Pool(spec_of(2, 3))
    assert pool.at(0, 9) == 3
    assert pool.reason == "load wants 9; held at 3 by max_replicas"
    assert Pool(spec_of(2, 3), rule_of(down=0)).at(0, 0) == 2
    fresh = Pool(spec_of(2, 3), rule_of(down=0))
    fresh.at(0, 1)
    assert fresh.reason == "load wants 1; kept at 2 by min_replicas"


def test_at_its_minimum_a_pool_sleeps_though_a_window_is_open():
    pool = Pool(spec_of(2))
    pool.at(0, 2)
    assert pool.at(10, 0) == 2
    assert pool.settled.wake_at is None


def test_at_its_maximum_a_pool_does_not_wait_for_the_up_window():
    pool = Pool(spec_of(1, 1), rule_of(up=30))
    pool.at(0, 1)
    assert pool.at(1, 5) == 1
    assert pool.settled.wake_at is None


def test_lowered_bounds_take_hold_at_once():
    pool = Pool(spec_of(1, 10))
    pool.at(0, 8)
    pool.spec = spec_of(1, 4)
    assert pool.at(1, 8) == 4


def test_no_data_holds_what_is_there():
    pool = Pool(spec_of(), target=4)
    assert pool.at(0, BLIND) == 4
    assert pool.reason == "no load measured yet; holds 4"
    assert not pool.settled.decision.valid
    assert pool.settled.wake_at is None
    assert pool.at(5000, BLIND) == 4


def test_no_data_is_still_inside_the_bounds():
    assert Pool(spec_of(2, 3), target=9).at(0, BLIND) == 3
    assert Pool(spec_of(2, 3), target=0).at(0, BLIND) == 2


def test_after_a_restart_the_present_scale_stands_for_a_whole_window():
    pool = Pool(spec_of(0), target=4)
    assert pool.at(100, 0) == 4
    assert pool.settled.wake_at == 160
    assert pool.at(160, 0) == 0


def test_a_gap_in_the_data_does_not_let_the_window_run_out():
    pool = Pool(spec_of())
    pool.at(0, 5)
    pool.at(1, BLIND)
    assert pool.at(500, 1) == 5
    assert pool.at(560, 1) == 1


def test_a_request_at_zero_starts_one_whatever_the_up_window():
    pool = Pool(spec_of(0), rule_of(up=300), target=0)
    pool.at(0, 0)
    assert pool.at(10, 5) == 1
    assert pool.reason == "load wants 5; at zero, so one starts at once"
    assert pool.at(11, 5) == 1
    assert pool.at(310, 5) == 5


def test_demand_at_zero_starts_one_before_any_sample():
    pool = Pool(spec_of(0), target=0)
    assert pool.at(0, 0, demand=True) == 1
    assert pool.reason == "load wants 0; a request waits, so one starts at once"
    assert Pool(spec_of(0), target=0).at(0, BLIND, demand=True) == 1
    assert Pool(spec_of(0, 5), target=0).at(0, 3, demand=True) == 3


def test_zero_needs_a_whole_window_of_zero():
    pool = Pool(spec_of(0), rule_of(down=60))
    pool.at(0, 1)
    pool.at(10, 0)
    pool.at(40, 1)
    pool.at(41, 0)
    assert pool.at(100.9, 0) == 1
    assert pool.at(101, 0) == 0
    assert pool.settled.wake_at is None


def test_a_stopped_service_has_no_replica():
    pool = Pool(spec_of(2, 5, held=True), target=4)
    assert pool.at(0, 5, demand=True) == 0
    assert "stopped by the operator" in pool.reason
    assert pool.settled.wake_at is None


def test_standby_comes_on_top_and_does_not_grow():
    pool = Pool(spec_of(0, 5, standby=1), rule_of(down=10), target=0)
    assert pool.at(0, 0) == 1
    assert pool.at(1, 2) == 3
    assert pool.reason == "load wants 2; plus 1 standby"
    assert [pool.at(now, 2) for now in range(2, 9)] == [3] * 7
    assert pool.at(9, 5) == 5
    pool.at(10, 0)
    assert pool.at(21, 0) == 1


def several(answers, target, now=0.0, memory=None, **spec):
    settled = settle(
        spec_of(**spec), answers, memory or ScalingMemory(), PoolState(ready=target, target=target), now
    )
    return settled.decision.target, settled


def test_of_several_rules_the_largest_wins():
    rules = [(rule_of("concurrency"), answer(2)), (rule_of("gpu"), answer(4)), (rule_of("static"), answer(1))]
    count, settled = several(rules, 1)
    assert count == 4
    assert settled.decision.reason == "load wants 4 (largest; concurrency asks for 2, static asks for 1)"


def test_a_rule_without_data_keeps_the_pool_from_shrinking_not_from_growing():
    rules = [(rule_of("concurrency", down=0), answer(2)), (rule_of("gpu"), BLIND)]
    count, settled = several(rules, 4)
    assert count == 4
    assert settled.decision.reason == "load wants 2; held at 4: no load measured yet"
    assert several(rules, 1)[0] == 2


def test_each_rule_has_its_own_window():
    slow, fast = rule_of("gpu", down=300), rule_of("concurrency", down=10)
    _, first = several([(slow, answer(2)), (fast, answer(5))], 1)
    _, second = several([(slow, answer(1)), (fast, answer(1))], 5, 1.0, first.memory)
    count, third = several([(slow, answer(1)), (fast, answer(1))], 5, 11.0, second.memory)
    assert count == 2
    assert third.wake_at == 301.0
    assert several([(slow, answer(1)), (fast, answer(1))], 2, 301.0, third.memory)[0] == 1


def test_no_rule_at_all_holds():
    assert several([], 3)[0] == 3


def test_a_policy_can_ask_to_be_asked_again():
    rules = [(rule_of("schedule"), answer(1, wake_at=500.0)), (rule_of(), answer(1, wake_at=900.0))]
    assert several(rules, 1, now=10.0)[1].wake_at == 500.0
    assert several(rules, 1, now=500.0)[1].wake_at == 900.0


def test_memory_survives_as_json():
    rule = rule_of(up=30, target=4.0)
    pool = Pool(spec_of(), rule)
    pool.at(0, 5)
    pool.at(10, answer(2, state={"seen": [1, 2]}))
    stored = json.loads(json.dumps(pool.memory.as_json()))
    restored = ScalingMemory.from_json(stored)
    assert restored == pool.memory
    assert restored.state_of(rule) == {"seen": [1, 2]}
    assert restored.state_of(rule_of("gpu")) == {}


@pytest.mark.parametrize("data", [[], {"x": {}}, {"x": {"last": "?"}}, {"x": {"last": 1, "highs": 5}}])
def test_a_damaged_memory_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - any wording; the caller starts with an empty memory
        ScalingMemory.from_json(data)


def test_times_of_another_boot_run_out():
    pool = Pool(spec_of(), target=5)
    pool.at(90_000, 5)
    pool.at(90_001, 1)
    assert pool.at(10, 1) == 5
    assert pool.settled.wake_at == 70
    assert pool.at(70, 1) == 1


def test_a_removed_rule_leaves_no_memory():
    pool = Pool(spec_of(), rule_of("gpu"))
    pool.at(0, 3)
    pool.rule = rule_of("concurrency")
    pool.at(1, 3)
    assert len(pool.memory.rules) == 1


steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0, 7.0, 30.0, 100.0]), st.one_of(st.integers(0, 6), st.just(BLIND))
    ),
    min_size=1,
    max_size=40,
)


@given(
    steps=steps,
    up=st.sampled_from([0.0, 1.0, 10.0, 60.0]),
    down=st.sampled_from([0.0, 1.0, 10.0, 60.0]),
    minimum=st.integers(0, 2),
    start=st.integers(0, 5),
)
def test_laws_of_any_history(steps, up, down, minimum, start):
    """Bounds always; never down while a higher recommendation is younger than the window; the memory stays
    small; no wake-up in the past; and once asked at its own wake-up times, it comes to rest."""
    pool = Pool(spec_of(minimum, 5), rule_of(up=up, down=down), target=start)
    now, told = 0.0, []
    for pause, given_answer in steps:
        now += pause
        before = pool.target
        after = pool.at(now, given_answer)
        if not isinstance(given_answer, Decision):
            told.append((now, given_answer))
        assert minimum <= after <= 5
        if isinstance(given_answer, Decision) and minimum <= before <= 5:
            assert after == before
        recent = [count for at, count in told if at > now - down]
        if after < before <= 5 and recent:
            assert after >= min(max(recent), 5)
        assert pool.settled.wake_at is None or pool.settled.wake_at > now
        for remembered in pool.memory.rules.values():
            assert len(remembered.highs) <= 8
            assert len(remembered.lows) <= 8
    last = told[-1][1] if told else None
    for _ in range(20):
        if pool.settled.wake_at is None:
            break
        pool.at(pool.settled.wake_at, last)
    assert pool.settled.wake_at is None
    if told:
        pool.at(now + 1000, last)
        assert pool.target == max(minimum, min(5, last))


def test_of_a_window_whose_end_changes_nothing_no_time_is_told():
    pool = Pool(spec_of(minimum=2))
    pool.at(0, 2)
    assert pool.at(10, 0) == 2
    assert pool.reason == "load wants 0; kept at 2 by min_replicas"
    assert pool.settled.wake_at is None
