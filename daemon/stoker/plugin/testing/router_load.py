"""The suite of routers: the load that is measured. Counts are exact everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from itertools import pairwise

import pytest

from stoker.plugin.ports import RecordingRouter
from stoker.plugin.testing.router_bench import SERVICE, Bench, Link
from stoker.plugin.testing.router_peers import Answer, Worker, ask, together, until
from stoker.plugin.testing.router_points import declared, expect


def at_rest(link: Link) -> bool:
    """Whether the last sample says that nothing happens any more."""
    if not link.facts.samples:
        return False
    last = link.facts.samples[-1]
    return not (last.in_flight or last.queued or last.arrivals or last.codes or last.in_flight_seconds)


def _told(link: Link, arrivals: int) -> bool:
    return link.facts.total("arrivals") == arrivals and at_rest(link)


async def _seconds(asked: Awaitable[Answer]) -> float:
    began = time.monotonic()
    assert (await asked).status == 200
    return time.monotonic() - began


class Loads:
    """Samples."""

    async def test_every_request_is_in_the_books_once(self, link: Link) -> None:
        """arrivals = answers of all classes, the router's own and given-up requests included."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(2), max_concurrency=2)
        for _ in range(10):
            assert (await ask(port)).status == 200
        worker.gate.clear()
        held = [asyncio.ensure_future(ask(port)) for _ in range(2)]
        await until(lambda: worker.busy == 2, "both are in the worker")
        assert (await ask(port)).status == 429
        for task in held:
            task.cancel()
        await until(lambda: worker.given_up == 2, "both were given up")
        worker.gate.set()
        await until(lambda: link.facts.total("arrivals") == 13 and at_rest(link), "the books are closed")
        assert link.facts.codes() == {"2xx": 10, "4xx": 1, "aborted": 2}
        assert link.facts.total("completions") == 10
        assert sum(sum(sample.latency.values()) for sample in link.facts.samples) == 10
        await worker.close()

    async def test_samples_follow_each_other_and_end_with_rest(self, link: Link) -> None:
        """No gap, no overlap; silence at rest, and a sample that begins where the last one ended after it."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(2))
        for asked in (1, 2):
            await ask(port, "/?ms=50")
            await until(partial(_told, link, asked), "rest")
            count = len(link.facts.samples)
            await asyncio.sleep(1.5)
            assert len(link.facts.samples) == count, "something is told at rest"
        samples = link.facts.samples
        assert {sample.service for sample in samples} == {SERVICE}
        assert all(a.end == pytest.approx(b.start, abs=0.002) for a, b in pairwise(samples))
        assert all(sample.end >= sample.start for sample in samples)
        await worker.close()

    async def test_load_is_the_integral_over_time(self, link: Link) -> None:
        """Two in the worker and one in the queue: as long as the worker and the clients say."""
        spread = 0.35 if declared(link.router, "load") else 0.15  # clients and workers are late themselves
        worker = await Worker("w").open()
        port = await link.route(worker.route(2))
        spent = await together([_seconds(ask(port, "/?ms=800")) for _ in range(3)])
        await until(lambda: link.facts.total("arrivals") == 3 and at_rest(link), "rest")
        total = link.facts.total
        assert total("in_flight_seconds") == pytest.approx(worker.held, rel=spread)
        assert total("in_flight_seconds") + total("queued_seconds") == pytest.approx(sum(spent), rel=spread)
        assert total("service_seconds") == pytest.approx(worker.held, rel=spread)
        assert total("service_seconds") + total("wait_seconds") == pytest.approx(sum(spent), rel=spread)
        busiest = max(link.facts.samples, key=lambda sample: sample.in_flight)
        assert busiest.workers == {"w": busiest.in_flight}
        await worker.close()

    async def test_load_and_requests_agree_exactly(self, link: Link) -> None:
        """What was in flight is what requests have spent there, to the millisecond."""
        expect(link.router, "load")
        worker = await Worker("w").open()
        port = await link.route(worker.route(2))
        await asyncio.gather(*(ask(port, "/?ms=40") for _ in range(30)))
        await until(lambda: link.facts.total("arrivals") == 30 and at_rest(link), "rest")
        spent = link.facts.total("service_seconds")
        assert link.facts.total("in_flight_seconds") == pytest.approx(spent, abs=0.001)
        waited = link.facts.total("wait_seconds")
        assert link.facts.total("queued_seconds") == pytest.approx(waited, abs=0.001)
        await worker.close()

    async def test_no_count_is_lost_between_two_daemons(self, bench: Bench) -> None:
        """The first sample of the new one covers the gap, and nothing is told twice."""
        worker = await Worker("w").open()
        total = 0.0
        async with bench.linked() as link:
            port = await link.route(worker.route(2))
            for _ in range(5):
                await ask(port)
            await until(lambda: link.facts.total("arrivals") == 5 and at_rest(link), "rest")
            total += link.facts.total("completions")
        for _ in range(7):
            assert (await ask(port)).status == 200
        async with bench.linked() as link:
            await link.route(worker.route(2))
            await until(lambda: link.facts.total("arrivals") >= 7 and at_rest(link), "rest")
            total += link.facts.total("completions")
            assert link.facts.total("arrivals") == 7
        assert total == 12
        await worker.close()

    async def test_single_requests_are_told(self, link: Link) -> None:
        """In batches, from the time of asking on."""
        expect(link.router, "records")
        assert isinstance(link.router, RecordingRouter)
        worker = await Worker("w").open()
        port = await link.route(worker.route(1))
        batches = link.router.record([SERVICE])
        assert list(await anext(batches)) == []
        await ask(port, "/?ms=30")
        (record,) = await asyncio.wait_for(anext(batches), 10)
        assert (record.service, record.status) == (SERVICE, 200)
        assert record.held >= 0.02
        await batches.aclose()
        await worker.close()
