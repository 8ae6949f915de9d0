"""Which traced requests stand for the others of their length."""

from __future__ import annotations

from typing import Any

from stoker.model.trace import RequestSpan, SpanBatch
from stoker.runtime.exemplars import Exemplars


def span(trace: str, seconds: float, service: str = "d/a", arrived: float = 10.0) -> RequestSpan:
    rest: dict[str, Any] = dict.fromkeys(
        ("span", "parent", "method", "path", "host", "client", "agent", "worker"), ""
    )
    times = {"arrived": arrived, "waited": 0.0, "began": arrived, "ended": arrived + seconds}
    return RequestSpan(trace=trace, service=service, status=200, tries=1, **times, **rest)


def test_the_newest_of_each_length_is_kept_with_the_time_of_its_end() -> None:
    kept = Exemplars()
    kept.take(SpanBatch((span("slow", 8.0), span("old", 0.1), span("new", 0.1, arrived=20.0))), 1000.0)
    (slow, new) = kept.of({"d/a": None})["d/a"]
    assert (slow.trace, slow.at) == ("slow", 1018.0)
    assert (new.trace, round(new.seconds, 6), round(new.at, 6)) == ("new", 0.1, 1020.1)


def test_services_that_are_gone_are_forgotten_and_memory_is_bounded() -> None:
    kept = Exemplars()
    kept.take(SpanBatch(tuple(span(str(n), n / 100, service="d/b") for n in range(5000))), 0.0)
    assert len(kept.of({"d/b": None})["d/b"]) < 100
    assert kept.of({}) == kept.of({"d/b": None}) == {}
