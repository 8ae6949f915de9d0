"""Who gets which worker and when: slots, the queue, holding, limits, deadlines."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from plugins.router.harness import (
    SERVICE,
    Client,
    Router,
    client,
    get,
    post,
    program_pid,
    together,
    until,
    worker,
)

pytestmark = pytest.mark.anyio


async def queued(router: Router, count: int) -> None:
    """Wait until so many are waiting."""
    await until(lambda: router.facts.samples and router.newest().queued == count, f"{count} did not queue")


async def in_line(router: Router, port: int, paths: list[str], clients: list[Client]) -> None:
    """Send the requests so that they arrive in that order."""
    for made, path in zip(clients, paths, strict=True):
        made.get(path)
        await made.writer.drain()
        # the order of arrival is that of accepted bytes: wait until this one is in the router's hands
        await until(lambda c=made: not unsent(c))
    await queued(router, len(paths))


def unsent(made: Client) -> int:
    return made.writer.transport.get_write_buffer_size()


async def connected(port: int, count: int) -> list[Client]:
    made = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        made.append(Client(reader, writer))
    return made


async def test_a_worker_never_has_more_than_its_slots(router: Router) -> None:
    async with worker("a") as a, worker("b") as b:
        port = await router.route(a.route(2), b.route(3))
        answers = await together(*(get(port, "/?ms=5") for _ in range(100)))
        assert all(answer.status == 200 for answer in answers)
        assert (a.peak, b.peak) == (2, 3)


async def test_without_a_limit_nothing_waits(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(None))
        pending = [asyncio.ensure_future(get(port)) for _ in range(60)]
        await until(lambda: w.busy == 60)
        w.gate.set()
        assert all(answer.status == 200 for answer in await together(*pending))


async def test_the_least_loaded_worker_is_next(router: Router) -> None:
    """Load is in flight over limit, or in flight where there is no limit."""
    for limits, expected in (((1, 2, 4), (1, 2, 4)), ((None, None, None), (3, 2, 2)), ((8, 8, 2), (3, 3, 1))):
        async with worker("a") as a, worker("b") as b, worker("c") as c:
            three = (a, b, c)
            for one in three:
                one.gate.clear()
            port = await router.route(*(w.route(n) for w, n in zip(three, limits, strict=True)))
            pending = []
            for number in range(1, 8):
                pending.append(asyncio.ensure_future(get(port)))
                await until(lambda n=number, ws=three: sum(w.busy for w in ws) == n)
            assert sorted(w.busy for w in three) == sorted(expected)
            for one in three:
                one.gate.set()
            await together(*pending)


async def test_equal_workers_take_turns(router: Router) -> None:
    async with worker("a") as a, worker("b") as b, worker("c") as c:
        port = await router.route(a.route(1), b.route(1), c.route(1))
        served = [(await get(port)).body for _ in range(9)]
        assert served == [b"a", b"b", b"c"] * 3


async def test_first_come_first_served_through_a_hold_and_a_scale_up(router: Router) -> None:
    async with worker("a") as a, worker("b") as b:
        a.gate.clear()
        b.gate.clear()
        port = await router.route()
        clients = await connected(port, 30)
        await in_line(router, port, [f"/{i}" for i in range(30)], clients)
        await router.route(a.route(1))
        await until(lambda: a.busy == 1)
        await router.route(a.route(1), b.route(2))  # what waits is there for the new worker too
        await until(lambda: b.busy == 2)
        a.gate.set()
        b.gate.set()
        assert all([(await c.answer()).status == 200 for c in clients])
        assert a.heard[0].path == "/0"
        order = {heard.path: i for w in (a, b) for i, heard in enumerate(w.heard)}
        for one in (a, b):
            numbers = [int(heard.path[1:]) for heard in one.heard]
            assert numbers == sorted(numbers)
        assert len(order) == 30
        for c in clients:
            c.abort()


async def test_more_slots_take_up_what_waits(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(1))
        pending = [asyncio.ensure_future(get(port)) for _ in range(10)]
        await until(lambda: w.busy == 1)
        await router.route(w.route(4))
        await until(lambda: w.busy == 4)
        await router.route(w.route(2))  # fewer: nobody is thrown out, but nobody comes in either
        w.gate.set()
        await together(*pending)
        assert w.peak == 4


async def test_requests_wait_for_a_service_without_workers(router: Router) -> None:
    port = await router.route()
    async with client(port) as c:
        c.post("/", b"keep me")
        sent = time.monotonic()
        await until(lambda: router.facts.demands)
        assert router.facts.demands[0][1] == SERVICE
        assert router.facts.demands[0][0] - sent < 0.5
        async with worker() as w:
            await router.route(w.route(1))
            assert (await c.answer()).status == 200
            assert w.heard[0].body == b"keep me"


async def test_demand_is_told_at_most_ten_times_a_second(router: Router) -> None:
    port = await router.route()
    clients = await connected(port, 50)
    began = time.monotonic()
    for c in clients:
        c.get()
    await queued(router, 50)
    seconds = time.monotonic() - began
    assert 1 <= len(router.facts.demands) <= 2 + seconds / 0.1
    count = len(router.facts.demands)
    async with worker() as w:
        await router.route(w.route(None))
        for c in clients:
            await c.answer()
        await router.route()  # to zero again: the next request is told again
        clients[0].get()
        await until(lambda: len(router.facts.demands) > count)
    for c in clients:
        c.abort()


async def test_demand_is_told_when_the_last_worker_leaves_people_waiting(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(1))
        pending = [asyncio.ensure_future(get(port)) for _ in range(2)]
        await until(lambda: w.busy == 1)
        assert not router.facts.demands
        await router.route(w.route(1, draining=True))
        await until(lambda: router.facts.demands)
        await router.route(w.route(1))
        w.gate.set()
        await together(*pending)


async def test_a_full_queue_is_503_with_retry_after(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(1), max_queue=2)
        pending = [asyncio.ensure_future(get(port)) for _ in range(3)]
        await queued(router, 2)
        async with client(port) as c:
            c.get()
            refused = await c.answer()
            assert (refused.status, refused.fields["retry-after"]) == (503, "1")
            assert "2 requests are already waiting" in refused.error
            w.gate.set()
            await together(*pending)
            c.get()
            assert (await c.answer()).status == 200, "a refused client keeps its connection"


async def test_a_queue_of_zero_only_takes_what_a_worker_can_have(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(1), max_queue=0)
        first = asyncio.ensure_future(get(port))
        await until(lambda: w.busy == 1)
        assert (await get(port)).status == 503
        w.gate.set()
        assert (await first).status == 200


async def test_too_many_at_once_are_429(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(2), max_concurrency=3)
        pending = [asyncio.ensure_future(get(port)) for _ in range(3)]
        await queued(router, 1)
        refused = await get(port)
        assert (refused.status, refused.fields["retry-after"]) == (429, "1")
        assert "3" in refused.error
        w.gate.set()
        assert all(answer.status == 200 for answer in await together(*pending))


async def test_a_held_service_is_503_with_its_reason_also_for_those_who_wait(router: Router) -> None:
    port = await router.route()
    waiting = asyncio.ensure_future(get(port))
    await queued(router, 1)
    await router.route(held="stopped with `stoker stop web`")
    for answer in (await waiting, await get(port)):
        assert answer.status == 503
        assert answer.error == "stopped with `stoker stop web`"
        assert int(answer.fields["retry-after"]) > 0
    async with worker() as w:
        await router.route(w.route(1), held="")
        assert (await get(port)).status == 200


async def test_who_waits_too_long_gets_504(router: Router) -> None:
    port = await router.route(timeout=0.3)
    began = time.monotonic()
    async with client(port) as c:
        for _ in range(2):
            c.get()
            late = await c.answer()
            assert late.status == 504
            assert "0.3 s" in late.error
    assert time.monotonic() - began > 0.59


async def test_everybody_has_a_deadline_of_his_own(router: Router) -> None:
    port = await router.route(timeout=0.9)
    ends: list[float] = []

    async def one(delay: float) -> None:
        await asyncio.sleep(delay)
        assert (await get(port)).status == 504
        ends.append(time.monotonic())

    await together(one(0.0), one(0.4), one(0.8))
    assert ends[1] - ends[0] > 0.15
    assert ends[2] - ends[1] > 0.15


async def test_a_worker_that_does_not_begin_to_answer_in_time_is_a_504(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1), timeout=0.3)
        first, second = await together(get(port, "/?ms=60000"), get(port, "/?ms=60000"))
        assert {first.status, second.status} == {504}
        await until(lambda: w.hung_up, "the worker was not told")
        assert (await get(port)).status == 200, "the slot was not given back"


async def test_an_answer_that_has_begun_is_not_cut(router: Router) -> None:
    async def handle(heard, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.15)
            writer.write(b"x")

    async with worker("w", handle) as w:
        port = await router.route(w.route(1), timeout=0.3)
        assert (await get(port)).body == b"xxxx"


async def test_a_changed_timeout_holds_for_those_who_wait_already(router: Router) -> None:
    port = await router.route(timeout=3600.0)
    waiting = asyncio.ensure_future(get(port))
    await queued(router, 1)
    await router.route(timeout=0.1)
    assert (await waiting).status == 504


async def test_who_gives_up_leaves_the_queue(router: Router) -> None:
    async with worker() as w:
        port = await router.route()
        clients = await connected(port, 5)
        await in_line(router, port, [f"/{i}" for i in range(5)], clients)
        clients[0].abort()
        clients[3].writer.close()
        await queued(router, 3)
        await router.route(w.route(1))
        for i in (1, 2, 4):
            assert (await clients[i].answer()).status == 200
        assert [heard.path for heard in w.heard] == ["/1", "/2", "/4"]
        for c in clients:
            c.abort()


async def test_the_slot_of_one_who_gives_up_goes_to_the_next(router: Router) -> None:
    async with worker() as w:
        w.gate.clear()
        port = await router.route(w.route(1))
        async with client(port) as first, client(port) as second:
            first.get("/first")
            await until(lambda: w.busy == 1)
            second.get("/second")
            await queued(router, 1)
            first.abort()
            await until(lambda: len(w.heard) == 2)
            w.gate.set()
            assert (await second.answer()).status == 200


async def test_a_thousand_held_requests_are_cheap(router: Router) -> None:
    port = await router.route(max_queue=2000)
    pid = await program_pid(router.context)
    before = memory(pid)
    clients = await connected(port, 1000)
    for i, c in enumerate(clients):
        c.post(f"/{i}", b"x" * 500)
    await queued(router, 1000)
    assert memory(pid) - before < 50 << 20
    used = cpu(pid)
    waited_from = len(router.facts.samples)
    await until(lambda: len(router.facts.samples) >= waited_from + 2)  # two seconds in which nothing happens
    assert cpu(pid) - used < 0.5, "waiting costs time"
    async with worker() as w:
        await router.route(w.route(50))
        assert {(await c.answer()).status for c in clients} == {200}
        assert w.peak == 50
        assert len(w.heard) == 1000
    for c in clients:
        c.abort()
    await router.settled(1000)
    assert router.facts.codes() == {"2xx": 1000}


def memory(pid: int) -> int:
    """Bytes resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """Seconds used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_large_body_waits_outside_and_passes_whole(router: Router) -> None:
    body = os.urandom(5_000_000)
    port = await router.route()
    pid = await program_pid(router.context)
    waiting = [asyncio.ensure_future(post(port, "/", body)) for _ in range(20)]
    await queued(router, 20)
    assert memory(pid) < 200 << 20, "the bodies were read in"
    async with worker() as w:
        await router.route(w.route(4))
        assert {answer.status for answer in await together(*waiting)} == {200}
        assert {heard.body == body for heard in w.heard} == {True}
