"""Events keep their order, their ids and their causes."""

from __future__ import annotations

import anyio
import pytest

from stoker.model.event import ConfigApplied, Notice, ReplicaAdded, ReplicaForgotten, StartRequested
from stoker.runtime.journal import Journal

pytestmark = pytest.mark.anyio


def journal(keep: int = 100) -> Journal:
    return Journal(lambda: 1000.0, keep=keep)


def test_recording_stamps_id_time_and_wall_clock():
    stamped = journal().record(Notice(message="x"), now=5.0)
    assert (stamped.id, stamped.at, stamped.wall) == ("e1", 5.0, 1000.0)


def test_an_event_that_knows_its_time_keeps_it():
    assert journal().record(Notice(message="x", at=3.0), now=5.0).at == 3.0


@pytest.mark.parametrize(
    ("after", "expected"), [("", [1, 2, 3]), ("e1", [2, 3]), ("e3", []), ("nonsense", [1, 2, 3])]
)
def test_recent_gives_what_came_after(after, expected):
    kept = journal()
    for _ in range(3):
        kept.record(Notice(message="x"), now=1.0)
    assert [int(event.id[1:]) for event in kept.recent(after)] == expected


def test_recent_after_an_event_that_was_dropped_gives_all_that_is_kept():
    kept = journal(keep=2)
    for _ in range(5):
        kept.record(Notice(message="x"), now=1.0)
    assert [event.id for event in kept.recent("e1")] == ["e4", "e5"]
    assert [event.id for event in kept.recent("e4")] == ["e5"]


def test_a_story_holds_the_replicas_events_and_what_caused_them_only():
    kept = journal()
    config = kept.record(ConfigApplied(generation=1), now=1.0)
    kept.record(ReplicaAdded(replica="other", service="a/b", revision="r"), now=1.0)
    added = kept.record(ReplicaAdded(replica="mine", service="a/b", revision="r", cause=config.id), now=1.0)
    kept.record(Notice(message="unrelated"), now=1.0)
    start = kept.record(StartRequested(replica="mine", service="a/b", cause=added.id), now=2.0)
    gone = kept.record(ReplicaForgotten(replica="mine", service="a/b"), now=3.0)
    assert kept.story("mine") == [config, added, start, gone]
    assert kept.story("nobody") == []


async def test_followers_get_kept_events_and_then_new_ones_in_order():
    kept = journal()
    kept.record(Notice(message="0"), now=1.0)
    seen: list[str] = []

    async def follow() -> None:
        async for event in kept.follow():
            assert isinstance(event, Notice)
            seen.append(event.message)
            if len(seen) == 30:
                return

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for number in range(1, 30):
                kept.record(Notice(message=str(number)), now=1.0)
                if number % 7 == 0:
                    await anyio.wait_all_tasks_blocked()
    assert seen == [str(number) for number in range(30)]


async def test_a_slow_follower_misses_the_oldest_but_never_sees_one_twice():
    kept = journal(keep=5)
    seen: list[int] = []

    async def follow() -> None:
        async for event in kept.follow():
            seen.append(int(event.id[1:]))
            if event.id == "e20":
                return
            await anyio.wait_all_tasks_blocked() if len(seen) == 1 else None

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            kept.record(Notice(message="x"), now=1.0)
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            for _ in range(19):
                kept.record(Notice(message="x"), now=1.0)
    assert seen[-1] == 20
    assert seen == sorted(set(seen))
