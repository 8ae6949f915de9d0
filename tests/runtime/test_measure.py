"""What is known of addresses from what routers tell."""

from __future__ import annotations

from stoker.model.event import Event
from stoker.model.state import ObservedState
from stoker.runtime.measure import RouterLink


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
