"""Heads: what is accepted is read by llhttp, the parser of Node and of uvicorn, just as we read it."""

from collections import Counter

import httptools
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stoker_router.head import (
    _USUAL_REQUEST,
    _USUAL_RESPONSE,
    CHUNKED,
    UNTIL_CLOSE,
    BadMessage,
    Origin,
    _parse_unusual_request,
    _parse_unusual_response,
    complete,
    parse_request,
    parse_response,
)


class Reading:
    """A message as llhttp reads it."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.url = b""
        self.complete = 0
        self.parser: httptools.HttpResponseParser | None = None
        self.keep = False

    def on_headers_complete(self) -> None:
        if self.parser is not None:
            self.keep = self.parser.should_keep_alive()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1

    @property
    def counted(self) -> Counter[tuple[bytes, bytes]]:
        return Counter(self.fields)


def read_request(data: bytes) -> tuple[Reading, httptools.HttpRequestParser]:
    reading = Reading()
    parser = httptools.HttpRequestParser(reading)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        reading.complete += 0
    return reading, parser


NAMES = st.sampled_from([
    "Host", "host", "HOST", "Content-Length", "content-length", "Transfer-Encoding", "Connection",
    "Keep-Alive", "Upgrade", "TE", "Expect", "Proxy-Connection", "X-Forwarded-For", "X-Forwarded-Host",
    "Forwarded", "X-Request-Id",
    "Accept", "X-A", "x a", "Te", "Content-Lengthy", "Hos", "Trailer", "", "Cookie",
    "X-Forwarded-For-Real", "Content-Length\t",
])  # fmt: skip
VALUES = st.sampled_from([
    "a", "5", "0", "chunked", "Chunked", "keep-alive", "Keep-Alive", "close", "x-a, close", "gzip, chunked",
    "1, 1", "", "  ", "\t5 ", "websocket", "h2c", "upgrade", "Upgrade, keep-alive", "100-continue", "+1",
    "0x1", "5 5", "\x0b", "a\rb", "a\nb", "\x00", "é", "host, content-length", "timeout=5", "9" * 20,
    ": a", "a:b",
])  # fmt: skip
SEPARATORS = st.sampled_from([":", ": ", ":  ", ":\t", " :", ": \t"])
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\r\n\t"])
FIELDS = st.lists(st.tuples(NAMES, SEPARATORS, VALUES, ENDS).map("".join), max_size=6).map("".join)
LINES = st.sampled_from(
    [
        *["GET / HTTP/1.1\r\n"] * 6,
        *["POST /a?b HTTP/1.1\r\n", "M-SEARCH * HTTP/1.1\r\n", "HEAD / HTTP/1.0\r\n"],
        *["OPTIONS * HTTP/1.1\r\n", "GET  / HTTP/1.1\r\n", "get / HTTP/1.1\r\n", "GET / HTTP/1.1\n"],
        *["GET /\x7f HTTP/1.1\r\n", "GET / HTTP/1.2\r\n"],
    ]
)
HEADS = st.tuples(LINES, st.sampled_from(["Host: a\r\n", "host:a\r\n", "", "Host:\r\n"]), FIELDS).map(
    lambda parts: ("".join(parts) + "\r\n").encode("latin1")
)

CUT = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect"}
FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}


def elements(reading: Reading, name: bytes) -> set[bytes]:
    return {p.strip().lower() for n, v in reading.fields if n == name for p in v.split(b",")}


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(HEADS)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n")
def test_what_we_accept_llhttp_reads_alike(head: bytes) -> None:
    try:
        kind, length, rewritten = parse_request(head, Origin("10.0.0.1"))
    except BadMessage:
        return
    if kind.method == b"get":
        return  # a good method, but llhttp only knows those that it knows
    body = b"5\r\nhello\r\n0\r\n\r\n" if length == CHUNKED else b"x" * min(length, 10)
    theirs, parser = read_request(head)  # raises where llhttp refuses
    ours, forwarded_parser = read_request(rewritten + body)
    assert forwarded_parser.get_method() == parser.get_method() == kind.method
    assert ours.url == theirs.url
    if not parser.should_upgrade() and length < 10:
        assert ours.complete == 1, "the worker sees another end of the request than we do"
        assert len(ours.body) == (5 if length == CHUNKED else length)
    gone = theirs.counted - ours.counted
    dropped = CUT | elements(theirs, b"connection") | FORWARDED
    assert {name for name, _ in gone} <= dropped
    added = ours.counted - theirs.counted
    assert {name for name, _ in added} <= FORWARDED | ({b"connection", b"upgrade"} if kind.upgrade else set())
    assert sum(n for (name, _), n in ours.counted.items() if name == b"host") <= 1
    assert (b"connection" in dict(ours.fields)) == kind.upgrade


def unnamed(reading: Reading) -> list[tuple[bytes, bytes]]:
    """All fields but the name that each request is given."""
    return sorted(field for field in reading.fields if field[0] != b"x-request-id")


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(HEADS)
@example(
    b"PUT / HTTP/1.1\r\nhost:  a \r\nA: 1\r\nConnection: Keep-Alive\r\nB: 2\r\nContent-Length: 7\r\n\r\n"
)
def test_the_fast_path_says_what_the_slow_path_says(head: bytes) -> None:
    if _USUAL_REQUEST.fullmatch(head) is None or head.startswith(b"get"):
        return
    fast = parse_request(head, Origin("10.0.0.1"))
    kind, length, sent = _parse_unusual_request(head, Origin("10.0.0.1"))
    slow = (kind, length, complete(sent))
    assert fast[1] == slow[1]
    for trait in ("method", "http11", "keep", "expect", "upgrade", "idempotent"):
        assert getattr(fast[0], trait) == getattr(slow[0], trait)
    assert unnamed(read_request(fast[2])[0]) == unnamed(read_request(slow[2])[0])


RESPONSES = st.tuples(
    st.sampled_from(
        ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 \r\n", "HTTP/1.1 500\r\n", "HTTP/1.0 200 OK\r\n", "OK\r\n"]
    ),
    FIELDS,
).map(lambda parts: ("".join(parts) + "\r\n").encode("latin1"))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(RESPONSES)
@example(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\n")
def test_answers_are_read_as_llhttp_reads_them(head: bytes) -> None:
    try:
        status, length, keep, rewritten = parse_response(head, b"GET")
    except BadMessage:
        return
    if _USUAL_RESPONSE.fullmatch(head) is not None:
        slow = _parse_unusual_response(head)
        assert slow[:2] == (status, length)
        assert slow[2] == keep or length == UNTIL_CLOSE
    theirs, ours = Reading(), Reading()
    theirs.parser = parser = httptools.HttpResponseParser(theirs)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        return
    mine = httptools.HttpResponseParser(ours)
    mine.feed_data(rewritten)
    assert mine.get_status_code() == parser.get_status_code() == status
    assert mine.get_http_version() == "1.1"
    if length != UNTIL_CLOSE:
        mine.feed_data(b"0\r\n\r\n" if length == CHUNKED else b"x" * min(length, 10))
        assert length >= 10 or ours.complete == 1
        assert theirs.keep or not keep, "a connection was kept that will be closed"
    assert not {name for name, _ in ours.fields} & {b"connection", b"keep-alive", b"te", b"proxy-connection"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", (0, True)),
        ("Content-Length: 12\r\n", (12, True)),
        ("Transfer-Encoding: Chunked\r\n", (CHUNKED, True)),
        ("Connection: close\r\n", (0, False)),
        ("Connection: keep-alive, Close\r\n", (0, False)),
        ("Accept: x\r\nConnection: keep-alive\r\nContent-Length: 3\r\n", (3, True)),
    ],
)
def test_what_a_head_means(fields: str, expected: tuple[int, bool]) -> None:
    kind, length, _ = parse_request(f"PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode(), Origin("::1"))
    assert (length, kind.keep) == expected


@pytest.mark.parametrize(
    ("head", "method", "expected"),
    [
        ("HTTP/1.1 200 OK\r\n\r\n", b"GET", (200, UNTIL_CLOSE, False)),
        ("HTTP/1.1 200 OK\r\n\r\n", b"HEAD", (200, 0, True)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", (200, 0, True)),
        ("HTTP/1.1 204 No Content\r\n\r\n", b"GET", (204, 0, True)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", (304, 0, True)),
        ("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", b"GET", (103, 0, True)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", (200, 5, False)),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", b"GET", (200, 5, True)),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", b"GET", (200, 5, False)),
        ("HTTP/1.1 299 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", (299, CHUNKED, True)),
        ("HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", b"GET", (600, 0, True)),
    ],
)
def test_what_an_answer_means(head: str, method: bytes, expected: tuple[int, int, bool]) -> None:
    assert parse_response(head.encode(), method)[:3] == expected


def test_a_hostile_head_takes_no_time() -> None:
    """No pattern backtracks: its time grows with the length of the head, not with its square."""
    for piece in (b"a", b"a:", b"a:b\r\n", b" ", b"Connection: keep-alive\r\n", b"Host: a\r\n"):
        head = b"GET / HTTP/1.1\r\nHost: a\r\n" + piece * (60_000 // len(piece)) + b"\x00\r\n\r\n"
        with pytest.raises(BadMessage):
            parse_request(head, Origin("::1"))
