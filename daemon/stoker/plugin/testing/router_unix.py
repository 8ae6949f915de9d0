"""The suite of routers: workers that listen on unix sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stoker.plugin.testing.router_bench import SERVICE, Bench, Link
from stoker.plugin.testing.router_peers import Worker, ask, together, until


class UnixWorkers:
    """They are workers like all others."""

    async def test_workers_may_listen_on_unix_sockets(self, link: Link, short: Path) -> None:
        """Beside such with ports; slots, the move of a worker to another path, and draining."""
        worker, other = await Worker("w", f"{short}/w").open(), await Worker("other").open()
        port = await link.route(worker.route(2), other.route(1))
        answers = await together([ask(port, "/?ms=20", body=b"x" * 100_000) for _ in range(12)])
        assert {answer.status for answer in answers} == {200}
        assert (worker.peak, other.peak) == (2, 1)
        moved = await Worker("w", f"{short}/moved").open()
        await link.route(moved.route(1))
        await worker.close()
        assert (await ask(port)).status == 200
        assert moved.order == ["/"]
        moved.gate.clear()
        held = asyncio.ensure_future(ask(port))
        await until(lambda: moved.busy, "a request is in the worker")
        await link.route(moved.route(1, draining=True), other.route(1))
        assert (await ask(port)).body == b"other"
        moved.gate.set()
        assert (await held).body == b"w"
        await until(lambda: link.facts.drains == ["w"], "it is told that it has drained")
        for one in (moved, other):
            await one.close()

    async def test_the_next_daemon_finds_workers_on_unix_sockets(self, bench: Bench, short: Path) -> None:
        """As they are: a request in one of them goes on, and its slot counts."""
        worker = await Worker("w", f"{short}/w").open()
        worker.gate.clear()
        daemon, port = await bench.first_daemon(worker.route(1))
        held = asyncio.ensure_future(ask(port))
        await until(lambda: worker.busy, "a request is in the worker")
        daemon.kill()
        await asyncio.to_thread(daemon.communicate)
        async with bench.linked() as link:
            assert await link.route(worker.route(1)) == port == link.facts.addresses[SERVICE][1]
            other = asyncio.ensure_future(ask(port))
            await asyncio.sleep(0.1)
            assert worker.busy == 1
            worker.gate.set()
            assert (await held).status == (await other).status == 200
            assert worker.peak == 1
        await worker.close()
