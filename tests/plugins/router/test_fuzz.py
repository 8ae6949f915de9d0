"""Whatever comes over a connection, the worker reads the requests that we read, and no others."""

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker_router.access import AccessLog
from stoker_router.client import Client
from stoker_router.crowd import Crowd
from stoker_router.gate import Gate
from stoker_router.reports import Reports
from stoker_router.service import Service
from stoker_router.table import RouteConfig, WorkerConfig
from stoker_router.upstream import Upstream

httptools = pytest.importorskip("httptools")

PIECES = st.sampled_from([
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /o HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    b"POST /w HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /i HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    b"GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n",
    b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"\r\n", b"\0",
    b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /n HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
])  # fmt: skip
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([b"", b"\r", b"\n", b" ", b":", b"0", b"\t"])), max_size=2
)


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.open = True

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.written += b"".join(pieces)

    def close(self) -> None:
        self.open = False

    abort = write_eof = close

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return not self.open

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return ("127.0.0.1", 1) if name == "peername" else None


class Deaf:
    """In place of the watch over hung-up clients."""

    def watch(self, *_: object) -> None: ...

    unwatch = watch


class Read:
    """What a strict worker reads."""

    def __init__(self) -> None:
        self.done = 0

    def on_message_complete(self) -> None:
        self.done += 1


def run(stream: bytes, cuts: list[int]) -> tuple[list[Wire], bytes]:
    """The connections to workers with what went there, and what the client was told."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_run(loop, stream, cuts))
    finally:
        loop.close()


async def _run(loop: asyncio.AbstractEventLoop, stream: bytes, cuts: list[int]) -> tuple[list[Wire], bytes]:
    reports = Reports(loop, 1.0, AccessLog(loop, "/dev/null", lambda: 0.0))
    service = Service(loop, reports, RouteConfig("a/b", "127.0.0.1", 0))
    service.configure(
        service.route._replace(retry="always", workers=(WorkerConfig("w", "h", 1, None, draining=False),))
    )
    home = service.pool.workers["w"].idle
    ups = [Upstream(home) for _ in range(12)]
    for up in ups:
        up.connection_made(Wire())
        up.idle_since = loop.time() + 1000
        home.append(up)
    client, wire = Client(loop, Gate(Deaf(), Crowd(10), service=service)), Wire()
    client.connection_made(wire)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        if wire.open:
            client.data_received(stream[start:end])
        for _ in range(30):
            await asyncio.sleep(0)
            busy = [up for up in ups if up.exchange is not None and up.exchange.whole]
            for up in busy:
                up.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            if not busy:
                break
    if client._timer is not None:
        client._timer.cancel()
    return [up.transport for up in ups], wire.written


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, min_size=1, max_size=4), EDITS, st.lists(st.integers(0, 10_000), max_size=4))
def test_the_worker_reads_what_we_read(
    pieces: list[bytes], edits: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(pieces)
    for at, put in edits:
        place = at % max(1, len(stream))
        stream = stream[:place] + put + stream[place + 1 :]
    sent, told = run(stream, cuts)
    read = 0
    for wire in sent:
        worker = Read()
        try:
            httptools.HttpRequestParser(worker).feed_data(wire.written)
        except httptools.HttpParserInvalidMethodError:
            return  # a good token, and no method that llhttp knows
        except httptools.HttpParserError:
            assert not wire.open, (stream, wire.written)  # it went wrong half-way: the worker is cut off
        read += worker.done
    answered = len(re.findall(rb"HTTP/1\.1 200 OK\r\n", told))
    assert read == answered, (stream, told)
    assert len(re.findall(rb"HTTP/1\.1 [45]", told)) <= 1, "after an error the connection is over"
