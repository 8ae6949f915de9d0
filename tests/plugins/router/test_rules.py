"""What services ask of the router beyond carrying: limits, priorities, deadlines, traces, the access log."""

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

from plugins.router.harness import Router, client, get, ok, post, until, worker
from stoker.model.state import WorkerRoute
from stoker.plugin.ports import PluginContext
from stoker_router.budget import MOST, RetryBudget
from stoker_router.table import WorkerConfig
from stoker_router.worker import Pool


async def test_a_body_that_is_too_large_is_413(router: Router) -> None:
    async with worker() as one:
        port = await router.route(one.route(), max_body=1000)
        assert (await post(port, "/", b"x" * 1000)).status == 200
        answer = await post(port, "/", b"x" * 1001)
        assert (answer.status, answer.error) == (413, "the body is larger than 1000 bytes")
        async with client(port) as made:
            made.get("/", "Transfer-Encoding: chunked", method="POST")
            made.send(b"200\r\n" + b"x" * 512 + b"\r\n")
            await made.writer.drain()
            await until(lambda: len(one.heard) == 2)
            made.send(b"200\r\n" + b"x" * 512 + b"\r\n")
            assert (await made.answer()).status == 413
        await until(lambda: one.busy == 0)  # the worker's connection was closed
    await router.settled(arrivals=3)


async def test_who_matters_more_is_served_first(router: Router) -> None:
    async with worker() as one:
        one.gate.clear()
        port = await router.route(one.route(1), priority_header="X-Priority")
        said = ["0", "-5", "7", "no number", "7", "u=0", "u=7, i", "999"]
        async with client(port) as first:
            first.get("/first")
            await until(lambda: one.busy)
            waiting = [
                asyncio.ensure_future(get(port, f"/{n}", f"x-priority: {text}"))
                for n, text in enumerate(said)
            ]
            await until(lambda: router.facts.samples and router.newest().queued == len(said))
            one.gate.set()
            await asyncio.gather(*waiting)
        order = [heard.path for heard in one.heard[1:]]
        # of equals the one that came first, as far as they came in order at all
        assert sorted(order[:1]) == ["/7"]
        assert set(order[1:3]) == {"/2", "/4"}
        assert order[3] == "/5"
        assert set(order[4:6]) == {"/0", "/3"}
        assert order[6:] == ["/6", "/1"]


async def test_a_request_says_how_long_it_is_worth_waiting_for(router: Router) -> None:
    async with worker() as one:
        one.gate.clear()
        port = await router.route(one.route(1), timeout_header="X-Request-Timeout")
        async with client(port) as first:
            first.get("/", "X-Request-Timeout: 500")
            await until(lambda: one.busy)
            answer = await get(port, "/", "X-Request-Timeout: 0.2")
            assert (answer.status, answer.error) == (504, "no worker was free within 0.2 s")
            late = await get(port, "/", "X-Request-Timeout: 0")
            assert late.status == 504
            one.gate.set()
            assert (await first.answer()).status == 200
        assert len(one.heard) == 1


async def test_a_trace_passes_as_it_is_or_is_begun(router: Router) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with worker() as one:
        port = await router.route(one.route())
        await get(port, "/", f"Traceparent: {good}", "tracestate: a=b")
        assert (one.heard[-1].fields["traceparent"], one.heard[-1].fields["tracestate"]) == (good, "a=b")
        await get(port)
        assert "traceparent" not in one.heard[-1].fields
        await router.route(one.route(), trace="start")
        await get(port, "/", f"Traceparent: {good}", "tracestate: a=b")
        assert (one.heard[-1].fields["traceparent"], one.heard[-1].fields["tracestate"]) == (good, "a=b")
        made = set()
        for bad in ("", "traceparent: 00-" + "0" * 32 + "-b7ad6b7169203331-01", "traceparent: ff" + good[2:]):
            await post(port, "/", b"body\r\n\r\nbody", *([bad, "tracestate: x=y"] if bad else []))
            fields = one.heard[-1].fields
            assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fields["traceparent"])
            assert "tracestate" not in fields
            assert one.heard[-1].body == b"body\r\n\r\nbody"
            made.add(fields["traceparent"])
        assert len(made) == 3


async def test_each_request_has_a_name(router: Router) -> None:
    async with worker() as one:
        port = await router.route(one.route())
        await get(port, "/", "x-request-ID: mine")
        assert one.heard[-1].fields["x-request-id"] == "mine"
        await get(port, "/", "x-request-id: mine", "Connection: keep-alive, x-request-id")
        assert one.heard[-1].fields["x-request-id"] == "mine"
        for _ in range(3):
            await get(port)
        names = {heard.fields["x-request-id"] for heard in one.heard}
        assert len(names) == 4


async def test_workers_may_listen_on_a_unix_socket(router: Router, tmp_path: Path) -> None:
    path, over = str(tmp_path / "w.sock"), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as ending:
            ending.callback(writer.close)
            while not reader.at_eof():
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(ok(b"by a file"))
        over.set()

    port = await router.route(WorkerRoute(id="u", endpoint=f"unix:{path}", concurrency=1))
    async with client(port) as made:
        made.get("/")  # it waits: nobody listens yet
        server = await asyncio.start_unix_server(serve, path)
        assert (await made.answer()).body == b"by a file"
        made.get("/")
        assert (await made.answer()).body == b"by a file"
    await router.route()  # its idle connections are closed
    await over.wait()
    server.close()


# --- failing workers --------------------------------------------------------------------------------------


async def test_a_slot_that_never_answered_is_not_given_away_at_once(anyio_backend: str) -> None:
    """Of a worker that hangs as many slots are left alone as did not answer; after a while they are tried
    again."""
    up: list[float] = []
    pool = Pool(asyncio.get_running_loop(), lambda: up.append(1))
    pool.configure([WorkerConfig("a", "h", 1, 2, draining=False)])
    hung = pool.workers["a"]
    pool.hangs(hung, 0.01)
    assert hung.limit == 1
    pool.hangs(hung, 0.01)
    assert pool.pick() is None
    pool.configure(
        [WorkerConfig("a", "h", 1, None, draining=False), WorkerConfig("b", "h", 2, None, draining=False)]
    )
    assert [pool.pick().config.id for _ in range(3)] == ["b", "b", "b"]  # without limits: others first
    pool.configure([WorkerConfig("a", "h", 1, 2, draining=False)])
    assert pool.pick() is None
    await until(lambda: len(up) == 2)
    assert pool.pick() is hung
    assert hung.limit == 2


async def test_a_request_that_was_never_answered_costs_its_slot_for_a_while(router: Router) -> None:
    async with worker("a") as hung:
        hung.gate.clear()
        port = await router.route(hung.route(1), timeout=0.4)
        assert (await get(port)).error == "the worker did not answer within 0.4 s"
        hung.gate.set()
        await router.route(hung.route(1), timeout=15)
        assert (await get(port)).body == b"a"


def test_a_storm_of_retries_is_bounded() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.spend(0.0, 0) for _ in range(1000)) == MOST
    assert sum(budget.spend(1.0, 0) for _ in range(1000)) == 10
    assert sum(budget.spend(1.0, 500) for _ in range(1000)) == 100
    assert not budget.spend(1.0, 504)
    assert budget.spend(1.0, 505)


# --- the access log ---------------------------------------------------------------------------------------


def log_of(context: PluginContext) -> list[dict[str, Any]]:
    path = Path(context.state_dir) / "logs" / "access.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_all_that_happened_to_a_request_is_one_line(router: Router) -> None:
    before = len(log_of(router.context))
    async with worker("w-1") as one:
        port = await router.route(one.route(), access_log=1.0)
        trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await post(port, "/a?key=secret", b"12345", "X-Request-Id: r1", "User-Agent: t", trace)
        one.gate.clear()
        async with client(port) as gone:
            gone.get("/gone")
            await until(lambda: one.busy)
        await until(lambda: one.hung_up)
        await router.route(held="stopped")
        await get(port, "/held")
        await router.route(held="", access_log=0.0)
    await until(lambda: len(log_of(router.context)) == before + 3)
    good, aborted, held = log_of(router.context)[before:]
    assert good.items() >= {
        "service": "app/web", "client": "127.0.0.1", "method": "POST", "host": "test", "path": "/a",
        "status": 200, "worker": "w-1", "tries": 1,
    }.items()  # fmt: skip
    assert (good["request_id"], good["trace_id"]) == ("r1", "0af7651916cd43dd8448eb211c80319c")
    assert (good["bytes_in"], good["agent"]) == (5, "t")
    assert good["bytes_out"] > 30
    assert 0 <= good["queue_ms"] <= good["first_byte_ms"] <= good["duration_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", good["time"])
    assert (aborted["status"], aborted["path"]) == (499, "/gone")
    assert (held["status"], held["path"], held["tries"]) == (503, "/held", 0)
    assert "secret" not in (Path(router.context.state_dir) / "logs" / "access.log").read_text()


async def test_of_a_sample_every_error_is_written(router: Router) -> None:
    before = len(log_of(router.context))
    async with worker() as one:
        port = await router.route(one.route(), access_log=1e-9)
        for _ in range(20):
            await get(port)
        await router.route(held="stopped")
        await get(port)
        await router.route(held="", access_log=0.0)
    await until(lambda: len(log_of(router.context)) > before)
    assert [line["status"] for line in log_of(router.context)[before:]] == [503]
