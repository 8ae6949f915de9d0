"""Sweeps change what they name, and refuse what makes no sense."""

from __future__ import annotations

import pytest

from simulate.loads import poisson, service
from stoker.simulate.replay import Case
from stoker.simulate.variants import parse_sweep, varied

CASE = Case(spec=service(low=1, high=8, slots=2), trace=poisson(1, 1.0, 10))


def test_values_come_in_the_order_they_are_written():
    sweep = parse_sweep("target=2,8, 4")
    assert (sweep.name, list(sweep.values)) == ("target", [2, 8, 4])
    assert sweep.label(8) == "target=8"


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("target", 3, lambda case: case.spec.scaling.policies[0].target),
        ("window", 30, lambda case: dict(case.spec.scaling.policies[0].params)["window"]),
        ("scale_down_stabilization_window", 5,
         lambda case: case.spec.scaling.policies[0].scale_down_stabilization_window),
        ("scale_up_stabilization_window", 5,
         lambda case: case.spec.scaling.policies[0].scale_up_stabilization_window),
        ("min_replicas", 3, lambda case: case.spec.scaling.min_replicas),
        ("max_replicas", 3, lambda case: case.spec.scaling.max_replicas),
        ("concurrency", 7, lambda case: case.spec.slots),
        ("startup", 60, lambda case: case.startup),
        ("slo_wait", 9, lambda case: (case.slo_wait + case.spec.slo_wait) / 2),
    ],
)  # fmt: skip
def test_one_value_is_changed_and_nothing_else(name, value, read):
    found = varied(CASE, name, value)
    assert read(found) == value
    assert found.trace is CASE.trace
    assert varied(varied(CASE, name, value + 1), name, value) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target", "is not NAME=VALUE,VALUE"),
        ("targte=2", "did you mean target"),
        ("colour=2", "there are: min_replicas"),
        ("target=2,x", "target must be a number, 0 or more; found 'x'"),
        ("target=nan", "found 'nan'"),
        ("min_replicas=1.5", "must be a whole number, 0 or more; found '1.5'"),
        ("max_replicas=0", "must be a whole number, 1 or more; found '0'"),
    ],
)
def test_a_sweep_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_sweep(text)


def test_bounds_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="min_replicas 9 is more than max_replicas 8"):
        varied(CASE, "min_replicas", 9)
