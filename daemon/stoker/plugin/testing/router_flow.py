"""The suite of routers: a request's way. Passing on, slots, the queue, holding, draining."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from stoker.plugin.testing.router_bench import Link
from stoker.plugin.testing.router_peers import (
    Load,
    Worker,
    WorkerProcess,
    ask,
    read_answer,
    request,
    together,
    until,
)


class Flow:
    """What happens to requests."""

    async def test_requests_and_answers_pass_whole(self, link: Link) -> None:
        """Heads, bodies both ways, and where a request came from."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(2))
        body = bytes(range(256)) * 2000
        answer = await ask(port, "/path?x=1", body=body, fields=("X-Mine: yes",))
        assert (answer.status, answer.body) == (200, b"w")
        assert worker.bodies == [body]
        head = worker.heads[0].lower()
        assert head.startswith("post /path?x=1 http/1.1\r\n")
        for field in ("x-mine: yes", "x-forwarded-for: 127.0.0.1", "x-forwarded-host: suite", "host: suite"):
            assert f"\r\n{field}\r\n" in head, field
        await worker.close()

    async def test_events_pass_as_they_come(self, link: Link) -> None:
        """Nothing is kept back until the answer is whole."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(2))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/events"))
        times = []
        for number in range(3):
            await asyncio.wait_for(reader.readuntil(b"data: %d" % number), 10)
            times.append(time.monotonic())
        assert times[1] - times[0] > 0.1, "the first came with the second"
        assert times[2] - times[1] > 0.1, "the second came with the third"
        writer.transport.abort()
        await worker.close()

    async def test_an_upgraded_connection_is_a_pipe(self, link: Link) -> None:
        """WebSocket, for example."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(2))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/upgrade", fields=("Connection: Upgrade", "Upgrade: echo")))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101 ")
        for word in (b"one", b"two"):
            writer.write(word)
            assert await asyncio.wait_for(reader.readexactly(3), 10) == word
        writer.transport.abort()
        await until(lambda: not worker.busy, "the worker hears that the client is gone")
        await worker.close()

    async def test_a_client_that_goes_away_is_told_to_its_worker(self, link: Link) -> None:
        """Its slot is wanted by others."""
        worker = await Worker("w").open()
        worker.gate.clear()
        port = await link.route(worker.route(1))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/"))
        await until(lambda: worker.busy, "the request is in the worker")
        writer.transport.abort()
        await until(lambda: worker.given_up == 1, "the worker's connection is closed")
        worker.gate.set()
        assert (await ask(port)).status == 200
        await worker.close()

    async def test_no_worker_has_more_than_its_slots(self, link: Link) -> None:
        """What is over waits; every slot is used."""
        workers = [await Worker(name).open() for name in ("a", "b")]
        port = await link.route(workers[0].route(2), workers[1].route(3))
        answers = await together([ask(port, "/?ms=20") for _ in range(40)])
        assert {answer.status for answer in answers} == {200}
        assert [worker.peak for worker in workers] == [2, 3]
        for worker in workers:
            await worker.close()

    async def test_the_queue_is_first_in_first_out(self, link: Link) -> None:
        """Also when the one that waits longest came over another connection."""
        worker = await Worker("w").open()
        worker.gate.clear()
        port = await link.route(worker.route(1))
        asked = [asyncio.ensure_future(ask(port, "/first"))]
        await until(lambda: worker.busy, "the first is in the worker")
        for number in range(8):
            asked.append(asyncio.ensure_future(ask(port, f"/{number}")))
            await asyncio.sleep(0.05)
        worker.gate.set()
        await together(asked)
        assert worker.order == ["/first", *(f"/{number}" for number in range(8))]
        await worker.close()

    async def test_requests_wait_for_the_first_worker(self, link: Link) -> None:
        """The daemon hears at once that it needs one; they are then answered in order, and never too many."""
        port = await link.route()
        asked = []
        for number in range(6):
            asked.append(asyncio.ensure_future(ask(port, f"/{number}", body=b"x" if number % 2 else None)))
            await asyncio.sleep(0.05)
        await until(lambda: "suite/web" in link.facts.demands, "a demand is told")
        worker = await Worker("w").open()
        await link.route(worker.route(1))
        assert {answer.status for answer in await together(asked)} == {200}
        assert worker.order == [f"/{number}" for number in range(6)]
        assert worker.peak == 1
        await worker.close()

    async def test_a_connection_without_a_request_is_none(self, link: Link) -> None:
        """Whoever only looks whether the address is open starts no worker."""
        port = await link.route()
        for _ in range(3):
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
        asked = asyncio.ensure_future(ask(port))
        await until(lambda: "suite/web" in link.facts.demands, "a demand is told")
        worker = await Worker("w").open()
        await link.route(worker.route(1))
        assert (await asked).status == 200
        await until(lambda: link.facts.total("completions") == 1, "it is counted")
        assert link.facts.total("arrivals") == 1
        assert link.facts.codes() == {"2xx": 1}
        await worker.close()

    async def test_a_worker_without_a_limit_takes_all_that_waited(self, link: Link) -> None:
        """At once, and what comes later too."""
        port = await link.route()
        asked = [asyncio.ensure_future(ask(port)) for _ in range(5)]
        await until(lambda: "suite/web" in link.facts.demands, "a demand is told")
        worker = await Worker("w").open()
        worker.gate.clear()
        await link.route(worker.route())
        await until(lambda: worker.busy == 5, "all of them are in the worker")
        worker.gate.set()
        assert {answer.status for answer in await together(asked)} == {200}
        assert (await ask(port)).status == 200
        await worker.close()

    async def test_new_workers_take_from_the_queue(self, link: Link) -> None:
        """What waits does not belong to the workers that were there when it came."""
        first, second = await Worker("a").open(), await Worker("b").open()
        first.gate.clear()
        port = await link.route(first.route(1))
        asked = [asyncio.ensure_future(ask(port)) for _ in range(4)]
        await until(lambda: first.busy == 1, "one is in the worker")
        await link.route(first.route(1), second.route(1))
        await until(lambda: len(second.order) == 3, "the new worker has answered the others")
        first.gate.set()
        await together(asked)
        for worker in (first, second):
            await worker.close()

    async def test_a_draining_worker_finishes_what_it_has(self, link: Link) -> None:
        """It gets nothing new, and `drained` is told once: not before its last answer."""
        old, new = await Worker("old").open(), await Worker("new").open()
        old.gate.clear()
        port = await link.route(old.route(2))
        held = asyncio.ensure_future(ask(port))
        await until(lambda: old.busy, "a request is in the worker")
        await link.route(old.route(2, draining=True), new.route(2))
        answers = await together([ask(port) for _ in range(6)])
        assert {answer.body for answer in answers} == {b"new"}
        assert link.facts.drains == []
        old.gate.set()
        assert (await held).body == b"old"
        await until(lambda: link.facts.drains, "it is told that it has drained")
        await link.route(new.route(2))
        assert (await ask(port)).body == b"new"
        assert link.facts.drains == ["old"]
        for worker in (old, new):
            await worker.close()

    async def test_a_worker_that_left_the_table_finishes_too(self, link: Link) -> None:
        """Nothing that runs is cut because the table changed."""
        old, new = await Worker("old").open(), await Worker("new").open()
        old.gate.clear()
        port = await link.route(old.route(1))
        held = asyncio.ensure_future(ask(port))
        await until(lambda: old.busy, "a request is in the worker")
        await link.route(new.route(1))
        assert (await ask(port)).body == b"new"
        old.gate.set()
        assert (await held).body == b"old"
        for worker in (old, new):
            await worker.close()

    async def test_no_request_fails_while_the_set_of_workers_changes(self, link: Link) -> None:
        """Workers come, leave without having been drained, and come back under load."""
        workers = [await Worker(name).open() for name in "abcd"]
        port = await link.route(*(worker.route(2) for worker in workers))
        load = Load(port, 8)
        for number in range(16):
            await load.more(20)
            there = [worker for place, worker in enumerate(workers) if place != number % 4]
            await link.route(*(worker.route(2) for worker in there))
        await load.stop()
        assert load.failed == []
        assert max(worker.peak for worker in workers) <= 2
        for worker in workers:
            await worker.close()

    async def test_a_killed_worker_costs_no_request_that_can_be_repeated(self, link: Link) -> None:
        """Though the table still has it: what it had is asked of the others."""
        workers = [await WorkerProcess(name).start() for name in "abc"]
        port = await link.route(*(worker.route(2) for worker in workers))
        load = Load(port, 6)
        await load.more(60)
        await workers[0].kill()
        await load.more(200)
        await link.route(*(worker.route(2) for worker in workers[1:]))
        await load.more(60)
        await load.stop()
        assert load.failed == []
        for worker in workers:
            await worker.kill()

    async def test_a_request_that_may_have_been_done_is_not_done_twice(self, link: Link) -> None:
        """A POST whose worker breaks off is 502; where the service says `retry: always` it is asked again."""
        for retry, status in (("idempotent", 502), ("always", 200)):
            dying, other = await Worker("dying").open(), await Worker("other").open()
            dying.gate.clear()
            port = await link.route(dying.route(1), retry=retry)
            asked = asyncio.ensure_future(ask(port, body=b"do it"))
            await until(partial(getattr, dying, "busy"), "it is in the worker")
            await link.route(dying.route(1), other.route(1))
            await dying.close()
            assert (await asked).status == status
            assert len(other.order) == (1 if retry == "always" else 0)
            await link.route()
            await other.close()

    async def test_one_connection_carries_many_requests(self, link: Link) -> None:
        """Kept open between them, and pipelined."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(1))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(3):
            writer.write(request(f"/{number}"))
        for _ in range(3):
            assert (await asyncio.wait_for(read_answer(reader), 10)).status == 200
        assert worker.order == ["/0", "/1", "/2"]
        writer.transport.abort()
        await worker.close()
