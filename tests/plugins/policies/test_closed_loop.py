"""Samples in, targets out: history, policy and windows together, as the daemon joins them."""

from __future__ import annotations

import pytest

from stoker.decide.demand import LoadHistory
from stoker.decide.scaling import ScalingMemory, settle
from stoker.model.load import LoadSample, PoolState
from stoker.model.service import Command, PolicySpec, Scaling, ServiceSpec, Traffic
from stoker.plugin.ports import PolicyInput
from stoker_policies.concurrency import Concurrency


class Box:
    """One service under a scripted load; asked at every sample and at every time it asks for, like a
    daemon. `ups` and `downs` count the changes, `asked` the decisions."""

    def __init__(self, *, minimum=0, maximum=8, concurrency=1, up=0.0, down=10.0, target=0):
        self.spec = ServiceSpec(
            deployment="d",
            name="s",
            launch=Command(("run",)),
            working_dir="/",
            scaling=Scaling(min_replicas=minimum, max_replicas=maximum),
            traffic=Traffic(concurrency=concurrency),
        )
        self.rule = PolicySpec(scale_up_stabilization_window=up, scale_down_stabilization_window=down)
        self.history, self.memory = LoadHistory(), ScalingMemory()
        self.target, self.now, self.wake_at = target, 0.0, None
        self.ups = self.downs = self.asked = 0

    def decide(self, *, demand=False):
        pool = PoolState(ready=self.target, target=self.target)
        given = PolicyInput(
            service=self.spec,
            policy=self.rule,
            window=lambda seconds: self.history.window(seconds, self.now),
            pool=pool,
            now=self.now,
        )
        answers = [(self.rule, Concurrency().decide(given))]
        settled = settle(self.spec, answers, self.memory, pool, self.now, demand=demand)
        self.memory, self.wake_at = settled.memory, settled.wake_at
        self.ups += settled.decision.target > self.target
        self.downs += settled.decision.target < self.target
        self.target = settled.decision.target
        self.asked += 1
        return settled.decision

    def load(self, seconds, demand):
        """That many requests at the service for that long: one sample a second, then one of zeros."""
        slots = self.spec.slots
        for _ in range(seconds):
            running = min(demand, self.target * slots)
            waiting = demand - running
            sample = LoadSample(
                service="d/s",
                start=self.now,
                end=self.now + 1,
                in_flight=running,
                queued=waiting,
                in_flight_seconds=running,
                queued_seconds=waiting,
                arrivals=demand,
                completions=running,
                service_seconds=running,
            )
            self.now += 1
            self.history = self.history.add(sample)
            self.decide()

    def rest(self, seconds):
        """Nothing for that long: no sample after the first, only the wake-ups it asked for."""
        end = self.now + seconds
        self.load(1, 0)
        while self.wake_at is not None and self.wake_at <= end:
            self.now = self.wake_at
            self.decide()
        self.now = end


def test_a_request_at_zero_is_served_at_once():
    box = Box(up=60)
    assert box.decide(demand=True).target == 1


def test_a_steady_load_settles_and_stays():
    box = Box()
    box.load(60, 5)
    assert box.target == 5
    assert (box.ups, box.downs) == (1, 0)


def test_a_burst_is_answered_within_a_second_and_given_back_after_the_window():
    box = Box(minimum=1, target=1)
    box.load(30, 1)
    box.load(1, 6)
    assert box.target == 6
    box.load(9, 1)
    assert box.target == 6
    box.load(8, 1)
    assert box.target == 1
    assert box.downs <= 5


def test_load_that_comes_and_goes_inside_the_window_does_not_flap():
    box = Box(minimum=1, target=1, down=30)
    for _ in range(20):
        box.load(3, 6)
        box.load(7, 1)
    assert box.target == 6
    assert box.downs == 0


@pytest.mark.parametrize("down", [0.0, 3.0, 60.0])
def test_a_quiet_service_goes_to_zero_one_window_after_its_last_request_and_sleeps(down):
    box = Box(down=down)
    box.load(10, 4)
    assert box.target == 4
    box.rest(down + 5.9)
    assert box.target == 0
    assert box.wake_at is None
    before = box.asked
    box.rest(3600)
    assert box.asked == before + 1


def test_it_does_not_go_to_zero_earlier():
    box = Box(down=60)
    box.load(10, 4)
    box.rest(59)
    assert box.target > 0


def test_a_quiet_service_at_its_minimum_sleeps_at_once():
    box = Box(minimum=2, target=2)
    box.load(5, 1)
    box.rest(1)
    assert box.target == 2
    assert box.wake_at is None


def test_lost_data_holds_the_pool_for_as_long_as_it_is_lost():
    box = Box()
    box.load(10, 4)
    box.now += 1000
    decision = box.decide()
    assert decision.target == 4
    assert decision.reason == "load not measured for 1000 s; holds 4"
    assert box.wake_at is None
