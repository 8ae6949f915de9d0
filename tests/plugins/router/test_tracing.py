"""The router's own hop in its callers' traces: which requests, what is told of them, what workers hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest

from plugins.router.harness import SERVICE, Router, client, get, post, until, worker, worker_processes
from stoker.errors import RouterError
from stoker.model.trace import RequestSpan
from stoker.plugin.ports import PluginContext, TracingRouter
from stoker_router.link import ProgramLink
from stoker_router.tracing import marked

pytestmark = pytest.mark.anyio

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"


@asynccontextmanager
async def traced(router: Router) -> AsyncIterator[list[RequestSpan]]:
    """The spans that are told while the block runs."""
    found: list[RequestSpan] = []
    began = anyio.Event()

    async def read() -> None:
        async with aclosing(router.link.spans()) as batches:
            async for batch in batches:
                began.set()
                found.extend(batch.spans)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await began.wait()
        yield found
        tasks.cancel_scope.cancel()


async def test_a_sampled_request_is_a_span_between_its_caller_and_its_worker(router: Router) -> None:
    assert isinstance(router.link, TracingRouter)
    async with worker("w-1") as one, traced(router) as found:
        port = await router.route(one.route(1))
        said = (f"Traceparent: {SAMPLED}", "tracestate: a=b", "User-Agent: t")
        await post(port, "/a?key=secret", b"12345", *said)
        (span,) = await until(lambda: found)
        fields = one.heard[-1].fields
        assert fields["traceparent"] == f"00-{TRACE}-{span.span}-01"
        assert fields["tracestate"] == "a=b"
        assert one.heard[-1].body == b"12345"
    assert (span.trace, span.parent, span.service) == (TRACE, CALLER, SERVICE)
    assert span.span != CALLER
    assert (span.method, span.path, span.host, span.agent) == ("POST", "/a", "test", "t")
    assert (span.status, span.worker, span.tries, span.failed) == (200, "w-1", 1, ())
    assert span.client == "127.0.0.1"
    assert 0 < span.arrived <= span.began <= span.ended
    assert span.waited < 0.1


@pytest.mark.parametrize("context", [NOT_SAMPLED, "", "00-" + "0" * 32 + f"-{CALLER}-01"])
async def test_what_its_caller_does_not_sample_passes_as_it_is(router: Router, context: str) -> None:
    async with worker() as one, traced(router) as found:
        port = await router.route(one.route())
        await get(port, "/", *([f"traceparent: {context}"] if context else []))
        assert one.heard[-1].fields.get("traceparent", "") == context
        await get(port, "/", f"traceparent: {SAMPLED}")
        await until(lambda: found)
    assert len(found) == 1


async def test_without_a_collector_a_trace_passes_as_it_is(router: Router) -> None:
    async with worker() as one:
        port = await router.route(one.route())
        async with traced(router):
            await get(port, "/", f"traceparent: {SAMPLED}")
            assert one.heard[-1].fields["traceparent"] != SAMPLED

        async def passes() -> bool:
            await get(port, "/", f"traceparent: {SAMPLED}")
            return one.heard[-1].fields["traceparent"] == SAMPLED

        with anyio.fail_after(15):
            while not await passes():  # the program hears of the reader's end a moment later
                await anyio.sleep(0.01)


async def test_a_trace_that_begins_here_has_no_caller(router: Router) -> None:
    async with worker() as one, traced(router) as found:
        port = await router.route(one.route(), trace="start")
        await get(port)
        (span,) = await until(lambda: found)
        assert one.heard[-1].fields["traceparent"] == f"00-{span.trace}-{span.span}-01"
        await router.route(one.route(), trace="pass")
    assert span.parent == ""


async def test_the_wait_in_the_queue_and_who_went_away(router: Router) -> None:
    async with worker() as one, traced(router) as found:
        one.gate.clear()
        port = await router.route(one.route(1))
        first = asyncio.ensure_future(get(port, "/first", f"traceparent: {SAMPLED}"))
        await until(lambda: one.busy)
        async with client(port) as second, client(port) as third:
            second.get("/second", f"traceparent: {SAMPLED}")
            third.get("/third", f"traceparent: {SAMPLED}")
            await until(lambda: router.facts.samples and router.newest().queued == 2)
            third.abort()
            await until(lambda: router.newest().queued == 1)
            one.gate.set()
            assert (await second.answer()).status == 200
            await first
        await until(lambda: len(found) == 3)
    spans = {span.path: span for span in found}
    served = spans["/second"]
    assert 0 < served.waited <= served.began - served.arrived
    assert served.waited > spans["/first"].waited
    gone = spans["/third"]
    assert (gone.status, gone.worker, gone.tries, gone.began) == (0, "", 0, 0)


async def test_tries_that_failed_are_told_with_their_worker_and_reason(router: Router) -> None:
    async with worker_processes("w-bad") as (bad,), worker("w-good") as good, traced(router) as found:
        port = await router.route(bad.route(1))
        request = asyncio.ensure_future(get(port, "/?ms=60000", f"traceparent: {SAMPLED}"))
        await until(lambda: router.facts.samples and router.newest().in_flight == 1)
        await router.route(bad.route(1), good.route(1))
        good.gate.clear()
        await bad.kill()
        await until(lambda: good.busy)
        request.cancel()
        (span,) = await until(lambda: found)
    assert span.tries == 2
    assert (span.worker, span.status) == ("w-good", 0)
    (failed,) = span.failed
    assert failed.worker == "w-bad"
    assert failed.reason
    assert span.arrived < failed.at < span.ended


async def test_an_answer_of_the_routers_own_is_a_span_too(router: Router) -> None:
    async with traced(router) as found:
        port = await router.route(held="stopped")
        await get(port, "/", f"traceparent: {SAMPLED}")
        (span,) = await until(lambda: found)
        await router.route(held="")
    assert (span.status, span.worker, span.tries) == (503, "", 0)


async def test_without_a_program_there_are_no_spans(fresh: PluginContext) -> None:
    with pytest.raises(RouterError, match="does not run"):
        await anext(ProgramLink(fresh).spans())


def test_only_the_id_of_the_span_changes() -> None:
    head = f"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {SAMPLED}\r\n\r\n".encode()
    body = f"\r\ntraceparent: {SAMPLED}\r\n".encode()
    found = marked(head + body, begun=False)
    assert found is not None
    changed, mark = found
    assert changed == head.replace(CALLER.encode(), mark.span.encode()) + body
    assert (mark.trace, mark.parent, len(mark.span)) == (TRACE, CALLER, 16)
    assert marked(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + body, begun=False) is None
