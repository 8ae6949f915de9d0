"""Each request as it ends: what is told of it, to whom, and that a reader who sleeps costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest

from plugins.router.harness import SERVICE, Router, client, get, linked, together, until, worker
from stoker.errors import RouterError
from stoker.model.load import RequestRecord
from stoker.plugin.ports import PluginContext, RecordingRouter
from stoker_router.link import ProgramLink
from stoker_router.recording import MAX_ROWS, Recorder, Row

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def recorded(router: Router, *services: str) -> AsyncIterator[list[RequestRecord]]:
    """What is recorded of these services while the block runs."""
    found: list[RequestRecord] = []
    began = anyio.Event()

    async def read() -> None:
        async with aclosing(router.link.record(services)) as batches:
            async for batch in batches:
                began.set()
                found.extend(batch)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await began.wait()
        yield found
        tasks.cancel_scope.cancel()


async def test_each_request_is_told_with_its_wait_and_its_time_in_the_worker(router: Router) -> None:
    assert isinstance(router.link, RecordingRouter)
    async with worker() as w:
        port = await router.route(w.route(1))
        async with recorded(router, SERVICE) as found:
            await together(*(get(port, "/?ms=100") for _ in range(3)))
            await until(lambda: len(found) == 3)
    assert {record.service for record in found} == {SERVICE}
    assert [record.status for record in found] == [200] * 3
    assert all(record.held > 0.09 for record in found)
    first, second, third = sorted(found, key=lambda record: record.waited)
    assert second.waited - first.waited > 0.09
    assert third.waited - second.waited > 0.09, "one after the other: the queue is told apart"


async def test_what_no_worker_served_is_told_without_a_time_in_one(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1), max_queue=0)
        async with recorded(router, SERVICE) as found:
            slow = asyncio.ensure_future(get(port, "/?ms=300"))
            await until(lambda: w.busy == 1)
            assert (await get(port)).status == 503
            await slow
            await until(lambda: len(found) == 2)
            async with client(port) as gone:
                gone.get("/?ms=5000")
                await until(lambda: w.busy == 1)
            await until(lambda: len(found) == 3)
    assert [(record.status, record.held > 0) for record in found] == [(503, False), (200, True), (0, True)]


async def test_only_what_was_asked_for_and_only_while_it_is(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        other = await router.route(w.route(), service="app/other")
        async with recorded(router, "app/other") as found:
            await get(port)
            await get(other)
            await until(lambda: found)
        await get(other)
        async with recorded(router, SERVICE, "app/other") as both:
            await get(port)
            await get(other)
            await until(lambda: len(both) == 2)
    assert [record.service for record in found] == ["app/other"]
    assert [record.service for record in both] == [SERVICE, "app/other"]


async def test_a_service_that_is_not_there_yet_can_be_recorded(router: Router) -> None:
    async with worker() as w, recorded(router, "app/new") as found:
        port = await router.route(w.route(), service="app/new")
        await get(port)
        await until(lambda: found)


async def test_without_a_program_there_is_nothing_to_record(fresh: PluginContext) -> None:
    with pytest.raises(RouterError, match="does not run"):
        await anext(ProgramLink(fresh).record([SERVICE]))


async def test_another_daemon_records_nothing_here(fresh: PluginContext) -> None:
    async with linked(fresh) as router:
        router.link._context = PluginContext(
            instance="stranger", state_dir=fresh.state_dir, runtime_dir=fresh.runtime_dir
        )
        with pytest.raises(RouterError, match="does not record"):
            await anext(router.link.record([SERVICE]))
        router.link._context = fresh


async def test_a_reader_that_sleeps_loses_rows_and_costs_no_memory() -> None:
    sent: list[dict[str, Any]] = []
    asleep = True
    recorder = Recorder(asyncio.get_running_loop(), sent.append, lambda: asleep)

    def rows(message: dict[str, Any]) -> Sequence[Row]:
        return message["rows"]

    for number in range(MAX_ROWS + 50):
        recorder.add(Row(SERVICE, float(number), 0.0, 0.1, 200))
    assert sent == []
    asleep = False
    await until(lambda: sent)
    assert len(rows(sent[0])) == MAX_ROWS
    assert sent[0]["dropped"] == 50
    recorder.add(Row(SERVICE, 0.0, 0.0, 0.1, 200))
    await until(lambda: len(sent) == 2)
    assert (len(rows(sent[1])), sent[1]["dropped"]) == (1, 0)
    recorder.close()
