"""The suite of routers: addresses, and the life of the program behind them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

from stoker.plugin.ports import HandingRouter
from stoker.plugin.testing.free_ports import free_port
from stoker.plugin.testing.router_bench import SERVICE, Bench, Link, make_router
from stoker.plugin.testing.router_peers import Load, Worker, WorkerProcess, ask, together, until
from stoker.plugin.testing.router_points import expect


class Life:
    """What outlives what."""

    async def test_an_address_is_open_before_there_are_workers_and_stays(self, link: Link) -> None:
        """Told by `bound`; port 0 is chosen once."""
        worker = await Worker("w").open()
        port = await link.route()
        await link.route(worker.route(1))
        await link.route(worker.route(2), max_queue=5, timeout=30.0)
        assert link.facts.addresses[SERVICE] == ("127.0.0.1", port)
        assert (await ask(port)).status == 200
        await worker.close()

    async def test_services_have_addresses_of_their_own(self, link: Link) -> None:
        """One that leaves the table is refused; the others notice nothing."""
        a, b = await Worker("a").open(), await Worker("b").open()
        first, second = free_port(), free_port()
        await link.route(a.route(1), service="suite/a", port=first)
        await link.route(b.route(1), service="suite/b", port=second)
        assert (await ask(first)).body == b"a"
        await link.remove("suite/a")
        await until(lambda: not _open(first), "its address is refused")
        assert (await ask(second)).body == b"b"
        for worker in (a, b):
            await worker.close()

    async def test_an_address_that_is_taken_is_told_and_tried_again(self, link: Link) -> None:
        """Until whoever has it lets it go."""
        worker = await Worker("w").open()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
            routed = asyncio.ensure_future(link.route(worker.route(1), port=port))
            await until(lambda: link.facts.troubles, "trouble is told")
            service, message = link.facts.troubles[0]
            assert service == SERVICE
            assert str(port) in message
        assert await routed == port
        assert (await ask(port)).status == 200
        await worker.close()

    async def test_a_service_can_move_to_another_port(self, link: Link) -> None:
        """What is in flight is answered where it was asked."""
        worker = await Worker("w").open()
        worker.gate.clear()
        before, after = free_port(), free_port()
        await link.route(worker.route(2), port=before)
        asked = asyncio.ensure_future(ask(before))
        await until(lambda: worker.busy, "it is in the worker")
        await link.route(worker.route(2), port=after)
        await until(lambda: link.facts.addresses[SERVICE][1] == after, "the new address is told")
        await until(lambda: not _open(before), "the old address is refused")
        worker.gate.set()
        assert (await asked).status == 200
        assert (await ask(after)).status == 200
        await worker.close()

    async def test_it_serves_on_without_its_daemon_and_is_found_again(self, bench: Bench) -> None:
        """kill -9 of the daemon under load: no request fails, the next one finds the same programs and
        addresses, and may say nothing at first without anything being lost."""
        workers = [await WorkerProcess(name).start() for name in "ab"]
        routes = [worker.route(2) for worker in workers]
        daemon, port = await bench.first_daemon(*routes)
        load = Load(port, 6)
        await load.more(50)
        programs = bench.programs()
        assert programs
        daemon.kill()
        await asyncio.to_thread(daemon.communicate)
        await load.more(100)
        async with bench.linked() as link:
            await load.more(50)  # a daemon that knows nothing yet changes nothing
            assert await link.route(*routes) == port
            await load.more(50)
            assert link.facts.troubles == []
        async with bench.linked() as link:
            await link.route(*routes)
            await load.more(50)
        await load.stop()
        assert load.failed == []
        assert bench.programs() == programs
        for worker in workers:
            await worker.kill()

    async def test_an_address_outlives_daemon_and_program(self, bench: Bench) -> None:
        """Killed together: clients wait for the next ones, and none is refused."""
        expect(make_router(bench.factory, bench.context), "held")
        workers = [await WorkerProcess(name).start() for name in "ab"]
        routes = [worker.route(2) for worker in workers]
        daemon, port = await bench.first_daemon(*routes)
        assert (await ask(port)).status == 200
        await until(lambda: bench.held(port), "its socket is held")
        routing = bench.programs(holding=False)
        daemon.kill()
        await asyncio.to_thread(daemon.communicate)
        for pid in routing:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not set(routing) & set(bench.programs()), "they are gone")
        waiting = [asyncio.ensure_future(ask(port)) for _ in range(6)]
        async with bench.linked() as link:
            assert await link.route(*routes) == port
            assert {answer.status for answer in await together(waiting)} == {200}
            await asyncio.wait_for(link.router.stop(1.0), 20)
            assert bench.programs() == []
            assert not _open(port)
        for worker in workers:
            await worker.kill()

    async def test_a_new_daemon_learns_who_has_drained(self, bench: Bench) -> None:
        """It cannot have heard it when it was told."""
        worker = await Worker("w").open()
        for _ in range(2):
            async with bench.linked() as link:
                port = await link.route(worker.route(1, draining=True))
                await until(link.facts.drains.copy, "it is told that it has drained")
                assert link.facts.drains == ["w"]
        assert port
        await worker.close()

    async def test_a_killed_program_is_bridged(self, bench: Bench, link: Link) -> None:
        """The address refuses nobody; only what was in its hands fails, and the operator hears of it."""
        workers = [await WorkerProcess(name).start() for name in "ab"]
        port = await link.route(*(worker.route(2) for worker in workers))
        assert (await ask(port)).status == 200
        await asyncio.sleep(0.2)  # what bridges it is in place a moment after the address is told
        before = bench.programs()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        answers = [await ask(port) for _ in range(5)]
        assert {answer.status for answer in answers} == {200}
        await until(lambda: link.facts.troubles, "trouble is told")
        await until(lambda: set(bench.programs()).isdisjoint(before), "others run")
        assert link.facts.addresses[SERVICE][1] == port
        for worker in workers:
            await worker.kill()

    async def test_stopping_finishes_what_is_in_flight(self, bench: Bench, link: Link) -> None:
        """Then nothing of it is left."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(1))
        asked = asyncio.ensure_future(ask(port, "/?ms=600"))
        await until(lambda: worker.busy, "it is in the worker")
        await asyncio.wait_for(link.router.stop(10.0), 20)
        assert (await asked).status == 200
        assert bench.programs() == []
        assert not _open(port)
        await worker.close()

    async def test_stopping_waits_no_longer_than_it_may(self, bench: Bench, link: Link) -> None:
        """What does not end is cut."""
        worker = await Worker("w").open()
        worker.gate.clear()
        port = await link.route(worker.route(1))
        asked = asyncio.ensure_future(ask(port))
        await until(lambda: worker.busy, "it is in the worker")
        await asyncio.wait_for(link.router.stop(0.2), 10)
        assert bench.programs() == []
        await asyncio.gather(asked, return_exceptions=True)
        await worker.close()

    async def test_it_is_quiet_at_rest(self, bench: Bench, link: Link) -> None:
        """Its programs do not wake up while there is nothing to do."""
        worker = await Worker("w").open()
        port = await link.route(worker.route(1))
        assert (await ask(port)).status == 200
        await until(lambda: link.facts.samples and not link.facts.samples[-1].arrivals, "it comes to rest")
        switches = -1
        for _ in range(10):  # closing idle connections is worth a few of them
            await asyncio.sleep(0.5)
            before, switches = switches, sum(_switches(pid) for pid in bench.programs())
            if switches - before <= 1:
                break
        assert switches - before <= 1, "wake-ups in half a second at rest"
        await worker.close()

    async def test_an_open_address_changes_routers(self, link: Link) -> None:
        """Taken from whoever has it open, with what already waits in it, and given to the next."""
        expect(link.router, "hand-over")
        assert isinstance(link.router, HandingRouter)
        worker = await Worker("w").open()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = int(sock.getsockname()[1])
            asked = asyncio.ensure_future(ask(port))
            await asyncio.sleep(0.05)
            await link.router.inherit(SERVICE, sock.fileno())
            await link.route(worker.route(1), port=port)
        assert (await asked).status == 200
        worker.gate.clear()
        held = asyncio.ensure_future(ask(port))
        await until(lambda: worker.busy, "one is in the worker")
        await until(lambda: _duplicate(link) is not None, "the socket can be had")
        fd = _duplicate(link)
        assert fd is not None
        await link.route(worker.route(1), leaving=True)
        with socket.socket(fileno=fd) as taken:
            taken.settimeout(10)
            other = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port))
            (await asyncio.to_thread(taken.accept))[0].close()
            worker.gate.set()
            assert (await held).status == 200
            (await other)[1].close()
        await worker.close()


def _duplicate(link: Link) -> int | None:
    assert isinstance(link.router, HandingRouter)
    return link.router.listening(SERVICE)


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])
