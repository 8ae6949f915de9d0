"""The policy is a pure function of values: no daemon is needed to try it."""

import pytest
from stoker_arrivals import Arrivals

from stoker.model.load import LoadWindow, PoolState
from stoker.model.service import Command, PolicySpec, ServiceSpec
from stoker.plugin.ports import PolicyInput

SERVICE = ServiceSpec(deployment="d", name="s", launch=Command(("run",)), working_dir="/")


def decide(load, target=None):
    policy = PolicySpec(metric="arrivals", target=target)
    pool = PoolState(ready=2, target=2)
    return Arrivals().decide(
        PolicyInput(service=SERVICE, policy=policy, window=lambda _: load, pool=pool, now=0.0)
    )


@pytest.mark.parametrize(("rps", "expected"), [(0.0, 0), (1.0, 1), (20.0, 1), (20.1, 2), (95.0, 5)])
def test_one_replica_for_each_twenty_a_second(rps, expected):
    assert decide(LoadWindow(seconds=30.0, rps=rps), target=20).target == expected


def test_without_data_it_has_no_opinion():
    assert not decide(LoadWindow()).valid


def test_the_reason_has_the_numbers():
    assert decide(LoadWindow(seconds=30.0, rps=41.0), target=20).reason == (
        "41 requests/s over 30 s / target 20, rounded up"
    )
