"""Thousands of random schedules. `STOKER_SCHEDULES=10000` says how many of each kind; without it a few."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from simulation.schedules import FAULTS, GPU_FAULTS, OWN_DOING, Schedule, World, play
from stoker.model.event import DeviceHealthChanged

MANY = int(os.environ.get("STOKER_SCHEDULES", "0"))
ANY_TIME = settings(
    max_examples=MANY or 100,
    deadline=None,
    derandomize=not MANY,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
NUMBERS = st.integers(0, 359)
STOPPED: Schedule = [
    (World.update, 152), (World.request, 197), (World.silence_nvml, 1), (World.request, 89),
    (World.request, 37),
]  # fmt: skip
"""A daemon took a worker over that the one before had told to stop, and sent it requests, in one of three."""


def told(schedule: Schedule) -> None:
    for deed, number in schedule:
        note(f"{deed.__name__}({number})")


@pytest.mark.slow
@pytest.mark.timeout(0 if MANY else 240)
@ANY_TIME
@given(st.lists(st.tuples(st.sampled_from(FAULTS), NUMBERS), min_size=4, max_size=30))
def test_whatever_happens_no_law_is_broken_and_all_comes_right(schedule: Schedule) -> None:
    told(schedule)
    play(schedule)


@pytest.mark.slow
@pytest.mark.timeout(0 if MANY else 240)
@ANY_TIME
@given(st.lists(st.tuples(st.sampled_from(GPU_FAULTS), NUMBERS), min_size=4, max_size=30))
def test_no_device_has_two_owners_is_missing_or_is_freed_early(schedule: Schedule) -> None:
    told(schedule)
    play(schedule)


@pytest.mark.slow
@pytest.mark.timeout(0 if MANY else 240)
@ANY_TIME
@given(st.lists(st.tuples(st.sampled_from(OWN_DOING), NUMBERS), min_size=4, max_size=30))
# A daemon that took over and drained a worker before it had told the router anything took it for unused.
@example([(World.request, 254), (World.lose_words, 295), (World.die, 0), (World.request, 254)])
@example(STOPPED)
@example(STOPPED)
@example(STOPPED)
def test_no_request_suffers_by_what_stoker_does_itself(schedule: Schedule) -> None:
    told(schedule)
    world = play(schedule)
    assert world.refused == []
    assert world.simulation.router.cut == 0


def test_schedules_reach_every_corner() -> None:
    """Guards the properties above from holding because nothing happens in them."""
    chance, seen, lives = random.Random(5), Counter[str](), 0
    for _ in range(25):
        world = play([(chance.choice(FAULTS), chance.randrange(360)) for _ in range(25)])
        seen.update(type(event).__name__ for event in world.events)
        lives += world.lives
    assert lives > 50, "daemons died and came again"
    assert seen.keys() >= {
        "WorkerAdopted", "WorkerLost", "LivenessFailed", "KillSignalled", "SpawnFailed", "ReplicaDrained",
        "RevisionAccepted", "RevisionRejected", "DemandArrived", "InventoryChanged", "TargetChanged",
    }  # fmt: skip


def test_schedules_of_devices_reach_every_corner() -> None:
    corners = {
        "app", "device", "fatal", "link", "memory", "note", "cordoned", "released", "None", "condemned",
        "lingering",
    }  # fmt: skip
    chance, seen, health = random.Random(7), Counter[str](), Counter[str]()
    for number in range(40):
        if number >= 20 and seen.keys() >= corners:
            break  # how a schedule goes depends on more than its seed: some corners are not in each twenty
        world = play([(chance.choice(GPU_FAULTS), chance.randrange(360)) for _ in range(25)])
        seen.update(world.ward.seen)
        health.update(event.health for event in world.events if isinstance(event, DeviceHealthChanged))
    assert seen.keys() >= corners
    assert health.keys() >= {
        "healthy", "unreachable", "draining", "quarantined", "probation", "lost",
    }  # fmt: skip
