"""The suite of routers: when a request is refused, and with which words."""

from __future__ import annotations

import asyncio
import time

from stoker.plugin.testing.router_bench import Link
from stoker.plugin.testing.router_peers import Worker, ask, together, until
from stoker.plugin.testing.router_points import expect


async def queued(link: Link, number: int) -> None:
    """Wait until the router says that so many wait."""
    samples = link.facts.samples
    await until(lambda: samples and samples[-1].queued == number, f"{number} wait")


class Limits:
    """503, 429, 504."""

    async def test_a_held_service_refuses_with_its_reason(self, link: Link) -> None:
        """Also those who already wait; and no more as soon as it is released."""
        port = await link.route()
        waiting = asyncio.ensure_future(ask(port))
        await until(lambda: link.facts.demands, "it waits")
        reason = 'service web is stopped by "the operator" at 100%'
        await link.route(held=reason)
        assert (await waiting).status == 503
        answer = await ask(port)
        assert (answer.status, answer.error) == (503, reason)
        assert answer.field("retry-after").isdecimal()
        assert answer.field("content-type") == "application/json"
        worker = await Worker("w").open()
        await link.route(worker.route(1), held="")
        assert (await ask(port)).status == 200
        await worker.close()

    async def test_a_full_queue_refuses(self, link: Link) -> None:
        """`max_queue` is how many wait at most; it can change while they do."""
        worker = await Worker("w").open()
        worker.gate.clear()
        port = await link.route(worker.route(1), max_queue=2)
        asked = [asyncio.ensure_future(ask(port))]
        await until(lambda: worker.busy, "one is in the worker")
        asked += [asyncio.ensure_future(ask(port)) for _ in range(2)]
        await queued(link, 2)
        refused = await ask(port)
        assert refused.status == 503
        assert refused.error
        assert refused.field("retry-after").isdecimal()
        await link.route(worker.route(1), max_queue=3)
        asked.append(asyncio.ensure_future(ask(port)))
        await queued(link, 3)
        worker.gate.set()
        assert {answer.status for answer in await together(asked)} == {200}
        await worker.close()

    async def test_no_queue_at_all_is_possible(self, link: Link) -> None:
        """`max_queue: 0`: what finds no free slot is refused, what finds one is not."""
        worker = await Worker("w").open()
        worker.gate.clear()
        port = await link.route(worker.route(1), max_queue=0)
        asked = asyncio.ensure_future(ask(port))
        await until(lambda: worker.busy, "it is in the worker")
        assert (await ask(port)).status == 503
        worker.gate.set()
        assert (await asked).status == 200
        assert (await ask(port)).status == 200
        await worker.close()

    async def test_too_many_at_once_are_refused(self, link: Link) -> None:
        """`max_concurrency` counts those that wait as well."""
        worker = await Worker("w").open()
        worker.gate.clear()
        port = await link.route(worker.route(1), max_concurrency=2)
        asked = [asyncio.ensure_future(ask(port))]
        await until(lambda: worker.busy, "one is in the worker")
        asked.append(asyncio.ensure_future(ask(port)))
        await queued(link, 1)
        refused = await ask(port)
        assert refused.status == 429
        assert refused.error
        assert refused.field("retry-after").isdecimal()
        worker.gate.set()
        assert {answer.status for answer in await together(asked)} == {200}
        await worker.close()

    async def test_a_wait_that_is_too_long_ends(self, link: Link) -> None:
        """With 504, whether a worker never came or never became free."""
        port = await link.route(timeout=0.4)
        began = time.monotonic()
        assert (await ask(port)).status == 504
        assert 0.3 < time.monotonic() - began < 10
        worker = await Worker("w").open()
        worker.gate.clear()
        await link.route(worker.route(1), timeout=0.4)
        answers = await together([ask(port), ask(port)])
        assert [answer.status for answer in answers] == [504, 504]
        assert all(answer.error for answer in answers)
        worker.gate.set()
        assert (await ask(port)).status == 200, "its slot is free again"
        await worker.close()

    async def test_waiting_and_working_share_one_deadline(self, link: Link) -> None:
        """Who waited for most of it has the rest in the worker."""
        expect(link.router, "deadline")
        worker = await Worker("w").open()
        port = await link.route(worker.route(1), timeout=1.5)
        first = asyncio.ensure_future(ask(port, "/?ms=1000"))
        await until(lambda: worker.busy, "the first is in the worker")
        second = await ask(port, "/?ms=1000")
        assert ((await first).status, second.status) == (200, 504)
        await worker.close()
