"""gRPC, HTTP/2, TLS and whom to believe, through a real HAProxy."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stoker.model.door import Tls
from stoker.plugin.ports import InnerRouter
from stoker.plugin.testing.router_bench import SERVICE, Bench, Link
from stoker.plugin.testing.router_peers import Worker, ask, read_answer, request, route_to, until

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytestmark = pytest.mark.anyio
MAKE = "stoker_haproxy.plugin:make"


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[Link]:
    bench = Bench(folder, MAKE, {})
    async with bench.linked() as link:
        yield link
    await bench.end_everything()


class Model:
    """A gRPC worker: `/t.T/Unary` holds a slot for 50 ms, `/t.T/Count` streams, `/t.T/Echo` both ways."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = self.peak = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def service(self, details: Any) -> Any:
        kinds = {
            "/t.T/Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "/t.T/Count": grpc.unary_stream_rpc_method_handler(self._count),
            "/t.T/Echo": grpc.stream_stream_rpc_method_handler(self._echo),
        }
        return kinds.get(details.method)

    def _unary(self, data: bytes, context: Any) -> bytes:
        with self._lock:
            self.busy += 1
            self.peak = max(self.peak, self.busy)
        self._ended.wait(0.05)
        with self._lock:
            self.busy -= 1
        return self.name.encode()

    def _count(self, data: bytes, context: Any) -> Iterator[bytes]:
        yield from (str(number).encode() for number in range(int(data)))

    def _echo(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from messages


@contextmanager
def serving(name: str) -> Iterator[tuple[Model, int]]:
    model = Model(name)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((model,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield model, port
    finally:
        server.stop(None).wait()


async def test_grpc_calls_go_to_the_workers_slots_one_by_one(tmp_path: Path) -> None:
    """Calls over one connection of a client, each to a free slot; unary, streamed and both ways."""
    with serving("a") as (a, first), serving("b") as (b, second):
        async with linked(tmp_path) as link:
            workers = [route_to("a", first, 1), route_to("b", second, 1)]
            port = await link.route(*workers, protocol="grpc")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                unary = channel.unary_unary("/t.T/Unary")
                names = await asyncio.gather(*(unary(b"x", timeout=20) for _ in range(12)))
                assert set(Counter(names)) == {b"a", b"b"}
                assert (a.peak, b.peak) == (1, 1)
                counted = [one async for one in channel.unary_stream("/t.T/Count")(b"4", timeout=20)]
                assert counted == [b"0", b"1", b"2", b"3"]
                both = channel.stream_stream("/t.T/Echo")(timeout=20)
                for message in (b"one", b"two"):
                    await both.write(message)
                    assert await both.read() == message
                await both.done_writing()
                assert await both.read() is grpc.aio.EOF
            await until(lambda: link.facts.total("completions") == 14, "all are counted")


async def test_grpc_calls_wait_at_zero_and_are_refused_in_their_own_words(tmp_path: Path) -> None:
    with serving("a") as (_, worker):
        async with linked(tmp_path) as link:
            port = await link.route(protocol="grpc")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                unary = channel.unary_unary("/t.T/Unary")
                waiting = [asyncio.ensure_future(unary(b"x", timeout=20)) for _ in range(3)]
                await until(lambda: link.facts.demands, "a worker is asked for")
                await link.route(route_to("a", worker, 1))
                assert await asyncio.gather(*waiting) == [b"a"] * 3
                await link.route(held="service web is stopped by the operator")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await unary(b"x", timeout=20)
                assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
                assert refused.value.details() == "service web is stopped by the operator"


async def test_http2_without_tls_reaches_the_worker_as_http2(tmp_path: Path) -> None:
    """By prior knowledge, as gRPC and proxies speak it: here by a gRPC client to the protocol `h2`."""
    with serving("a") as (_, worker):
        async with linked(tmp_path) as link:
            port = await link.route(route_to("a", worker, 2), protocol="h2")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert await channel.unary_unary("/t.T/Unary")(b"x", timeout=20) == b"a"


async def test_https_with_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    """The connection that is open notices nothing; the next one has the new certificate."""
    trustme = pytest.importorskip("trustme", reason="trustme is not installed")
    authority = trustme.CA()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    def issue(version: str) -> Tls:
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(key)
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return Tls(cert=str(cert), key=str(key), version=version)

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname="localhost"
        )
        return reader, writer, writer.get_extra_info("ssl_object").getpeercert(True)

    worker = await Worker("w").open()
    async with linked(tmp_path / "router") as link:
        port = await link.route(worker.route(2), tls=issue("1"))
        reader, writer, before = await connect(port)
        writer.write(request("/"))
        assert (await read_answer(reader)).status == 200
        assert "x-forwarded-proto: https" in worker.heads[-1].lower()
        await link.route(worker.route(2), tls=issue("2"))
        assert link.facts.addresses[SERVICE][1] == port
        writer.write(request("/"))
        assert (await read_answer(reader)).status == 200
        other_reader, other, after = await connect(port)
        other.write(request("/"))
        assert (await read_answer(other_reader)).status == 200
        assert after != before
        for one in (writer, other):
            one.transport.abort()
    await worker.close()


async def test_what_strangers_say_of_where_they_come_from_does_not_pass(tmp_path: Path) -> None:
    worker = await Worker("w").open()
    said = ("X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "Forwarded: for=10.0.0.1")
    async with linked(tmp_path) as link:
        port = await link.route(worker.route(1), trusted_proxies=("10.9.9.9/32",))
        assert (await ask(port, fields=said)).status == 200
        head = worker.heads[-1].lower()
        assert "10.0.0.1" not in head
        assert "x-forwarded-for: 127.0.0.1\r\n" in head
        assert "x-forwarded-proto: http\r\n" in head
        assert "x-request-id: " in head
        port = await link.route(worker.route(1), trusted_proxies=("127.0.0.0/8",))
        assert (await ask(port, fields=said)).status == 200
        head = worker.heads[-1].lower()
        assert "x-forwarded-for: 10.0.0.1\r\n" in head
        assert "x-forwarded-proto: https\r\n" in head
    await worker.close()


async def test_a_proxy_says_who_the_client_is(tmp_path: Path) -> None:
    worker = await Worker("w").open()
    async with linked(tmp_path) as link:
        port = await link.route(worker.route(1), proxy_protocol=True)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n" + request("/"))
        assert (await read_answer(reader)).status == 200
        assert "x-forwarded-for: 192.0.2.7\r\n" in worker.heads[-1].lower()
        writer.transport.abort()
    await worker.close()


async def test_a_large_body_is_refused(tmp_path: Path) -> None:
    worker = await Worker("w").open()
    async with linked(tmp_path) as link:
        port = await link.route(worker.route(1), max_body=1000)
        assert (await ask(port, body=b"x" * 1000)).status == 200
        refused = await ask(port, body=b"x" * 1001)
        assert (refused.status, refused.error) == (413, "the body is larger than it may be")
    await worker.close()


async def test_doors_of_another_router_come_in_by_a_socket_of_their_own(tmp_path: Path) -> None:
    """Without TLS or PROXY headers, whatever the address asks for; what they say of the client counts."""
    worker = await Worker("w").open()
    async with linked(tmp_path) as link:
        await link.route(worker.route(1), proxy_protocol=True, trusted_proxies=("10.9.9.9/32",))
        assert isinstance(link.router, InnerRouter)
        for timeout in (60.0, 30.0):  # another timeout is another process, at the same path
            await link.route(worker.route(1), timeout=timeout)
            path = link.router.inside(SERVICE).removeprefix("unix:")
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request("/door", fields=("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")))
            assert (await read_answer(reader)).status == 200
            head = worker.heads[-1].lower()
            assert "x-forwarded-for: 192.0.2.1\r\n" in head
            assert "x-forwarded-proto: https\r\n" in head
            writer.transport.abort()
    await worker.close()
