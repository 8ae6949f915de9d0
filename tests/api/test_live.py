"""The page's stream and the hour before it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from api.fakes import GPU, FakeDaemon, Served, past, snapshot
from api.wire import Connection, get
from stoker.api import live
from stoker.api.facade import LevelPoint, LoadPoint, ServiceHistory, ServiceLoad
from stoker.api.history import history_document
from stoker.api.live import Feed, changes, live_parts
from stoker.model.event import Notice
from stoker.runtime.history import LevelHistory, load_points


def parsed(message: bytes) -> tuple[str, dict[str, Any]]:
    if message.startswith(b":"):
        return "alive", {}
    kind, data = message.decode().strip().split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def simulate(function: Any) -> None:
    """Run on a virtual clock, with a stack for readers."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            await function(stack)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def reader_of(feed: Feed, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    """One more reader, closed at the end."""
    return await stack.enter_async_context(aclosing(feed.messages()))


QUIET: dict[str, Any] = {"loads": {}}


def test_a_reader_gets_the_whole_state_then_what_changes() -> None:
    daemon = FakeDaemon(state=snapshot(**QUIET))

    async def run(stack: AsyncExitStack) -> None:
        messages = await reader_of(Feed(daemon), stack)
        kind, state = parsed(await anext(messages))
        assert kind == "state"
        assert [service["name"] for service in state["services"]] == ["tokenize", "infer"]
        assert [event["id"] for event in state["events"]] == ["e1", "e2", "e3", "e4", "e5"]
        busy = snapshot(loads={"rag/infer": ServiceLoad(in_flight=1, rps=2.0)})
        daemon.state = busy
        daemon.happen(Notice(message="hello"))
        kind, change = parsed(await anext(messages))
        assert kind == "change"
        assert [service["name"] for service in change["services"]] == ["infer"]
        assert [event["message"] for event in change["events"]] == ["hello"]
        assert not {"devices", "daemon", "order"} & set(change)

    simulate(run)


def test_time_alone_changes_nothing_and_silence_is_a_sign_of_life() -> None:
    daemon = FakeDaemon(state=snapshot(**QUIET))

    async def run(stack: AsyncExitStack) -> None:
        messages = await reader_of(Feed(daemon), stack)
        await anext(messages)
        daemon.state = replace(daemon.state, now=daemon.state.now + 5, wall=daemon.state.wall + 5)
        begun = trio.current_time()
        assert parsed(await anext(messages))[0] == "alive"
        assert trio.current_time() - begun == pytest.approx(live.SIGN_OF_LIFE)

    simulate(run)


def test_a_storm_of_changes_is_one_message_a_second_made_once_for_all_readers() -> None:
    daemon = FakeDaemon(state=snapshot(**QUIET))

    async def run(stack: AsyncExitStack) -> None:
        feed = Feed(daemon)
        readers = [await reader_of(feed, stack) for _ in range(50)]
        for reader in readers:
            await anext(reader)
        heard: list[list[bytes]] = [[] for _ in readers]

        async def read(number: int) -> None:
            async for message in readers[number]:
                heard[number].append(message)

        async with trio.open_nursery() as nursery:
            for number in range(len(readers)):
                nursery.start_soon(read, number)
            for number in range(1000):
                daemon.happen(Notice(message=f"n{number}"))
                await trio.sleep(0.01)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        assert 9 <= len(heard[0]) <= 12
        assert all(other == heard[0] for other in heard)
        assert len({id(message) for messages in heard for message in messages}) == len(heard[0])
        told = [event["message"] for message in heard[0] for event in parsed(message)[1]["events"]]
        assert told == [f"n{number}" for number in range(1000)]

    simulate(run)


def test_a_slow_reader_gets_the_whole_state_again() -> None:
    daemon = FakeDaemon(state=snapshot(**QUIET))

    async def run(stack: AsyncExitStack) -> None:
        feed = Feed(daemon)
        slow, quick = await reader_of(feed, stack), await reader_of(feed, stack)
        await anext(slow)
        await anext(quick)
        for number in range(live.KEPT + 2):
            daemon.happen(Notice(message=f"n{number}"))
            await anext(quick)
        kind, state = parsed(await anext(slow))
        assert kind == "state"
        assert state["events"][-1]["message"] == f"n{live.KEPT + 1}"

    simulate(run)


def test_new_points_are_told_once() -> None:
    daemon = FakeDaemon(state=snapshot(**QUIET))

    async def run(stack: AsyncExitStack) -> None:
        messages = await reader_of(Feed(daemon), stack)
        await anext(messages)
        for at in (100.5, 101.5):
            point = LoadPoint(at=at, seconds=1.0, in_flight=2.0)
            daemon.past["rag/infer"] = ServiceHistory(load=[*daemon.past["rag/infer"].load, point])
            daemon.pulse.beat()
            _, change = parsed(await anext(messages))
            assert change["history"]["rag/infer"]["load"]["t"] == [1_700_000_000 + at]

    simulate(run)


def test_changes_name_services_that_came_and_went() -> None:
    before = live_parts(snapshot())
    after = live_parts(snapshot(addresses={}))
    assert [s["name"] for s in changes(before, after)["services"]] == ["tokenize", "infer"]
    del after["services"]["rag/tokenize"]
    assert changes(before, after)["order"] == ["rag/infer"]
    assert changes(before, before) == {}


def test_nothing_in_the_live_state_moves_with_time() -> None:
    first = snapshot()
    later = replace(first, now=first.now + 1000, wall=first.wall + 1000)
    assert live_parts(first) == live_parts(later)


def test_the_stream_and_the_history_over_the_socket(live: Served) -> None:
    connection = Connection(live.socket)
    connection.request("GET", "/v1/live")
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.readline() == b"event: state\n"
    assert json.loads(answer.readline().removeprefix(b"data: "))["devices"][0]["uuid"] == GPU
    connection.close()
    hour = get(live.socket, "/v1/history")
    assert hour["services"]["rag/infer"]["levels"]["target"] == [1, 2]
    assert len(hour["services"]["rag/infer"]["load"]["t"]) == 50
    recent = get(live.socket, "/v1/history?seconds=20")
    assert len(recent["services"]["rag/infer"]["load"]["t"]) == 9


def test_an_hour_of_twenty_busy_services_is_small() -> None:
    """Measured as the daemon keeps it: two minutes each second, the rest each ten."""
    load = [
        LoadPoint(
            at=n * 10.0,
            seconds=10.0,
            in_flight=n / 7,
            queued=n / 3,
            rps=n / 1.1,
            p50_ms=n * 1.01,
            p99_ms=n * 9.7,
        )
        for n in range(350)
    ] + [
        LoadPoint(at=3500.0 + n, seconds=1.0, in_flight=n / 7, rps=n / 1.7, p50_ms=3.3, p99_ms=9.9)
        for n in range(120)
    ]
    levels = [LevelPoint(at=n * 2.0, target=n % 9, ready=n % 8, replicas=n % 9) for n in range(1800)]
    hour = {f"app/service-{n}": ServiceHistory(load=load, levels=levels) for n in range(20)}
    document = history_document(hour, 1_700_000_000.25)
    assert len(json.dumps(document, separators=(",", ":"))) < 2_000_000


def test_points_of_a_pool_at_rest_end_in_zero() -> None:
    from stoker.decide.demand import LoadHistory
    from stoker.model.load import LoadSample

    history = LoadHistory()
    for n in range(1, 4):
        history = history.add(
            LoadSample(service="a/b", start=n - 1.0, end=float(n), in_flight=3 - n, in_flight_seconds=4.0 - n,
                       arrivals=1, latency={0.1: 1})
        )  # fmt: skip
    points = load_points(history, 0.0, 3.0)
    assert [point.in_flight for point in points if point.seconds][-1] == 1.0
    assert points[-1].seconds == 0 == points[-1].in_flight
    assert load_points(history, 3.0, 3.0) == []


def test_levels_are_written_when_something_changes_and_are_bounded() -> None:
    from stoker.model.event import ReplicaBecameReady
    from stoker.runtime.history import MOST

    box = [snapshot()]
    levels = LevelHistory(state=lambda: box[0].observed, desired=lambda: box[0].desired)
    for n in range(3 * MOST):
        flip = {"rag/infer": n % 2 + 1}
        box[0] = snapshot(observed=replace(box[0].observed, targets=flip))
        levels.observe(ReplicaBecameReady(replica="infer-k3x9", service="rag/infer", at=n * 3.0))
    points = levels.points("rag/infer")
    assert len(points) <= MOST
    assert points[-1].at - points[0].at >= 3600
    assert {point.target for point in points} == {1, 2}
    assert (points[-1].ready, points[-1].replicas) == (1, 2)
    assert levels.points("rag/infer", since=points[-2].at) == points[-1:]
    assert levels.points("rag/none") == []
    assert past()


def test_what_happens_between_two_messages_is_told_once_to_a_new_reader() -> None:
    daemon = FakeDaemon(state=snapshot(**QUIET))

    async def run(stack: AsyncExitStack) -> None:
        feed = Feed(daemon)
        await anext(await reader_of(feed, stack))
        daemon.happen(Notice(message="in between"))
        late = await reader_of(feed, stack)
        _, state = parsed(await anext(late))
        kind, change = parsed(await anext(late))
        assert kind == "change"
        ids = [event["id"] for event in (*state["events"], *change["events"])]
        assert ids == ["e1", "e2", "e3", "e4", "e5", "e6"]

    simulate(run)
