"""What policies want to know from elsewhere: asked in time, kept, failures said once; nothing for others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from stoker.errors import PluginError, StokerError
from stoker.model.event import Event, Notice
from stoker.model.load import Decision
from stoker.model.service import PolicySpec, ServiceSpec
from stoker.model.state import DesiredState
from stoker.plugin.ports import Policy, PolicyInput
from stoker.runtime.readings import Readings
from worlds import make_spec, wanting

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    """A clock that jumps over waiting."""
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Plain:
    """A policy that needs nothing from elsewhere."""

    def decide(self, given: PolicyInput) -> Decision:
        raise NotImplementedError


class Tide(Plain):
    """Answers with the serial number of the question, or as the test says."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.fault: Exception | None = None
        self.delay = 0.0

    async def measure(self, rule: PolicySpec) -> float:
        self.asked.append(anyio.current_time())
        await anyio.sleep(self.delay)
        if self.fault is not None:
            raise self.fault
        return float(len(self.asked))


class World:
    def __init__(self, *specs: ServiceSpec) -> None:
        self.desired = wanting(*specs)
        self.tide = Tide()
        self.posted: list[Event] = []
        self.answered: list[str] = []
        self.changed = anyio.Event()
        self.readings = Readings(
            policy=self.policy,
            desired=lambda: self.desired,
            post=self.posted.append,
            answered=self.answered.append,
        )

    def policy(self, metric: str) -> Policy:
        if metric == "missing":
            raise PluginError("no such policy")
        return self.tide if metric == "tide" else Plain()

    def configure(self, desired: DesiredState) -> None:
        self.desired, changed, self.changed = desired, self.changed, anyio.Event()
        changed.set()

    def said(self) -> list[str]:
        return [event.message for event in self.posted if isinstance(event, Notice)]


def ruled(name: str, *rules: PolicySpec) -> ServiceSpec:
    spec = make_spec(name)
    return replace(spec, scaling=replace(spec.scaling, policies=rules))


TIDE = PolicySpec(metric="tide", target=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(ruled("a", TIDE, PolicySpec()), ruled("b", PolicySpec(), PolicySpec(metric="missing")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.readings.run, lambda: made.changed)
        yield made
        tasks.cancel_scope.cancel()


async def test_a_rule_is_asked_at_once_and_every_period(world: World) -> None:
    began = anyio.current_time()
    await anyio.sleep(31)
    assert [round(at - began) for at in world.tide.asked] == [0, 15, 30]
    (key,) = {*world.answered}
    reading = world.readings.of(key, TIDE)
    assert reading is not None
    assert (reading.value, round(reading.at - began)) == (3.0, 30)
    assert world.readings.of("demo/b", TIDE) is None
    assert world.said() == []


async def test_a_change_of_the_configuration_counts_at_once(world: World) -> None:
    await anyio.sleep(1)
    quick = replace(TIDE, params=(("period", 2.0),))
    world.configure(wanting(ruled("a", quick)))
    await anyio.sleep(5)
    assert len(world.tide.asked) == 4
    world.configure(wanting(ruled("a", PolicySpec())))
    await anyio.sleep(3600)
    assert len(world.tide.asked) == 4, "nobody wants to know any more"


async def test_a_failure_is_said_once_and_the_last_answer_is_kept(world: World) -> None:
    await anyio.sleep(1)
    (key,) = world.answered
    kept = world.readings.of(key, TIDE)
    world.tide.fault = StokerError("the moon is away")
    await anyio.sleep(60)
    assert world.said() == ["metric tide cannot be read: the moon is away"]
    assert world.readings.of(key, TIDE) == kept
    world.tide.fault = ZeroDivisionError("by a stranger")
    await anyio.sleep(60)
    assert world.said()[1:] == ["metric tide cannot be read: ZeroDivisionError: by a stranger"]
    world.tide.fault = None
    await anyio.sleep(60)
    assert world.readings.of(key, TIDE) != kept
    assert len(world.said()) == 2


async def test_one_that_hangs_costs_itself_alone(world: World) -> None:
    world.tide.delay = 1e6
    await anyio.sleep(100)
    assert world.said() == ["metric tide cannot be read: no answer within 10 s"]
    assert len(world.tide.asked) == 4, "asked again 15 s after each"
