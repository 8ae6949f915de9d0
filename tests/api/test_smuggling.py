"""Messages that two readers could read in two ways: each is refused, and what it smuggles is not done."""

from __future__ import annotations

import socket
from contextlib import closing, suppress

import pytest

from api.fakes import FakeDaemon, Served
from stoker.api.unixsocket import connect

HIDDEN = b"POST /v1/down HTTP/1.1\r\nhost: stoker\r\ncontent-length: 0\r\n\r\n"
"""What must not be done. Another reader takes it for a part of the body before it."""
POST = b"POST /v1/reload HTTP/1.1\r\nhost: stoker\r\n"
CHUNK = b"0\r\n\r\n"

SMUGGLED = {
    "both lengths": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK + HIDDEN,
    "both, the other way round": POST
    + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n"
    + CHUNK
    + HIDDEN,
    "two lengths": POST + b"content-length: 0\r\ncontent-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "two lengths in one": POST + b"content-length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length with a sign": POST + b"content-length: +0\r\n\r\n" + HIDDEN,
    "a negative length": POST + b"content-length: -1\r\n\r\n" + HIDDEN,
    "a length in hex": POST + b"content-length: 0x0\r\n\r\n" + HIDDEN,
    "a length that overflows": POST + b"content-length: 18446744073709551616\r\n\r\n" + HIDDEN,
    "a coding nobody knows": POST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNK + HIDDEN,
    "chunked is not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNK + HIDDEN,
    "a space before the colon": POST + b"content-length : 0\r\n\r\n" + HIDDEN,
    "a tab before the colon": POST + b"transfer-encoding\t: chunked\r\n\r\n" + CHUNK + HIDDEN,
    "a name with a control character": POST + b"content\x0b-length: 0\r\n\r\n" + HIDDEN,
    "a folded header": POST + b"transfer-encoding:\r\n chunked\r\n\r\n" + HIDDEN,
    "a header without a colon": POST + b"content-length\r\n\r\n" + HIDDEN,
    "NUL in a value": POST + b"content-length: 0\0\r\n\r\n" + HIDDEN,
    "a bare CR": POST + b"x: y\rcontent-length: 0\r\n\r\n" + HIDDEN,
    "a chunk's size with a sign": POST + b"transfer-encoding: chunked\r\n\r\n+0\r\n\r\n" + HIDDEN,
    "a chunk's size with 0x": POST + b"transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk's size that overflows": POST
    + b"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\n"
    + HIDDEN,
    "a chunk longer than it says": POST
    + b"transfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n"
    + HIDDEN,
    "two hosts": b"POST /v1/down HTTP/1.1\r\nhost: stoker\r\nhost: evil.example\r\n\r\n",
    "two hosts, ours last": b"POST /v1/down HTTP/1.1\r\nhost: evil.example\r\nhost: stoker\r\n\r\n",
    "a version nobody knows": b"POST /v1/down HTTP/1.9\r\nhost: stoker\r\n\r\n",
    "a space in the target": b"POST /v1/ down HTTP/1.1\r\nhost: stoker\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
}


def answers(path: str, words: bytes) -> bytes:
    """All that comes back for these bytes, until the other side has nothing more to say."""
    found = b""
    with closing(connect(path, 10)) as connection, suppress(ConnectionError):
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            found += piece
    return found


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_could_be_read_in_two_ways_is_refused(name: str, live: Served, daemon: FakeDaemon) -> None:
    found = answers(live.socket, SMUGGLED[name])
    assert ("down",) not in daemon.calls, found
    codes = [line.split()[1] for line in found.split(b"\r\n") if line.startswith(b"HTTP/1")]
    assert codes[-1:] in ([b"400"], []), "refused, and nothing is read after it"
    assert b" 5" not in b"".join(line[8:10] for line in found.split(b"\r\n") if line.startswith(b"HTTP/1"))


def test_two_messages_that_are_clear_are_two(live: Served, daemon: FakeDaemon) -> None:
    """So that the tests above can fail."""
    found = answers(live.socket, POST + b"transfer-encoding: chunked\r\n\r\n" + CHUNK + HIDDEN)
    assert found.count(b"HTTP/1.1 200") == 2
    assert daemon.calls == [("reload",), ("down",)]
