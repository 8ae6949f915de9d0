"""What comes every hour is expected; what came once, or does not come again, is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulate.loads import policy_named, service
from stoker.simulate.replay import Case, replay
from stoker.simulate.trace import Trace
from stoker_policies import recurrence


def watched(hours, rush, *, quiet=2.0):
    """A memory after so many hours with `rush(hour)` slots in the minute from 600 s on."""
    memory = recurrence.fresh()
    for now in range(0, hours * 3600, 5):
        level = rush(now // 3600) if 600 <= now % 3600 < 660 else quiet
        recurrence.observe(memory, float(now), 5.0, now + 5.0, level=level, load=level)
    return memory


def test_twice_is_a_habit():
    memory = watched(2, lambda hour: 10.0)
    assert recurrence.expected(memory, 2 * 3600 + 620, 2 * 3600 + 630) == pytest.approx(10, rel=0.3)
    assert recurrence.expected(memory, 2 * 3600 + 1800, 2 * 3600 + 1810) == pytest.approx(2, rel=0.3)


def test_once_is_chance():
    memory = watched(2, lambda hour: 10.0 if hour else 2.0)
    assert recurrence.expected(memory, 2 * 3600 + 620, 2 * 3600 + 630) < 4


def test_a_habit_that_ends_is_forgotten():
    memory = watched(5, lambda hour: 10.0 if hour < 3 else 2.0)
    assert recurrence.expected(memory, 5 * 3600 + 620, 5 * 3600 + 630) < 4


def test_it_grows_with_the_load_around_it():
    quiet, busy = watched(2, lambda hour: 10.0), watched(2, lambda hour: 10.0)
    busy["steady"] *= 2
    at = 2 * 3600 + 620
    assert recurrence.expected(busy, at, at) == pytest.approx(2 * recurrence.expected(quiet, at, at))


def test_hours_in_which_nobody_looked_saw_nothing():
    memory = watched(2, lambda hour: 10.0)
    recurrence.observe(memory, 4 * 3600.0, 5.0, 4 * 3600.0, level=0.0, load=0.0)
    assert recurrence.expected(memory, 4 * 3600 + 620, 4 * 3600 + 630) == 0


def test_the_memory_is_json_and_is_never_changed_in_place():
    memory = watched(2, lambda hour: 10.0)
    again = json.loads(json.dumps(memory))
    assert again == memory
    kept = {**memory}
    recurrence.observe(again, 7300.0, 5.0, 7300.0, level=3.0, load=3.0)
    recurrence.observe(memory, 7300.0, 5.0, 7300.0, level=3.0, load=3.0)
    assert kept["latest"] == json.loads(json.dumps(kept["latest"]))
    assert kept["latest"] is not memory["latest"]


def hourly(hours):
    """A request every 5 s, and for a minute of each hour 6 more a second."""
    rows = [float(at) for at in range(0, hours * 3600, 5)]
    rows += [hour * 3600 + 1000 + i / 6 for hour in range(hours) for i in range(360)]
    rows.sort()
    return Trace(tuple(rows), (1.5,) * len(rows))


def test_replicas_are_ready_when_the_hour_comes_again():
    load = hourly(5)
    spec = service("foresight", low=1, high=12, slots=2, down=0.0)
    case = Case(spec=spec, trace=load, startup=60.0, slo_wait=2.0)
    found = replay([case], policy_named)[0]
    late = [int(at // 3600) for at, wait in zip(load.arrivals, found.waits, strict=True) if wait > 2.0]
    assert late.count(0) > 100
    assert late.count(3) + late.count(4) < 30


def test_a_service_at_rest_wakes_for_what_comes_every_hour():
    rows = [hour * 3600 + 1000 + i / 6 for hour in range(5) for i in range(360)]
    load = Trace(tuple(rows), (1.5,) * len(rows))
    spec = service("foresight", low=0, high=12, slots=2, down=0.0)
    found = replay([Case(spec=spec, trace=load, startup=60.0, slo_wait=2.0)], policy_named)[0]
    late = [int(at // 3600) for at, wait in zip(load.arrivals, found.waits, strict=True) if wait > 2.0]
    assert late.count(0) > 200
    assert late.count(4) < 60


def looked_through(memory, now, ahead):
    """`next_time` as it is defined: bin by bin through the whole hour."""
    first = int((now + ahead + recurrence.EARLY) / recurrence.BIN) + 1
    for place in range(first, first + recurrence.BINS):
        at = place % recurrence.BINS
        if min(memory["latest"][at], memory["former"][at]) > 1:
            return place * recurrence.BIN - ahead - recurrence.EARLY
    return None


@given(
    seen=st.lists(
        st.tuples(
            st.sampled_from([1.0, 5.0, 10.0, 300.0, 3600.0, 9000.0]), st.sampled_from([0.0, 0.01, 8.0])
        ),
        min_size=1,
        max_size=60,
    ),
    ahead=st.floats(0, 4000),
    resumed=st.booleans(),
)
def test_what_comes_next_is_what_looking_through_the_hour_finds(seen, ahead, resumed):
    memory, now = recurrence.fresh(), 0.0
    for seconds, load in [*seen, *seen, *seen]:
        now += seconds
        recurrence.observe(memory, now, seconds, now, level=0.1, load=load)
        if resumed:  # a memory that a version without this index has left
            memory.pop("again", None)
        assert recurrence.next_time(memory, now, ahead) == looked_through(memory, now, ahead)
