"""What was declared is the same after it was written down, to the type of each number."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.model.action import Plan
from stoker.model.door import Door, DoorRule, Tls
from stoker.model.plain import from_plain, to_plain
from stoker.model.service import (
    BentoService,
    BoxSpec,
    Command,
    DesiredState,
    Elsewhere,
    Endpoint,
    PolicySpec,
    Probe,
    Probes,
    PythonTarget,
    Resources,
    Scaling,
    ServiceSpec,
    revision,
)
from stoker.model.state import Rejection
from worlds import make_spec

SPEC = ServiceSpec(deployment="d", name="s", launch=Command(("run", "{port}")), working_dir="/srv")


def again(value: Any) -> Any:
    """The value as the next daemon has it."""
    return from_plain(json.loads(json.dumps(to_plain(value))))


@pytest.mark.parametrize(
    "value",
    [
        SPEC,
        make_spec("x", gpu=0.5),
        replace(SPEC, launch=PythonTarget("a:b"), envs=(("A", "1"), ("$", "2")), umask=0),
        replace(SPEC, launch=BentoService(bento="b", service="s", config='{"x": 1}')),
        replace(SPEC, probes=Probes(startup=Probe(http="/"), liveness=Probe(exec=("a", "b")))),
        replace(SPEC, scaling=Scaling(policies=(PolicySpec(params=(("window", 5.0), ("on", True))),))),
        replace(SPEC, elsewhere=Elsewhere(resources=Resources(cpu=1.5), custom=(("x", 2.0),))),
        replace(SPEC, endpoint=Endpoint(port=80, tls=Tls(cert="c", key="k")), secret_versions=(("s", 2),)),
        DesiredState(
            services={"d/s": SPEC},
            box=BoxSpec(idle="fill"),
            generation=3,
            doors=(Door(host="::1", port=1, rules=(DoorRule(service="d/s"),)),),
        ),
        Rejection(revision="1", back_on="2", reason="it hung", wall=1.5),
        None,
    ],
)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert again(value) == value
    assert repr(again(value)) == repr(value)


@given(
    gpu=st.sampled_from([0, 0.0, 1, 1.0, 0.5]),
    cpu=st.sampled_from([None, 1, 1.0]),
    numbers=st.lists(st.sampled_from([0, 0.0, False, 60, 60.0]), max_size=3),
)
def test_a_revision_stays_the_same_also_for_numbers_that_only_look_different(
    gpu: Any, cpu: Any, numbers: list[Any]
) -> None:
    policies = tuple(PolicySpec(target=one, scale_down_stabilization_window=one) for one in numbers)
    spec = replace(SPEC, resources=Resources(gpu=gpu, cpu=cpu), scaling=Scaling(policies=policies))
    assert repr(again(spec)) == repr(spec)
    assert revision(again(spec)) == revision(spec)


def test_what_is_at_its_default_is_not_written() -> None:
    assert to_plain(SPEC) == {
        "$": "ServiceSpec",
        "deployment": "d",
        "name": "s",
        "launch": {"$": "Command", "argv": ["run", "{port}"]},
        "working_dir": "/srv",
    }


@pytest.mark.parametrize("value", [Plan(), object(), {"$": "Command"}, b"x"])
def test_what_is_not_declared_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        to_plain(value)


@pytest.mark.parametrize("data", [{"$": "Nobody"}, {"$": "Command"}, {"$": "Command", "argv": [], "x": 1}])
def test_what_it_cannot_have_written_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, KeyError)):
        from_plain(data)
