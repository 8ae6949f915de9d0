"""No request is lost: dying workers, closed ports, drains, a table that never stands still."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import time

import pytest

from plugins.router.harness import (
    Heard,
    Router,
    Worker,
    client,
    get,
    ok,
    post,
    read_body,
    together,
    until,
    worker,
    worker_processes,
)
from stoker.model.state import WorkerRoute

pytestmark = pytest.mark.anyio


class Dying:
    """A worker that closes its connection without a word, `times` times; then it answers."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def __call__(
        self, heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        heard.body = await read_body(reader, heard.fields)
        if self.left:
            self.left -= 1
            writer.transport.abort()
        else:
            writer.write(ok())


async def load(port: int, stop: asyncio.Event, clients: int, path: str) -> dict[int | str, int]:
    """Requests one after the other from so many kept connections; how they ended, by status."""
    found: dict[int | str, int] = {}

    async def one() -> None:
        while not stop.is_set():
            async with client(port) as c:
                while not stop.is_set():
                    c.get(path)
                    try:
                        answer = await c.answer()
                    except (asyncio.IncompleteReadError, ConnectionError) as error:
                        found[type(error).__name__] = found.get(type(error).__name__, 0) + 1
                        break
                    found[answer.status] = found.get(answer.status, 0) + 1
                    if answer.fields.get("connection") == "close":
                        break

    await asyncio.gather(*(one() for _ in range(clients)))
    return found


# --- a table that changes ---------------------------------------------------------------------------------


async def test_no_request_fails_while_the_table_changes_ten_times_a_second(router: Router) -> None:
    random.seed(1)
    workers = [await Worker(f"w{i}").open() for i in range(6)]
    try:
        port = await router.route(workers[0].route(2))
        stop = asyncio.Event()
        running = asyncio.ensure_future(load(port, stop, 12, "/?ms=10"))
        for step in range(30):
            chosen = random.sample(workers, random.randint(0 if step % 5 == 0 else 1, 5))
            routes = [w.route(random.choice((1, 2, 3)), draining=random.random() < 0.2) for w in chosen]
            await router.route(*routes, max_queue=random.randint(100, 200))
            await asyncio.sleep(0.1)
        await router.route(workers[0].route(4))
        stop.set()
        found = await asyncio.wait_for(running, 15)
        assert set(found) == {200}
        assert found[200] > 200
        assert max(w.peak for w in workers) <= 4
    finally:
        for w in workers:
            await w.close()


async def test_no_request_fails_when_workers_are_drained_and_stopped(router: Router) -> None:
    async with worker_processes("a", "b", "c") as (a, b, c):
        port = await router.route(a.route(2), b.route(2))
        stop = asyncio.Event()
        running = asyncio.ensure_future(load(port, stop, 8, "/?ms=10"))
        for leaving, staying in ((a, (b, c)), (b, (c,)), (c, ())):
            rest = [one.route(2) for one in staying]
            await router.route(leaving.route(2, draining=True), *rest)
            await until(lambda name=leaving.name: name in router.facts.drains)
            await leaving.kill()
            await router.route(*rest)
        await c.start()
        await router.route(c.route(2))
        await asyncio.sleep(0)
        stop.set()
        assert set(await asyncio.wait_for(running, 15)) == {200}
        assert sorted(router.facts.drains) == ["a", "b", "c"], "said once each"


async def test_a_draining_worker_finishes_what_it_has_and_gets_nothing_new(router: Router) -> None:
    async with worker("a") as a, worker("b") as b:
        a.gate.clear()
        port = await router.route(a.route(4))
        first = asyncio.ensure_future(get(port))
        await until(lambda: a.busy == 1)
        await router.route(a.route(4, draining=True), b.route(4))
        assert [(await get(port)).body for _ in range(4)] == [b"b"] * 4
        assert router.facts.drains == []
        a.gate.set()
        assert (await first).body == b"a"
        await until(lambda: router.facts.drains == ["a"])
        await no_connections(a)


async def no_connections(drained: Worker) -> None:
    """An idle connection would keep a server from ending; they close sooner than idle ones usually do."""
    began = time.monotonic()
    await until(lambda: not drained._writers)
    assert time.monotonic() - began < 1.5


async def test_an_idle_worker_is_drained_at_once_and_may_come_back(router: Router) -> None:
    async with worker("a") as a:
        port = await router.route(a.route(1))
        await get(port)
        await router.route(a.route(1, draining=True))
        await until(lambda: router.facts.drains == ["a"])
        await no_connections(a)
        await router.apply()  # the same table again says nothing new
        await router.route(a.route(1))
        assert (await get(port)).body == b"a"
        await router.route(a.route(1, draining=True))
        await until(lambda: router.facts.drains == ["a", "a"])


async def test_a_worker_that_left_the_table_finishes_what_it_has(router: Router) -> None:
    async with worker("a") as a, worker("b") as b:
        a.gate.clear()
        port = await router.route(a.route(1))
        first = asyncio.ensure_future(get(port))
        await until(lambda: a.busy == 1)
        await router.route(b.route(1))
        assert (await get(port)).body == b"b"
        await until(lambda: router.facts.samples and router.newest().workers == {"a": 1, "b": 0})
        a.gate.set()
        assert (await first).body == b"a"
        await until(lambda: router.newest().workers == {"b": 0})


async def test_a_worker_that_left_the_table_and_dies_has_its_requests_answered_by_others(
    router: Router,
) -> None:
    async with worker("a") as a, worker("b") as b:
        a.gate.clear()
        port = await router.route(a.route(None))
        pending = [asyncio.ensure_future(get(port)) for _ in range(3)]
        await until(lambda: a.busy == 3)
        await router.route(b.route(1))
        await a.close()
        assert [answer.body for answer in await together(*pending)] == [b"b"] * 3


async def test_the_same_replica_at_another_port_is_another_worker(router: Router) -> None:
    async with worker("a") as old, worker("a") as new:
        old.gate.clear()
        port = await router.route(old.route(1))
        first = asyncio.ensure_future(get(port))
        await until(lambda: old.busy == 1)
        await router.route(new.route(1))
        assert (await get(port)).status == 200
        assert len(new.heard) == 1
        old.gate.set()
        assert (await first).status == 200


async def test_a_removed_service_ends_politely(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(1))
        async with (
            client(port) as idle,
            client(port) as served,
            client(port) as waiting,
            client(port) as slow,
        ):
            slow.send("GET / HTTP/1.1\r\n")
            served.get()
            await until(lambda: w.busy == 1)
            waiting.get()
            await until(lambda: router.facts.samples and router.newest().queued == 1)
            await router.remove()
            refused = await waiting.answer()
            assert (refused.status, refused.fields["connection"]) == (503, "close")
            assert await idle.closed()
            slow.send("Host: a\r\n\r\n")
            assert (await slow.answer()).status == 503
            with pytest.raises(ConnectionRefusedError):
                await get(port)
            w.gate.set()
            answer = await served.answer()
            assert (answer.status, answer.fields["connection"]) == (200, "close")


# --- workers that die -------------------------------------------------------------------------------------


async def test_no_get_fails_when_workers_are_killed_under_load(router: Router) -> None:
    async with worker_processes("a", "b", "c", "d") as workers:
        port = await router.route(*(one.route(2) for one in workers))
        stop = asyncio.Event()
        running = asyncio.ensure_future(load(port, stop, 16, "/?ms=5"))
        for victim in workers[:3]:
            await asyncio.sleep(0.3 * random.random())
            await victim.kill()  # the table still says that it is there
            await asyncio.sleep(0.2 * random.random())
            await victim.start()
        stop.set()
        found = await asyncio.wait_for(running, 15)
        assert set(found) == {200}
        assert found[200] > 300


async def test_what_the_only_worker_lost_waits_for_its_successor(router: Router) -> None:
    async with worker_processes("a") as (a,):
        port = await router.route(a.route(4))
        pending = [asyncio.ensure_future(get(port, "/?ms=1200")) for _ in range(6)]
        await until(lambda: router.facts.samples and router.newest().in_flight == 4)
        await a.kill()
        await a.start()
        assert {answer.status for answer in await together(*pending)} == {200}


async def test_a_worker_whose_port_is_not_open_yet_is_tried_until_it_is(router: Router) -> None:
    """Nothing was sent, so this holds for every method and every policy."""
    w = await Worker().open()
    await w.close()
    port = await router.route(w.route(2), retry="never")
    pending = [asyncio.ensure_future(post(port, f"/{i}", b"body")) for i in range(5)]
    await until(lambda: router.facts.samples and router.newest().queued == 5)
    began = time.monotonic()
    w.gate.clear()
    await w.open()
    await until(lambda: w.busy == 2, "it was not given its full share again")
    w.gate.set()
    assert {answer.status for answer in await together(*pending)} == {200}
    assert time.monotonic() - began < 2.0
    assert w.peak == 2
    await w.close()


async def test_an_unreachable_worker_is_a_504_in_the_end(router: Router) -> None:
    w = await Worker().open()
    await w.close()
    port = await router.route(w.route(2), timeout=0.5)
    answer = await get(port)
    assert (answer.status, answer.error) == (504, "no worker could be reached within 0.5 s")


async def test_a_client_may_leave_while_its_worker_is_being_reached(router: Router) -> None:
    """The worker's backlog is full, so that a connection to it neither succeeds nor fails."""
    with socket.socket() as full, contextlib.ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        endpoint = f"127.0.0.1:{address[1]}"
        port = await router.route(WorkerRoute(id="x", endpoint=endpoint, concurrency=1))
        async with client(port) as c:
            c.get()
            await until(lambda: router.facts.samples and router.newest().in_flight == 1)
        await router.settled(1)
        assert router.facts.codes() == {"aborted": 1}
    async with worker() as w:
        await router.route(w.route(1))
        assert (await get(port)).status == 200


async def test_a_dead_worker_is_no_black_hole(router: Router) -> None:
    """It has the least load of all, and is not picked for that."""
    dead = await Worker("dead").open()
    await dead.close()
    async with worker("alive") as alive:
        port = await router.route(dead.route(None), alive.route(None))
        answers = await together(*(post(port, "/", b"x") for _ in range(100)))
        assert {answer.body for answer in answers} == {b"alive"}


@pytest.mark.parametrize(
    ("method", "policy", "again"),
    [
        ("GET", "idempotent", True),
        ("PUT", "idempotent", True),
        ("DELETE", "idempotent", True),
        ("POST", "idempotent", False),
        ("PATCH", "idempotent", False),
        ("POST", "always", True),
        ("GET", "never", False),
    ],
)
async def test_what_may_be_asked_again(router: Router, method: str, policy: str, again: bool) -> None:
    dying = Dying(1)
    async with worker("w", dying) as w:
        port = await router.route(w.route(1), retry=policy)
        answer = await get(port, "/", method=method)
        assert answer.status == (200 if again else 502)
        assert len(w.heard) == (2 if again else 1)


async def test_a_request_is_asked_five_times_at_most(router: Router) -> None:
    async with worker("w", Dying(100)) as w:
        port = await router.route(w.route(1))
        answer = await get(port)
        assert (answer.status, len(w.heard)) == (502, 5)
        assert "5 times" in answer.error


async def test_a_failed_request_goes_to_another_worker(router: Router) -> None:
    async with worker("bad", Dying(100)) as bad, worker("good") as good:
        port = await router.route(bad.route(None), good.route(None))
        for _ in range(10):
            assert (await get(port)).body == b"good"
        assert bad.heard


async def test_the_body_goes_again_too_if_it_is_not_too_large(router: Router) -> None:
    async with worker("w", Dying(1)) as w:
        port = await router.route(w.route(1))
        answer = await _put(port, b"x" * 500_000)
        assert (answer.status, w.heard[1].body) == (200, b"x" * 500_000)
    async with worker("w", Dying(1)) as w:
        port = await router.route(w.route(1))
        assert (await _put(port, b"x" * 1_500_000)).status == 502
        assert len(w.heard) == 1


async def _put(port: int, body: bytes):
    async with client(port) as c:
        c.get("/", f"Content-Length: {len(body)}", method="PUT")
        c.send(body)
        return await c.answer()


async def test_a_retried_request_keeps_its_place_in_the_queue(router: Router) -> None:
    dying = Dying(0)
    gate = asyncio.Event()

    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await dying(heard, reader, writer)

    async with worker("w", handle) as w:
        port = await router.route(w.route(1))
        pending = []
        for i in range(4):
            pending.append(asyncio.ensure_future(get(port, f"/{i}")))
            await until(lambda n=i: router.facts.samples and router.newest().queued == n)
        dying.left = 2
        gate.set()
        await together(*pending)
        assert [heard.path for heard in w.heard] == ["/0", "/0", "/0", "/1", "/2", "/3"]


async def test_a_connection_that_the_worker_closed_while_idle_loses_no_post(router: Router) -> None:
    """The worker closes right after its answer, without having said so."""

    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.body = await read_body(reader, heard.fields)
        writer.write(ok())
        await writer.drain()
        writer.close()

    async with worker("w", handle) as w:
        port = await router.route(w.route(4))
        async with client(port) as c:
            for i in range(200):
                c.post(f"/{i}", b"once")
                assert (await c.answer()).status == 200
        assert len(w.heard) == 200


async def test_a_post_and_the_end_of_the_idle_connection_at_the_same_moment(router: Router) -> None:
    """The router stands still meanwhile, so that it finds both at once, the request first."""
    async with worker() as w:
        port = await router.route(w.route(1))
        async with client(port) as c:
            for _ in range(5):
                c.post("/", b"first")
                assert (await c.answer()).status == 200
                os.kill(router.link.pid, signal.SIGSTOP)
                try:
                    c.post("/", b"second")
                    await c.writer.drain()
                    for writer in list(w._writers):
                        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
                finally:
                    os.kill(router.link.pid, signal.SIGCONT)
                assert (await c.answer()).status == 200


async def test_a_connection_is_not_used_after_two_idle_seconds(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1))
        await get(port)
        assert w.connections == 1
        await until(lambda: w.closed_at, "the idle connection was never closed")
        await get(port)
        assert w.connections == 2


async def test_an_endpoint_that_makes_no_sense_harms_nobody_else(router: Router) -> None:
    async with worker() as w:
        other = await router.route(w.route(1), service="app/other")
        port = await router.route(
            WorkerRoute(id="x", endpoint="no.such.host.invalid:80", concurrency=1), timeout=1.0
        )
        assert (await get(port)).status == 504
        assert (await get(other)).status == 200
