"""What passes through the router, and what does not: framing, streaming, tunnels, refusals."""

import asyncio
import hashlib
import os
import socket
import struct
import time

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from plugins.router.harness import (
    Heard,
    Router,
    client,
    get,
    ok,
    post,
    read_body,
    together,
    until,
    worker,
)
from stoker.model.state import WorkerRoute

pytestmark = pytest.mark.anyio


def writes(*pieces: bytes, close: bool = False):
    """A worker that answers with these bytes, whatever is asked."""

    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.body = await read_body(reader, heard.fields)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if close:
            writer.close()

    return handle


# --- requests ---------------------------------------------------------------------------------------------


async def test_a_request_reaches_the_worker_and_its_answer_comes_back(router: Router) -> None:
    async with worker("w0", writes(ok(b"hello", "X-Mine: 1"))) as w:
        port = await router.route(w.route())
        answer = await get(port, "/a/b?c=%20d", "X-Yours: 2")
        assert (answer.status, answer.body, answer.fields["x-mine"]) == (200, b"hello", "1")
        assert w.heard[0].line == "GET /a/b?c=%20d HTTP/1.1"
        assert w.heard[0].fields["x-yours"] == "2"


async def test_both_sides_keep_their_connections(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        async with client(port) as c:
            for _ in range(50):
                c.get()
                assert (await c.answer()).status == 200
        assert w.connections == 1


async def test_pipelined_requests_are_answered_in_order(router: Router) -> None:
    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.body = await read_body(reader, heard.fields)
        writer.write(ok(heard.path.encode() + b"=" + heard.body))

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            for i in range(0, 200, 2):
                c.post(f"/{i}", b"x" * i)
                c.get(f"/{i + 1}", "Transfer-Encoding: chunked", method="POST")
                c.send(b"2\r\nab\r\n0\r\n\r\n")
            for i in range(0, 200, 2):
                assert (await c.answer()).body == b"/%d=%b" % (i, b"x" * i)
                assert (await c.answer()).body == b"/%d=ab" % (i + 1)
        assert w.connections == 1


async def test_many_pipelined_requests_that_are_refused_at_once(router: Router) -> None:
    port = await router.route(held="stopped by the operator")
    async with client(port) as c:
        for _ in range(3000):
            c.get()
        for _ in range(3000):
            assert (await c.answer()).status == 503


BYTE_BY_BYTE = (
    b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n"
)


async def test_a_request_may_come_byte_by_byte(router: Router) -> None:
    async with worker("w") as w:
        port = await router.route(w.route())
        async with client(port) as c:
            for byte in BYTE_BY_BYTE:
                c.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await c.answer()).status == 200
        assert w.heard[0].body == b"abc"


async def test_where_a_request_comes_from_is_told(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        await get(port)
        await get(
            port, "/", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: site"
        )
        plain, behind = (heard.fields for heard in w.heard)
        assert (plain["x-forwarded-for"], plain["x-forwarded-proto"]) == ("127.0.0.1", "http")
        assert plain["x-forwarded-host"] == plain["host"] == "test"
        assert behind["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
        assert (behind["x-forwarded-proto"], behind["x-forwarded-host"]) == ("https", "site")


async def test_fields_of_one_hop_do_not_pass(router: Router) -> None:
    hops = ("Keep-Alive: timeout=5", "X-Secret: 1", "Proxy-Connection: keep-alive", "TE: trailers")
    answer = ok(
        b"a", "Connection: keep-alive, X-Internal", "X-Internal: 1", "Keep-Alive: timeout=5", "X-Kept: 1"
    )
    async with worker("w", writes(answer)) as w:
        port = await router.route(w.route())
        told = await get(port, "/", "Connection: keep-alive, x-secret, x-forwarded-for, host", *hops)
        asked = w.heard[0].fields
        assert not {"connection", "keep-alive", "x-secret", "proxy-connection", "te"} & set(asked)
        assert (asked["host"], asked["x-forwarded-for"]) == ("test", "127.0.0.1")
        assert not {"connection", "x-internal", "keep-alive"} & set(told.fields)
        assert told.fields["x-kept"] == "1"


async def test_a_client_that_wants_to_close_is_closed(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get("/", "Connection: close")
            answer = await c.answer()
            assert answer.fields["connection"] == "close"
            assert await c.closed()
        async with client(port) as c:
            c.send("GET / HTTP/1.0\r\n\r\n")
            assert (await c.answer()).body == b"w"
            assert await c.closed()
        assert w.connections == 1  # what the client wants is not the worker's business


async def test_head_has_no_body_but_its_length(router: Router) -> None:
    async with worker("name") as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get(method="HEAD")
            assert (await c.answer(bodyless=True)).fields["content-length"] == "4"
            c.get()
            assert (await c.answer()).body == b"name"


async def test_100_continue_is_answered_at_once_even_while_the_request_waits(router: Router) -> None:
    async with worker() as w:
        port = await router.route()
        async with client(port) as c:
            c.get("/", "Content-Length: 4", "Expect: 100-continue", method="POST")
            assert (await c.head()).startswith(b"HTTP/1.1 100 ")
            c.send(b"body")
            await until(lambda: router.facts.demands)
            await router.route(w.route())
            assert (await c.answer()).status == 200
        assert w.heard[0].body == b"body"
        assert "expect" not in w.heard[0].fields


async def test_a_refused_client_is_not_asked_to_continue(router: Router) -> None:
    port = await router.route(held="on purpose")
    async with client(port) as c:
        c.get("/", "Content-Length: 4", "Expect: 100-continue", method="POST")
        assert (await c.answer()).status == 503
        assert await c.closed()


async def test_an_unknown_expectation_is_refused(router: Router) -> None:
    port = await router.route()
    assert (await get(port, "/", "Expect: a-miracle")).status == 417


async def test_large_bodies_pass_both_ways(router: Router) -> None:
    sent, back = os.urandom(10_000_000), os.urandom(10_000_000)
    async with worker("w", writes(ok(back))) as w:
        port = await router.route(w.route())
        answer = await post(port, "/", sent)
        assert hashlib.sha1(answer.body).digest() == hashlib.sha1(back).digest()
        assert hashlib.sha1(w.heard[0].body).digest() == hashlib.sha1(sent).digest()


async def test_a_chunked_upload_passes_as_it_comes(router: Router) -> None:
    arrived: list[bytes] = []

    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while size := int(await reader.readline(), 16):
            arrived.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        writer.write(ok())

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get("/", "Transfer-Encoding: chunked", method="POST")
            for i in range(5):
                c.send(b"1\r\n%d\r\n" % i)
                await until(lambda i=i: len(arrived) == i + 1, "a chunk was kept back")
            c.send(b"0\r\n\r\n")
            assert (await c.answer()).status == 200


async def test_a_slow_reader_holds_the_worker_back_and_loses_nothing(router: Router) -> None:
    written = 0
    whole = os.urandom(1 << 16) * 512  # 32 MiB

    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole))
        for start in range(0, len(whole), 1 << 16):
            writer.write(whole[start : start + (1 << 16)])
            await writer.drain()
            written = start

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.writer.transport.pause_reading()
            c.get()
            level = -1

            def stuck() -> bool:
                nonlocal level
                before, level = level, written
                return 0 < written == before

            while not stuck():
                await asyncio.sleep(0.1)
            assert written < len(whole) / 2, "the router took it all in"
            c.writer.transport.resume_reading()
            answer = await c.answer()
            assert hashlib.sha1(answer.body).digest() == hashlib.sha1(whole).digest()
            c.get()  # the worker's connection reads again for the next one
            assert len((await c.answer()).body) == len(whole)


async def test_an_answer_may_come_before_the_request_is_whole(router: Router) -> None:
    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get("/", "Content-Length: 1000", method="POST")
            c.send(b"x" * 10)
            answer = await c.answer()
            assert (answer.status, answer.body) == (413, b"big")
            assert await c.closed()


# --- answers ----------------------------------------------------------------------------------------------


async def test_events_are_not_kept_back(router: Router) -> None:
    steps = [asyncio.Event() for _ in range(5)]

    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for i, step in enumerate(steps):
            await step.wait()
            writer.write(b"9\r\ndata: %d\n\n\r\n" % i)
        writer.write(b"0\r\n\r\n")

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get()
            await c.head()
            for i, step in enumerate(steps):
                began = time.monotonic()
                step.set()
                assert await c.reader.readexactly(14) == b"9\r\ndata: %d\n\n\r\n" % i
                assert time.monotonic() - began < 1.0  # 100 times what it takes, and less than any buffering
            assert await c.reader.readexactly(5) == b"0\r\n\r\n"


async def test_an_answer_that_ends_with_the_connection(router: Router) -> None:
    async with worker("w", writes(b"HTTP/1.0 200 OK\r\n\r\nall ", b"of it", close=True)) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get()
            answer = await c.answer()
            assert answer.body == b"all of it"
            assert answer.head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.fields["connection"] == "close"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body(router: Router, status: str) -> None:
    async with worker("w", writes(f"HTTP/1.1 {status}\r\n\r\n".encode())) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            for _ in range(2):
                c.get()
                assert (await c.answer()).status == int(status[:3])
        assert w.connections == 1


async def test_early_hints_pass_and_a_workers_continue_does_not(router: Router) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with worker("w", writes(early + ok())) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get()
            assert (await c.head()).startswith(b"HTTP/1.1 103 ")
            assert (await c.answer()).status == 200
        async with client(port) as c:
            c.send("GET / HTTP/1.0\r\n\r\n")
            assert (await c.head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
        b"HTTP/1.1 200 OK\r\nfolded: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 O",
    ],
)
async def test_a_worker_that_says_nonsense_is_a_502(router: Router, nonsense: bytes) -> None:
    async with worker("w", writes(nonsense, close=True)) as w:
        port = await router.route(w.route())
        answer = await get(port)
        assert answer.status == 502
        assert answer.error
        assert len(w.heard) == 1, "an answer had begun, so it must not be asked again"


async def test_a_worker_that_says_more_than_an_answer_is_not_trusted_again(router: Router) -> None:
    async with worker("w", writes(ok() + ok(b"an answer that nobody asked for"))) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            for _ in range(3):
                c.get()
                assert (await c.answer()).body == b"fine"
        assert w.connections == 3


async def test_a_cut_answer_is_seen_as_cut(router: Router) -> None:
    async with worker("w", writes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", close=True)) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get()
            assert b"200" in await c.head()
            assert await c.rest() == b"half"


# --- tunnels ----------------------------------------------------------------------------------------------


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_a_websocket_passes_and_takes_a_slot(router: Router) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        port = await router.route(WorkerRoute(id="ws", endpoint=endpoint, concurrency=1))
        async with connect(f"ws://127.0.0.1:{port}/chat", compression=None) as socket:
            for message in ("a", "b" * 100_000, b"\x00\xff"):
                await socket.send(message)
                assert await socket.recv() == message
            await until(lambda: router.facts.samples and router.newest().in_flight == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await get(port)  # the only slot is taken
        async with connect(
            f"ws://127.0.0.1:{port}/chat"
        ) as socket:  # with compression, after the first ended
            await socket.send("again")
            assert await socket.recv() == "again"
    with pytest.raises(websockets.ConnectionClosed):
        await socket.recv()


async def test_a_tunnel_ends_on_both_sides_when_one_ends(router: Router) -> None:
    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\nhi")
        while data := await reader.read(100):
            writer.write(data.upper())
            if data == b"bye":
                break
        writer.close()

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        for last in (b"bye", b""):
            async with client(port) as c:
                c.get("/", "Connection: Upgrade", "Upgrade: raw")
                c.send(b"early")  # the client may speak before it hears that the tunnel is there
                head = await c.head()
                assert b"Upgrade: raw" in head
                assert await c.reader.readexactly(7) == b"hiEARLY"
                if last:
                    c.send(last)
                    assert await c.rest() == b"BYE"
        await until(lambda: w.busy == 0, "the client's end did not reach the worker")
        assert "connection" in w.heard[0].fields


async def test_the_last_words_in_a_tunnel_reach_the_worker(router: Router) -> None:
    heard = bytearray()

    async def handle(request: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")
        heard.extend(await reader.read(-1))
        writer.close()

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get("/", "Connection: Upgrade", "Upgrade: raw")
            await c.head()
            c.send(b"x" * 1_000_000)
            await c.writer.drain()
            c.writer.close()
            await until(lambda: len(heard) == 1_000_000, "the end was cut off")
    await router.settled(1)
    assert router.facts.codes() == {"1xx": 1}


async def test_an_upgrade_that_the_worker_declines_is_a_plain_answer(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get("/", "Connection: Upgrade", "Upgrade: websocket")
            c.get("/second")
            assert (await c.answer()).body == b"w"
            assert (await c.answer()).body == b"w"
        await get(
            port, "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
        )
        assert not {"upgrade", "http2-settings", "connection"} & set(w.heard[-1].fields)


# --- what is refused --------------------------------------------------------------------------------------

POST = "POST / HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX: 1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400),
        (
            f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}",
            400,
        ),
        (
            f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{SMUGGLED}",
            400,
        ),
        (POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400),
        (POST + "Content-Length: 5\r\ncontent-length: 5\r\n\r\nabcde", 400),
        (POST + "Content-Length: 5, 5\r\n\r\nabcde", 400),
        (POST + "Content-Length: +5\r\n\r\nabcde", 400),
        (POST + "Content-Length: 0x5\r\n\r\nabcde", 400),
        (POST + "Content-Length: -1\r\n\r\nabcde", 400),
        (POST + "Content-Length:\r\n\r\nabcde", 400),
        (POST + "Content-Length: 9999999999999999999\r\n\r\n", 400),
        (f"{POST}Transfer-Encoding: xchunked\r\n\r\n{SMUGGLED}", 400),
        (f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n{SMUGGLED}", 400),
        (f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n{SMUGGLED}", 400),
        (
            f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{SMUGGLED}",
            400,
        ),
        (f"{POST}Transfer-Encoding:\x0bchunked\r\n\r\n{SMUGGLED}", 400),
        (f"{POST}Transfer-Encoding\r\n : chunked\r\n\r\n{SMUGGLED}", 400),
        (f"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "a" * 70_000 + "\r\n\r\n", 431),
    ],
)
async def test_a_request_that_can_be_read_two_ways_is_refused(
    router: Router, request_text: str, status: int
) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.send(request_text.encode("latin1"))
            answer = await c.answer()
            assert answer.status == status, answer.error
            assert answer.error
            assert answer.fields["connection"] == "close"
            assert await c.closed(), "something after the refused request was answered"
        assert not w.heard


async def test_a_body_that_goes_wrong_later_ends_the_request_at_the_worker_too(router: Router) -> None:
    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)  # there will not be as many

    async with worker("w", handle) as w:
        port = await router.route(w.route())
        async with client(port) as c:
            c.get("/", "Transfer-Encoding: chunked", method="POST")
            c.send(b"1\r\na\r\n")
            await until(lambda: w.busy)
            c.send(b"not a size\r\n")
            assert (await c.answer()).status == 400
            assert await c.closed()
        await until(lambda: not w.busy)


async def test_a_large_head_passes(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route())
        assert (await get(port, "/", "X-Big: " + "a" * 30_000)).status == 200
        assert len(w.heard[0].fields["x-big"]) == 30_000


# --- clients that go away ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_client_that_goes_away_is_felt_by_the_worker_at_once(router: Router, how: str) -> None:
    async with worker() as w:
        port = await router.route(w.route(1))
        late = []
        for _ in range(5):
            before = w.hung_up
            async with client(port) as c:
                c.get("/?ms=60000")
                await until(lambda: w.busy == 1)
                left = time.monotonic()
                if how == "half-close":
                    c.writer.write_eof()
                elif how == "close":
                    c.writer.close()
                else:
                    c.abort()
                await until(lambda n=before: w.hung_up == n + 1)
            late.append(w.closed_at - left)
        assert min(late) < 0.02
        assert (await get(port)).status == 200, "the slot was not given back"
        await router.settled(6)
        assert router.facts.codes() == {"aborted": 5, "2xx": 1}


@pytest.mark.parametrize("size", [100_000, 30_000_000])
async def test_a_client_that_goes_away_while_its_upload_is_held_back(router: Router, size: int) -> None:
    """Nothing is read from such a client, so its end has to be noticed otherwise. (One that has filled all
    buffers between us can only be noticed if it resets its connection: no other word gets through.)"""
    port = await router.route()
    async with client(port) as c:
        c.get("/", f"Content-Length: {size + 1}", method="POST")
        c.send(b"x" * size)
        await until(lambda: router.facts.samples and router.newest().queued == 1)
        if size > 1_000_000:
            option = struct.pack("ii", 1, 0)
            c.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        c.abort()
        await router.settled(1)
    assert router.facts.codes() == {"aborted": 1}


async def test_clients_at_once_do_not_get_each_others_answers(router: Router) -> None:
    async def handle(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(int(heard.path[1:]) % 7 / 1000)
        writer.write(ok(heard.path.encode()))

    async def one(port: int, number: int) -> None:
        async with client(port) as c:
            for i in range(20):
                c.get(f"/{number * 100 + i}")
                assert (await c.answer()).body == b"/%d" % (number * 100 + i)

    async with worker("a", handle) as a, worker("b", handle) as b:
        port = await router.route(a.route(3), b.route(3))
        await together(*(one(port, number) for number in range(40)))
        assert a.peak <= 3
        assert b.peak <= 3
        assert len(a.heard) + len(b.heard) == 800


async def test_the_same_again_is_read_as_the_same_and_nothing_else_is(router: Router) -> None:
    """What was read last is remembered, on both sides; a request or an answer that only begins alike is not
    that one."""
    bare, none = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
    one, three = ok(b"one"), ok(b"three", "X-A: 1")
    kinds = iter([one, one, three, bare, one, none, one])

    async def say(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.body = await read_body(reader, heard.fields)
        writer.write(next(kinds))

    async with worker(handle=say) as w:
        port = await router.route(w.route())
        async with client(port) as made:
            seen = []
            for method, more in (
                ("POST", ()), ("POST", ()), ("POST", ("X-B: 2",)), ("HEAD", ()), ("POST", ()), ("POST", ()),
                ("POST", ()),
            ):  # fmt: skip
                made.get("/", *more, method=method) if method == "HEAD" else made.post("/", b"abc", *more)
                answer = await made.answer(bodyless=method == "HEAD")
                seen.append((answer.status, answer.body))
            assert seen == [
                (200, b"one"), (200, b"one"), (200, b"three"), (200, b""), (200, b"one"), (204, b""),
                (200, b"one"),
            ]  # fmt: skip
            made.send(b"\0GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await made.answer()).status == 400
        assert [heard.body for heard in w.heard] == [b"abc"] * 3 + [b""] + [b"abc"] * 3
        assert w.heard[2].fields["x-b"] == "2"
        assert len({heard.fields["x-request-id"] for heard in w.heard}) == 7
        assert w.connections == 1
