"""The built-in policies: their formulas, their reasons, and that they never guess without data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.model.load import LoadWindow, PoolState
from stoker.model.service import Command, PolicySpec, Resources, Scaling, ServiceSpec, Traffic
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import MeasuringPolicy, PluginContext, Policy, PolicyInput
from stoker_policies import plugin


def policy_named(name):
    registry = PluginRegistry()
    registry.register("policies", plugin)
    return registry.factory("policy", name)(PluginContext(instance="t", state_dir="/", runtime_dir="/"))


def ask(name, load, **changes):
    given = {
        "ready": 1,
        "starting": 0,
        "target": None,
        "pool_target": None,
        "params": (),
        "minimum": 1,
        "standby": 0,
    }
    given |= {"concurrency": 4, "cpu": None} | changes
    spec = ServiceSpec(
        deployment="d",
        name="s",
        launch=Command(("run",)),
        working_dir="/",
        scaling=Scaling(min_replicas=given["minimum"], max_replicas=10),
        traffic=Traffic(concurrency=given["concurrency"]),
        resources=Resources(cpu=given["cpu"]),
        standby=given["standby"],
    )
    wanted = given["ready"] + given["starting"] if given["pool_target"] is None else given["pool_target"]
    return policy_named(name).decide(
        PolicyInput(
            service=spec,
            policy=PolicySpec(metric=name, target=given["target"], params=given["params"]),
            window=load if callable(load) else lambda _seconds: load,
            pool=PoolState(ready=given["ready"], starting=given["starting"], target=wanted),
            now=100.0,
        )
    )


def busy(**numbers):
    return LoadWindow(**({"seconds": 5.0, "in_flight": 1.0, "in_flight_now": 1, "rps": 1.0} | numbers))


REST = LoadWindow(seconds=5.0)


def test_all_are_there_and_are_policies():
    registry = PluginRegistry()
    registry.register("policies", plugin)
    assert registry.names("policy") == [
        "bento", "concurrency", "foresight", "gpu", "hpa", "kpa", "prometheus", "queue", "ray", "schedule",
        "static", "utilization",
    ]  # fmt: skip
    assert all(isinstance(policy_named(name), Policy) for name in registry.names("policy"))


@pytest.mark.parametrize("name", ["concurrency", "queue", "utilization", "gpu"])
def test_without_data_there_is_no_opinion(name):
    nothing = ask(name, LoadWindow(), ready=3)
    assert not nothing.valid
    assert nothing.target == 3
    stale = ask(name, LoadWindow(seconds=5.0, in_flight=9.0, in_flight_now=9, age=30.0), ready=3)
    assert not stale.valid
    assert stale.target == 3


@pytest.mark.parametrize("name", ["concurrency", "queue"])
def test_missing_load_says_how_long_it_is_missing(name):
    assert ask(name, LoadWindow()).reason == "no load measured yet"
    assert ask(name, LoadWindow(age=30.0)).reason == "load not measured for 30 s"


@pytest.mark.parametrize("name", ["concurrency", "queue"])
def test_rest_is_zero(name):
    found = ask(name, REST)
    assert found.valid
    assert found.target == 0
    assert found.reason == "no request for 5 s"
    assert found.wake_at is None


class TestConcurrency:
    @pytest.mark.parametrize(
        ("in_flight", "queued", "replicas"),
        [(0.0001, 0, 1), (4, 0, 1), (4.01, 0, 1), (4.1, 0, 2), (7.1, 0, 2), (8, 0.5, 3), (100, 0, 25)],
    )
    def test_all_requests_at_the_service_over_the_target(self, in_flight, queued, replicas):
        assert ask("concurrency", busy(in_flight=in_flight, queued=queued), ready=2).target == replicas

    def test_bentoml_example(self):
        """100 requests on 2 replicas at 32 each want 4; 2 replicas are enough up to 64."""
        assert ask("concurrency", busy(in_flight=100), target=32, ready=2).target == 4
        assert ask("concurrency", busy(in_flight=64), target=32, ready=2).target == 2
        assert ask("concurrency", busy(in_flight=65), target=32, ready=2).target == 3
        assert ask("concurrency", busy(in_flight=31), target=32, ready=2).target == 1

    def test_the_reason_holds_the_numbers(self):
        assert ask("concurrency", busy(in_flight=7.1), ready=2).reason == (
            "in-flight 7.1 over 5 s / target 4 = 1.8, rounded up"
        )
        found = ask("concurrency", busy(in_flight=8.0, queued=1.5), ready=2, target=2)
        assert found.reason == "in-flight 8.0 + queued 1.5 over 5 s / target 2 = 4.8, rounded up"
        assert found.facts["in_flight"] == 8.0

    def test_a_little_is_not_written_as_nothing(self):
        found = ask("concurrency", busy(in_flight=0.0213, in_flight_now=0))
        assert found.reason == "in-flight 0.021 over 5 s / target 4 = 0.0053, rounded up"

    def test_the_target_defaults_to_the_slots_then_to_one(self):
        assert ask("concurrency", busy(in_flight=8), concurrency=8).target == 1
        assert ask("concurrency", busy(in_flight=8), concurrency=None).target == 8
        assert ask("concurrency", busy(in_flight=8), concurrency=8, target=2.0).target == 4

    def test_a_queue_that_takes_long_counts_at_once(self):
        load = busy(in_flight=0.4, queued=0.2, in_flight_now=4, queued_now=9, service_time=2.0)
        found = ask("concurrency", load)
        assert found.target == 4
        assert found.reason == (
            "in-flight 4 + queued 9 now / target 4 = 3.2 (the queue would take 4.5 s), rounded up"
        )
        assert found.code == "backlog"

    def test_a_queue_of_milliseconds_starts_nothing(self):
        load = busy(in_flight=0.4, queued=0.2, in_flight_now=4, queued_now=9, service_time=0.001)
        assert ask("concurrency", load).target == 1
        assert ask("concurrency", load, params=(("patience", 0.001),)).target == 4

    def test_what_is_in_use_at_this_instant_is_not_given_back(self):
        load = busy(in_flight=4.0, in_flight_now=11, service_time=0.5)
        found = ask("concurrency", load, ready=5)
        assert found.target == 3
        assert found.reason == "in-flight 11 now / target 4 = 2.8 (in use), rounded up"
        assert ask("concurrency", load, ready=2).target == 2
        assert ask("concurrency", load, ready=3, standby=1).target == 2

    def test_at_zero_the_whole_queue_counts(self):
        load = busy(in_flight=0, queued=0.5, in_flight_now=0, queued_now=9)
        found = ask("concurrency", load, ready=0, minimum=0)
        assert found.target == 3
        assert found.reason.startswith("in-flight 0 + queued 9 now / target 4 = 2.2 (nothing serves it yet)")

    def test_the_window_is_a_parameter(self):
        asked = []

        def window(seconds):
            asked.append(seconds)
            return busy(in_flight=1)

        reason = ask("concurrency", window, params=(("window", 60),)).reason
        assert asked == [60]
        assert "over 60 s" in reason

    def test_at_rest_it_asks_to_be_asked_again_until_the_window_is_empty(self):
        fading = LoadWindow(seconds=5.0, in_flight=3.0, rps=2.0)
        assert ask("concurrency", fading, minimum=0).wake_at == 101.0
        assert ask("concurrency", fading, minimum=1).wake_at is None
        assert ask("concurrency", busy(in_flight=9), minimum=0).wake_at is None

    def test_a_target_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="target of metric concurrency must be above 0, not 0"):
            ask("concurrency", busy(), target=0.0)

    @given(
        in_flight=st.floats(0, 500),
        queued=st.floats(0, 500),
        now=st.tuples(st.integers(0, 99), st.integers(0, 99)),
        service_time=st.floats(0, 30),
        ready=st.integers(0, 8),
        target=st.floats(0.1, 64),
    )
    def test_enough_for_the_load_and_never_zero_under_load(
        self, in_flight, queued, now, service_time, ready, target
    ):
        load = LoadWindow(
            seconds=5.0,
            in_flight=in_flight,
            queued=queued,
            in_flight_now=now[0],
            queued_now=now[1],
            service_time=service_time,
        )
        found = ask("concurrency", load, ready=ready, target=target)
        assert found.valid
        assert (found.target + 0.02) * target >= in_flight + queued
        assert (found.target > 0) == bool(in_flight or queued or now[0] or now[1])
        assert found == ask("concurrency", load, ready=ready, target=target)


class TestUtilization:
    @pytest.mark.parametrize(
        ("cpu", "ready", "replicas"),
        [(1.4, 2, 2), (1.5, 2, 2), (1.6, 2, 3), (2.0, 2, 3), (0.6, 4, 2), (0.0, 4, 1)],
    )
    def test_cores_busy_over_cores_allotted(self, cpu, ready, replicas):
        assert ask("utilization", busy(cpu=cpu), ready=ready, cpu=2.0).target == replicas

    def test_one_core_where_none_is_declared(self):
        assert ask("utilization", busy(cpu=0.95), ready=2).target == 3

    def test_the_reason_holds_the_numbers(self):
        assert ask("utilization", busy(cpu=2.0), ready=2, cpu=2.0).reason == (
            "CPU 100% busy on 2 ready / target 70% = 2.9, rounded up"
        )
        assert ask("utilization", busy(cpu=1.4), ready=2, cpu=2.0).reason == (
            "CPU 70% busy on 2 ready / target 70% = 2.0, within 10%: stays at 2"
        )

    def test_starting_replicas_count_before_more_are_added(self):
        found = ask("utilization", busy(cpu=1.0), ready=2, starting=2)
        assert found.target == 4
        assert found.reason.endswith("= 2.9, 2 starting: stays at 4")
        assert ask("utilization", busy(cpu=1.0), ready=4, starting=1).target == 6

    def test_no_measurement_is_no_opinion(self):
        assert ask("utilization", busy(), ready=3).reason == "no CPU measurement yet"
        assert not ask("utilization", busy(), ready=3).valid
        assert not ask("utilization", busy(cpu=0.5), ready=0, starting=2).valid

    def test_zero_is_for_want_of_requests_not_of_usage(self):
        assert ask("utilization", busy(cpu=0.0), minimum=0).target == 1
        idle = LoadWindow(seconds=5.0, cpu=0.9)
        assert ask("utilization", idle, minimum=0).target == 0
        assert ask("utilization", idle, minimum=1).target == 2

    def test_a_request_at_zero_asks_for_one(self):
        found = ask("utilization", busy(queued_now=3, in_flight_now=0), ready=0, pool_target=0, minimum=0)
        assert found.valid
        assert found.target == 1

    def test_standby_is_not_counted_twice(self):
        assert ask("utilization", busy(cpu=0.7), ready=3, standby=1).target == 2


class TestGpu:
    def test_mean_utilisation_over_the_target(self):
        found = ask("gpu", busy(gpu=0.98), ready=2)
        assert found.target == 3
        assert found.reason == "GPU 98% busy on 2 ready / target 70% = 2.8, rounded up"
        assert ask("gpu", busy(gpu=0.3), ready=4, target=0.6).target == 2

    def test_no_measurement_is_no_opinion(self):
        assert ask("gpu", busy(cpu=0.5), ready=2).reason == "no GPU measurement yet"


class TestQueue:
    @pytest.mark.parametrize(
        ("in_flight", "queued", "now", "replicas"),
        [(0.1, 0, 0, 1), (8, 0, 0, 2), (8, 4, 0, 3), (8, 1, 9, 5), (8, 0.1, 0, 3)],
    )
    def test_busy_ones_stay_and_what_waits_comes_on_top(self, in_flight, queued, now, replicas):
        load = busy(in_flight=in_flight, queued=queued, queued_now=now)
        assert ask("queue", load, ready=2).target == replicas

    def test_the_reason_holds_the_numbers(self):
        assert ask("queue", busy(in_flight=8, queued=5), target=10).reason == (
            "in-flight 8.0 over 5 s keeps 2 busy, queued 5.0 / target 10 = 0.5 more, rounded up"
        )


class TestStatic:
    def test_the_same_at_any_load(self):
        for load in (LoadWindow(), REST, busy(in_flight=99)):
            assert ask("static", load, target=3.0).target == 3
            assert ask("static", load, minimum=2).target == 2
        assert ask("static", REST, target=3.0).wake_at is None


def test_only_policies_that_ask_elsewhere_are_asked_to_measure():
    registry = PluginRegistry()
    registry.register("policies", plugin)
    asking = {name for name in registry.names("policy") if isinstance(policy_named(name), MeasuringPolicy)}
    assert asking == {"prometheus"}
