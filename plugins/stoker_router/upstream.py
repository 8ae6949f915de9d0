"""One kept-alive connection to a worker. It carries one exchange at a time and frames its answer."""

from __future__ import annotations

import asyncio
import select
from typing import Protocol, cast

from stoker_router.framing import Body, UntilClose, body_of
from stoker_router.head import MAX_HEAD, UNTIL_CLOSE, BadMessage, Kind, parse_response

MAX_IDLE = 2.0
"""Seconds; a connection idle for longer is not used again: servers close theirs after 5 s or so."""


class Carried(Protocol):
    """What an upstream connection sees of the exchange it carries."""

    kind: Kind
    keep: bool

    def interim(self, head: bytes) -> None:
        """A 1xx answer for the client."""
        ...

    def begin(self, data: bytes) -> None:
        """The answer begins with these bytes."""
        ...

    def answer(self, data: bytes, status: int, *, reusable: bool) -> None:
        """The answer, from its beginning to its end."""
        ...

    def relay(self, data: bytes) -> None:
        """More bytes of the answer."""
        ...

    def finish(self, status: int, *, reusable: bool) -> None:
        """The answer is complete."""
        ...

    def open_tunnel(self, head: bytes) -> None:
        """The worker has switched protocols."""
        ...

    def fail(self, reason: str, *, touched: bool) -> None:
        """The connection is gone or useless. `touched`: something of an answer had come."""
        ...

    def hold_upload(self, *, hold: bool) -> None:
        """The worker reads slower than the client sends (or again fast enough)."""
        ...


class Upstream(asyncio.Protocol):
    """A connection to one worker. `home` is the worker's list of idle connections."""

    __slots__ = (
        "_body", "_heard", "_keep", "_partial", "_poll", "_read", "_status", "exchange", "home",
        "idle_since", "stalled", "transport",
    )  # fmt: skip

    def __init__(self, home: list[Upstream]) -> None:
        self.home = home
        self.exchange: Carried | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.idle_since = 0.0
        self.stalled = False
        """Reading is paused because the client reads slower than the worker sends."""
        self._body: Body | None = None
        """Follows the body of the present answer once its head was seen."""
        self._status = 0
        self._keep = False
        self._partial = b""
        self._heard = b""
        """The head that was read last, "" if it is not to be remembered."""
        self._read = (0, 0, False, b"")
        self._poll: select.poll | None = None

    # --- owned by an exchange -----------------------------------------------------------------------------

    def stall(self, *, stop: bool) -> None:
        """Stop or resume reading the worker's answer."""
        if stop != self.stalled and not self.transport.is_closing():
            self.stalled = stop
            if stop:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def drop(self) -> None:
        """Close at once; the worker sees it and can stop working on the request."""
        self.exchange = None
        self.transport.abort()

    def alive(self) -> bool:
        """Whether an idle connection is still open, asked of the kernel: a worker that has just closed it
        would lose a request that must not be sent twice."""
        if self._poll is None:
            self._poll = select.poll()
            descriptor = self.transport.get_extra_info("socket").fileno()
            self._poll.register(descriptor, select.POLLIN | select.POLLRDHUP)
        return not self._poll.poll(0)

    # --- called by the event loop -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        exchange = self.exchange
        if exchange is None:
            self.transport.abort()  # bytes that nobody asked for
            return
        try:
            if self._body is None:
                while data:
                    data = self._read_head(exchange, data)
            else:
                self._read_body(exchange, self._body, data)
        except BadMessage as error:
            self.drop()
            exchange.fail(error.reason, touched=True)

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol. Closed at once: waiting for our own writes could wait for ever."""
        self.transport.abort()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        exchange = self.exchange
        if exchange is None:
            if self in self.home:
                self.home.remove(self)
            return
        self.exchange = None
        if isinstance(self._body, UntilClose) and exc is None:
            exchange.keep = False
            exchange.finish(self._status, reusable=False)
        else:
            exchange.fail("the worker closed the connection", touched=bool(self._partial))

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        if self.exchange is not None:
            self.exchange.hold_upload(hold=True)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self.exchange is not None:
            self.exchange.hold_upload(hold=False)

    # --- framing of the answer ----------------------------------------------------------------------------

    def _read_head(self, exchange: Carried, data: bytes) -> bytes:
        """Read the head of an answer; return what comes after a 1xx one, where another must follow."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        end, raw = self._end_of_head(exchange, data)
        if not end:
            return self._set_aside(data)
        status, length, keep, head = self._read
        if status < 200:
            return self._interim(exchange, status, head, data[end:])
        if length == UNTIL_CLOSE:
            exchange.keep = False
        if not exchange.keep:
            head = head[:-2] + b"Connection: close\r\n\r\n"
        if 0 <= length <= len(data) - end:
            stop = end + length  # the usual case: the whole answer in one piece
        else:
            body = body_of(length)
            stop = body.take(data, end)
            if stop < 0:
                self._body, self._status, self._keep = body, status, keep
        if 0 <= stop < len(data):
            data, keep = data[:stop], False  # more than an answer: not to be trusted again
        data = data if head is raw else head + data[end:]
        if stop >= 0:
            exchange.answer(data, status, reusable=keep)
        else:
            exchange.begin(data)
        return b""

    def _end_of_head(self, exchange: Carried, data: bytes) -> tuple[int, bytes]:
        """Where the head ends, 0 if it goes on, and the head itself; it is read then. What the last one came
        to is remembered: workers say the same again and again."""
        heard, method = self._heard, exchange.kind.method
        if heard and data.startswith(heard) and method != b"HEAD":
            return len(heard), heard
        end = data.find(b"\r\n\r\n") + 4
        if end == 3 or end > MAX_HEAD:
            return 0, b""
        raw = data[:end]
        self._read = parse_response(raw, method)
        self._heard = b"" if method == b"HEAD" or self._read[0] < 200 else raw
        return end, raw

    def _set_aside(self, data: bytes) -> bytes:
        if len(data) > MAX_HEAD:
            raise BadMessage(502, "the head of the worker's answer is too long")
        self._partial = data
        return b""

    def _interim(self, exchange: Carried, status: int, head: bytes, rest: bytes) -> bytes:
        if status == 101:
            if not exchange.kind.upgrade:
                raise BadMessage(502, "the worker switched protocols without being asked")
            self._body = UntilClose()
            self._status = 101
            exchange.open_tunnel(head)
            if rest:
                exchange.relay(rest)
            return b""
        if status != 100:  # we have answered the client's `Expect` ourselves
            exchange.interim(head)
        return rest

    def _read_body(self, exchange: Carried, body: Body, data: bytes) -> None:
        stop = body.take(data, 0)
        if stop < 0:
            exchange.relay(data)
            return
        self._body = None
        clean = stop == len(data)
        exchange.relay(data if clean else data[:stop])
        exchange.finish(self._status, reusable=self._keep and clean)
