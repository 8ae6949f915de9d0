"""What is known of addresses from what routers tell."""

from __future__ import annotations

import anyio
import pytest

from stoker.model.event import Event
from stoker.model.state import ObservedState
from stoker.runtime import measure
from stoker.runtime.measure import Asking, RouterLink


def test_an_address_is_opening_until_a_router_listens_there_or_says_why_not() -> None:
    posted: list[Event] = []
    beats: list[int] = []
    link = RouterLink(
        None,  # type: ignore[arg-type]  # no load is told here
        state=ObservedState,
        post=posted.append,
        measured=lambda: beats.append(1),
    )
    addresses = {"rag/a": ("127.0.0.1", 8001), "rag/b": ("127.0.0.1", 8002)}
    assert link.opening(addresses) == ("rag/a", "rag/b")
    link.bound("rag/a", "127.0.0.1", 8001)
    assert beats, "nobody who waits hears of it"
    link.trouble("rag/b", "127.0.0.1:8002 is taken")
    assert link.opening(addresses) == ()
    assert link.opening({"rag/a": ("127.0.0.1", 9001)}) == ("rag/a",), "another port is another address"
    link.bound("rag/b", "127.0.0.1", 8002)
    assert [event.message for event in posted] == ["127.0.0.1:8002 is taken", "127.0.0.1:8002 is open now"]  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_who_asks_while_another_waits_shares_the_next_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "APART", 0.0)
    asking, begun, go, count, answered = Asking(), anyio.Event(), anyio.Event(), 0, 0

    async def slow() -> None:
        nonlocal count
        count += 1
        begun.set()
        await go.wait()

    async def ask() -> None:
        nonlocal answered
        await asking.ask(slow)
        answered += 1

    monkeypatch.setattr(measure, "PATIENCE", 3600.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await begun.wait()
        for _ in range(5):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert (count, answered) == (1, 0), "what happened after the first had begun is not in it"
        go.set()
    assert (count, answered) == (2, 6)


@pytest.mark.anyio
async def test_a_router_that_does_not_answer_costs_only_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PATIENCE", 0.01)
    with anyio.fail_after(60):
        await Asking().ask(anyio.sleep_forever)
