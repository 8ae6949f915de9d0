"""Loads and services for the tests of the simulator; seeded, so the same each time."""

from __future__ import annotations

import itertools
import random

from stoker.model.service import Command, PolicySpec, Scaling, ServiceSpec, Traffic
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext
from stoker.simulate.trace import Trace
from stoker_policies import plugin


def policy_named(name):
    registry = PluginRegistry()
    registry.register("policies", plugin)
    return registry.factory("policy", name)(PluginContext(instance="t", state_dir="/", runtime_dir="/"))


def service(policy="concurrency", *, low=1, high=8, slots=2, down=60.0, slo_wait=2.0, **more):
    rule = PolicySpec(metric=policy, scale_down_stabilization_window=down)
    return ServiceSpec(
        deployment="d",
        name=more.pop("name", "s"),
        launch=Command(("run",)),
        working_dir="/",
        scaling=Scaling(min_replicas=low, max_replicas=high, policies=(rule,)),
        traffic=Traffic(concurrency=slots),
        slo_wait=slo_wait,
        **more,
    )


def poisson(rate, mean, count, seed=1):
    """Poisson arrivals, exponential service times."""
    source, now, arrivals, services = random.Random(seed), 0.0, [], []
    for _ in range(count):
        now += source.expovariate(rate)
        arrivals.append(now)
        services.append(source.expovariate(1 / mean))
    return Trace(tuple(arrivals), tuple(services))


def trace(*requests):
    return Trace(tuple(at for at, _ in requests), tuple(seconds for _, seconds in requests))


def integral(timeline):
    """Replica-seconds under the plotted curve."""
    return sum((after[0] - before[0]) * sum(before[1:]) for before, after in itertools.pairwise(timeline))
