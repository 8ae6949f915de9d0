"""The numbers that the daemon scales by: exact, complete, comparable, and silent at rest."""

import asyncio
import os
import time
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from plugins.router.harness import (
    SERVICE,
    Facts,
    Router,
    client,
    get,
    linked,
    post,
    program,
    together,
    until,
    worker,
)
from stoker.model.load import LoadSample
from stoker.plugin.ports import PluginContext
from stoker_router.access import AccessLog
from stoker_router.exchange import Exchange
from stoker_router.meter import BOUNDS
from stoker_router.reports import SOON, Reports
from stoker_router.service import Service
from stoker_router.table import RouteConfig

pytestmark = pytest.mark.anyio


def balanced(facts: Facts) -> bool:
    """arrivals = answers + in flight + queued."""
    last = facts.samples[-1]
    return facts.total("arrivals") == sum(facts.codes().values()) + last.in_flight + last.queued


async def test_areas_are_the_time_that_requests_really_took(router: Router) -> None:
    """Three requests, one slot: the worker and the clients look at their own clocks."""
    spans: list[float] = []

    async def handle(heard, reader, writer) -> None:
        began = time.monotonic()
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        spans.append(time.monotonic() - began)

    async def timed(port: int) -> float:
        began = time.monotonic()
        await get(port)
        return time.monotonic() - began

    async with worker("w", handle) as w:
        port = await router.route(w.route(1))
        totals = await together(*(timed(port) for _ in range(3)))
    await router.settled(3)
    served, total = sum(spans), sum(totals)
    in_flight, queued = router.facts.total("in_flight_seconds"), router.facts.total("queued_seconds")
    # what the router sees lies between what the worker and what the clients see
    assert served <= in_flight <= in_flight + queued <= total
    assert in_flight + queued >= total - 0.1
    assert queued == pytest.approx(0.6, abs=0.1)
    assert router.facts.total("service_seconds") == pytest.approx(in_flight, abs=1e-6)
    assert router.facts.total("wait_seconds") == pytest.approx(queued, abs=1e-6)
    assert router.facts.total("completions") == 3


async def test_counts_and_classes_and_buckets(router: Router) -> None:
    async def handle(heard, reader, writer) -> None:
        await asyncio.sleep(float(heard.query.get("ms", 0)) / 1000)
        writer.write(f"HTTP/1.1 {heard.path[1:]} x\r\nContent-Length: 0\r\n\r\n".encode())

    async with worker("w", handle) as w:
        port = await router.route(w.route(None))
        for path in ("/200", "/201", "/302?ms=60", "/404", "/500?ms=300", "/503"):
            await get(port, path)
        async with client(port) as c:
            c.get("/200?ms=1000")
            await until(lambda: w.busy == 1)
            c.abort()
    await router.settled(7)
    assert router.facts.codes() == {"2xx": 2, "3xx": 1, "4xx": 1, "5xx": 2, "aborted": 1}
    assert router.facts.total("completions") == 6
    buckets: dict[float, int] = {}
    for sample in router.facts.samples:
        for bound, count in sample.latency.items():
            buckets[bound] = buckets.get(bound, 0) + count
    assert sum(buckets.values()) == 6
    assert set(buckets) <= {*BOUNDS, float("inf")}
    assert sum(count for bound, count in buckets.items() if bound >= 0.3) >= 1
    assert sum(count for bound, count in buckets.items() if bound >= 0.06) >= 2


async def test_the_routers_own_answers_are_counted_but_are_no_completions(router: Router) -> None:
    port = await router.route(max_queue=0)
    assert (await get(port)).status == 503
    await router.route(max_queue=10, timeout=0.1)
    assert (await get(port)).status == 504
    await router.route(max_concurrency=0)
    assert (await get(port)).status == 429
    await router.settled(3)
    assert router.facts.codes() == {"4xx": 1, "5xx": 2}
    assert router.facts.total("completions") == router.facts.total("service_seconds") == 0
    assert balanced(router.facts)


async def test_what_is_no_request_is_no_arrival(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1))
        async with client(port) as c:
            c.send("nonsense\r\n\r\n")
            assert (await c.answer()).status == 400
        await get(port)
    await router.settled(1)
    assert router.facts.codes() == {"2xx": 1}


async def test_a_sample_a_second_while_there_is_load_and_one_more_after_it(fresh: PluginContext) -> None:
    async with worker("w") as w, linked(fresh) as router:
        port = await router.route(w.route(1))
        w.gate.clear()
        pending = [asyncio.ensure_future(get(port)) for _ in range(3)]
        await until(lambda: sum(sample.in_flight > 0 for sample in router.facts.samples) >= 2)
        now = time.monotonic()
        last = router.newest()
        assert (last.in_flight, last.queued, last.workers) == (1, 2, {"w": 1})
        assert 0.9 < last.oldest_wait <= now
        assert now - 1.5 < last.end <= now, "the clocks are not the same"
        assert last.in_flight_seconds == pytest.approx(last.duration)
        assert last.queued_seconds == pytest.approx(2 * last.duration)
        w.gate.set()
        await together(*pending)
        await router.settled(3)
        count = len(router.facts.samples)
        contiguous(router.facts.samples)
        assert balanced(router.facts)
        await silent(router, count)
        await post(port, "/", b"again")
        await router.settled(4)
        contiguous(router.facts.samples)  # the rest in between is covered too


def contiguous(samples: list[LoadSample]) -> None:
    for before, after in pairwise(samples):
        assert before.end == after.start


async def silent(router: Router, count: int) -> None:
    """Nothing more is said for longer than the time between two samples."""
    until_when = time.monotonic() + 1.5
    await until(lambda: time.monotonic() > until_when)
    assert len(router.facts.samples) == count


async def test_services_are_measured_apart(router: Router) -> None:
    async with worker() as w:
        one = await router.route(w.route(None), service="app/one")
        two = await router.route(w.route(None), service="app/two")
        await together(*(get(one) for _ in range(10)), *(get(two) for _ in range(5)))
    await until(lambda: router.facts.total("arrivals") == 15)
    arrivals = {"app/one": 0, "app/two": 0}
    for sample in router.facts.samples:
        arrivals[sample.service] += sample.arrivals
    assert arrivals == {"app/one": 10, "app/two": 5}


async def test_nothing_is_lost_while_no_daemon_listens(fresh: PluginContext) -> None:
    async with worker() as w:
        async with linked(fresh) as first:
            port = await first.route(w.route(2))
            for _ in range(5):
                await get(port)
            await until(lambda: first.facts.total("arrivals") == 5)
            told = first.facts.samples[-1].end
        for _ in range(7):  # nobody listens
            await get(port)
        w.gate.clear()
        pending = [asyncio.ensure_future(get(port)) for _ in range(3)]
        await until(lambda: w.busy == 2)
        async with linked(fresh) as second:
            await second.route(w.route(2))
            await until(lambda: second.facts.total("arrivals") == 10)
            assert second.facts.samples[0].start == told, "the gap is not covered"
            assert second.facts.codes() == {"2xx": 7}
            assert (second.newest().in_flight, second.newest().queued) == (2, 1)
            w.gate.set()
            await together(*pending)
            await second.settled(10)
            contiguous(second.facts.samples)
            assert balanced(second.facts)


async def test_who_asks_is_told_the_load_up_to_now(fresh: PluginContext) -> None:
    with program(fresh, "--sample-every", "3600"):
        async with worker() as w, linked(fresh) as router:
            port = await router.route(w.route(2))
            for count in (3, 6):
                for _ in range(3):
                    await get(port)
                with anyio.fail_after(60):
                    await router.link.measure()
                assert router.facts.total("completions") == count
            assert router.facts.troubles == []
    with anyio.fail_after(60):
        await router.link.measure()  # there is no program any more


async def test_a_new_daemon_hears_at_once_of_those_who_wait(fresh: PluginContext) -> None:
    async with linked(fresh) as first:
        port = await first.route()
    waiting = asyncio.ensure_future(get(port))
    async with linked(fresh) as second:
        await second.route()
        await until(lambda: second.facts.demands)
        assert second.facts.demands[0][1] == SERVICE
        await second.route(held="enough")
        assert (await waiting).status == 503


class Deaf:
    """A daemon's connection that is full."""

    def __init__(self) -> None:
        self.blocked = True
        self.heard: list[dict] = []

    def push(self, message: dict) -> None:
        self.heard.append(message)


async def test_a_daemon_that_does_not_read_costs_no_counts() -> None:
    """The samples wait in the books until it reads again."""
    loop = asyncio.get_running_loop()
    reports = Reports(loop, 1.0, AccessLog(loop, os.devnull, time.time))
    service = Service(loop, reports, RouteConfig(service=SERVICE, host="127.0.0.1", port=0))
    reports.subscriber = deaf = Deaf()
    service.quiet = False
    reports.active(service)
    for _ in range(3):
        service.meter.arrivals += 1
        service.meter.answered(503)
        reports.resume()
    assert deaf.heard == []
    deaf.blocked = False
    reports.resume()
    samples = [message for message in deaf.heard if message["op"] == "sample"]
    assert sum(sample["arrivals"] for sample in samples) == 3
    assert sum(sample["codes"].get("5xx", 0) for sample in samples) == 3
    reports.resume()
    assert deaf.heard[-1]["arrivals"] == 0
    assert service.quiet


class Queue(list[int]):
    """A line of which only the length matters."""

    news = 1

    @property
    def grown(self) -> bool:
        return len(self) >= self.news


class Crowd:
    """A service with a queue, as reports see it."""

    def __init__(self) -> None:
        self.line = Queue()
        self.meter = SimpleNamespace(since=time.monotonic())

    def sample(self, now: float) -> dict[str, Any]:
        self.meter.since, self.line.news = now, 2 * len(self.line) + 1
        zeros = dict.fromkeys(("in_flight", "arrivals", "codes", "in_flight_seconds", "queued_seconds"), 0)
        return {**zeros, "queued": len(self.line)}


@pytest.fixture
async def crowd() -> Any:
    """An active service whose next regular sample comes after an hour, and what the daemon hears."""
    deaf = Deaf()
    deaf.blocked = False
    loop = asyncio.get_running_loop()
    reports = Reports(loop, 3600.0, AccessLog(loop, os.devnull, time.time))
    reports.subscriber = deaf
    service: Any = Crowd()
    reports.active(service)
    return SimpleNamespace(service=service, reports=reports, heard=deaf.heard)


async def test_a_queue_that_lasts_is_told_of_before_its_time(crowd: Any) -> None:
    crowd.service.line.extend([1, 2])
    crowd.reports.growing(crowd.service)
    await until(lambda: crowd.heard)
    assert crowd.heard[-1]["queued"] == 2
    told = crowd.service.meter.since
    crowd.service.line.extend([3, 4, 5])
    crowd.reports.growing(crowd.service)
    await until(lambda: crowd.heard[-1]["queued"] == 5)
    assert crowd.service.meter.since - told >= SOON - 0.01, "not more often than that"


async def test_a_queue_that_is_over_or_no_longer_than_it_was_is_no_news(crowd: Any) -> None:
    for line, news in (([], 1), ([1, 2, 3, 4], 5)):
        crowd.service.line[:], crowd.service.line.news = line, news
        crowd.reports.growing(crowd.service)
        await until(lambda: not crowd.reports._looks)
    assert crowd.heard == []
    crowd.reports.growing(crowd.service)
    crowd.reports.forget(crowd.service)
    assert not crowd.reports._looks


async def test_the_load_of_a_service_without_workers_is_told_before_the_cry(crowd: Any) -> None:
    crowd.service.route = SimpleNamespace(service=SERVICE)
    crowd.service.line.append(1)
    crowd.reports.demand(crowd.service)
    crowd.reports.demand(crowd.service)
    rest, *told = [message["op"] for message in crowd.heard]
    assert (rest, told) == ("sample", ["sample", "demand", "demand"])
    assert crowd.heard[1]["queued"] == 1


async def test_the_line_says_when_it_has_more_than_doubled() -> None:
    loop = asyncio.get_running_loop()
    asked: list[int] = []
    events: Any = SimpleNamespace(
        active=lambda service: None,
        demand=lambda name: None,
        growing=lambda service: asked.append(len(service.line)),
    )
    service = Service(loop, events, RouteConfig(service=SERVICE, host="127.0.0.1", port=0))
    kind: Any = SimpleNamespace(idempotent=True, keep=True)

    def come(count: int) -> None:
        for _ in range(count):
            service.admit(Exchange(None, kind, b"", whole=True))  # type: ignore[arg-type]

    come(3)
    assert asked == [1, 2, 3], "as long as nothing was told"
    service.sample(time.monotonic())
    come(5)
    assert asked == [1, 2, 3, 7, 8]
    service._late.alarm.clear()
