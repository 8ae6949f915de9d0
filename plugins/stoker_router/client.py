"""One client's connection: frames its requests, one exchange after the other."""

from __future__ import annotations

import asyncio
import re
from math import inf
from time import monotonic
from typing import cast

from stoker_router import answers
from stoker_router.crowd import StuckWatch
from stoker_router.door import Keeper
from stoker_router.exchange import TUNNEL, Exchange
from stoker_router.framing import Body, body_of
from stoker_router.gate import Gate
from stoker_router.head import MAX_HEAD, BadMessage, Origin, complete, remembered
from stoker_router.service import Service
from stoker_router.wishes import likes_pages

HEAD_TIMEOUT = 30.0
"""Seconds a client may take for one request head once it has begun it."""
LINGER = 2.0
"""Seconds that the rest of a refused request is read and thrown away, so that the client sees our answer."""
MAX_PIPELINED = 64 * 1024

_PIPELINE = 4
_LONE_LF = re.compile(rb"(?<!\r)\n")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class Client(asyncio.Protocol):
    """A connection to an address. `exchange` is what it waits for, None between requests; `service` is whose
    address it is, at a front door that of the present request."""

    __slots__ = (
        "_body", "_closing", "_gate", "_holds", "_loop", "_origin", "_rest", "_stuck", "_timer",
        "exchange", "service", "transport", "write_paused",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, proxied: str = "") -> None:
        self._loop = loop
        self._gate = gate
        self.service: Service = cast(Service, gate.service)
        self.exchange: Exchange | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.write_paused = False
        self._body: Body | None = None
        """Follows the body of the present request until it is whole."""
        self._rest = b""
        """Bytes that came before their turn: part of a head, a pipelined request."""
        self._holds = 0
        """Reasons, as bits, why reading is stopped."""
        self._closing = False
        """All that still comes is thrown away."""
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: StuckWatch | None = None
        self._origin: Origin | None = gate.origin(proxied, proxied=True) if proxied else None

    # --- called by the event loop -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)
        (self._gate.door or self.service).clients.add(self)
        self._gate.crowd.join(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        exchange = self.exchange
        if exchange is None:
            if self._rest:
                data, self._rest = self._rest + data, b""
            self._next(data)
        elif self._body is not None:
            self._receive(exchange, self._body, data)
        elif exchange.phase == TUNNEL:
            exchange.push(data)
        else:
            self._set_aside(data)

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol. A client that closes its side gives its request up, as with nginx."""
        self._give_up()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._give_up()
        self._stop_timer()
        if self._stuck is not None:
            self._stuck.clear()
        if self._holds:
            self._gate.hangups.unwatch(self)
        (self._gate.door or self.service).clients.discard(self)
        self._gate.crowd.leave(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._stall(stop=True)
        self._stuck = self._stuck or StuckWatch(self._loop, self.transport)
        self._stuck.watch()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._stuck is not None:
            self._stuck.clear()
        self._stall(stop=False)

    def _stall(self, *, stop: bool) -> None:
        self.write_paused = stop
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.stall(stop=stop)

    def hung_up(self) -> None:
        """See `Hangable`."""
        self._give_up()
        self.transport.abort()

    def _give_up(self) -> None:
        self._closing = True
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        if exchange.phase == TUNNEL:
            exchange.end_tunnel()
        else:
            self.service.abandon(exchange)

    # --- requests -----------------------------------------------------------------------------------------

    def _next(self, data: bytes) -> None:
        """Begin the next request with these bytes."""
        if self._closing:
            return
        origin = self._origin or self._look_who()
        same = origin.asked != b"" and data.startswith(origin.asked)
        end = len(origin.asked) if same else data.find(b"\r\n\r\n") + 4
        if end == 3 or end > MAX_HEAD:
            self._incomplete(data)
            return
        if self._timer is not None:
            self._stop_timer()
        try:
            kind, length, head = origin.read if same else remembered(data[:end], origin)
            head = complete(head)
            if self._gate.door is not None:
                self.service, head = self._gate.door.ask(data[:end], head)
            stop = self._begin_body(length, data, end) if length else end
        except BadMessage as error:
            self._malformed(data, error)
            return
        whole = stop >= 0
        if not whole:
            stop = len(data)
        elif stop < len(data):
            self._rest = data[stop:]
        self.exchange = exchange = Exchange(self, kind, head + data[end:stop], whole=whole)
        door = self._gate.door
        self.service.admit(exchange, inf if door is None else self._enter(door, exchange))
        if kind.expect and not whole and self.exchange is exchange:
            self.transport.write(answers.CONTINUE)

    def _begin_body(self, length: int, data: bytes, start: int) -> int:
        """Follow a body from its beginning; return where in the data it ends, -1 if it goes on."""
        body = body_of(length)
        stop = body.take(data, start)
        if stop < 0:
            self._body = body
        return stop

    def _enter(self, door: Keeper, exchange: Exchange) -> float:
        """What is different for a request that came by a front door; when a page may be shown for it."""
        if door.closed:
            exchange.keep = False
        if door.waiting_page is None or exchange.kind.method != b"GET" or not exchange.pages:
            return inf
        return monotonic() + door.waiting_page

    def _look_who(self) -> Origin:
        """Who is at the other end; asked for with the first request, since many connections make none."""
        peer = self.transport.get_extra_info("peername")
        self._origin = self._gate.origin(peer[0] if peer else "unknown")
        return self._origin

    @property
    def peer(self) -> str:
        """See `ClientSide`."""
        return "" if self._origin is None else self._origin.peer.decode()

    def _receive(self, exchange: Exchange, body: Body, data: bytes) -> None:
        """More of the present request's body."""
        exchange.terms.room -= len(data)  # of a service without limit it is infinite
        if exchange.terms.room < 0:
            self.service.spoil(exchange, 413, f"the body is larger than {self.service.route.max_body} bytes")
            return
        try:
            stop = body.take(data, 0)
        except BadMessage as error:
            self.service.spoil(exchange, error.status, error.reason)
            return
        if stop < 0:
            exchange.push(data)
            return
        self._body = None
        exchange.whole = True
        if stop < len(data):
            self._set_aside(data[stop:])
            data = data[:stop]
        exchange.push(data)

    def _set_aside(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > MAX_PIPELINED:
            self.hold(_PIPELINE, hold=True)

    def _incomplete(self, data: bytes) -> None:
        """The head is not all there yet, or too long, or can never become one."""
        if len(data) > MAX_HEAD:
            self._reject(431, f"the request head is longer than {MAX_HEAD // 1024} KiB")
        elif _LONE_LF.search(data):
            self._reject(400, "malformed request: a line ends without CR")
        else:
            self._rest = data
            if self._timer is None:
                self._timer = self._loop.call_later(HEAD_TIMEOUT, self._too_slow)

    def _malformed(self, data: bytes, error: BadMessage) -> None:
        blank = _EMPTY_LINES.match(data)
        if blank is None:
            self._reject(error.status, error.reason, page=error.status in (404, 503) and likes_pages(data))
        elif blank.end() < len(data):
            self._next(data[blank.end() :])  # empty lines before a request are to be ignored

    def _too_slow(self) -> None:
        self._timer = None
        self._reject(408, f"the request head took longer than {HEAD_TIMEOUT:g} s")

    def _reject(self, status: int, reason: str, *, page: bool = False) -> None:
        """Answer what is no request; it stands in no books."""
        self._stop_timer()
        self._body = None
        self.transport.write(answers.error(status, reason, keep=False, page=page))
        self._linger()

    # --- ends (see exchange.ClientSide) -------------------------------------------------------------------

    def refuse(self, status: int, reason: str, retry_after: int | None) -> None:
        """Answer with an error of our own; ends the exchange for the client."""
        exchange = self.exchange
        if exchange is None:
            return
        keep, head = exchange.whole and exchange.keep, exchange.kind.method == b"HEAD"
        again, page = retry_after, exchange.pages
        answer = answers.error(status, reason, keep=keep, retry_after=again, bodyless=head, page=page)
        self.transport.write(answer)
        self.done(keep=keep)

    def done(self, *, keep: bool) -> None:
        """The exchange is over and its answer written."""
        self.exchange = None
        if not keep:
            self._linger()
        elif self._rest:
            self._loop.call_soon(self._next_pipelined)
        elif self._holds:
            self.hold(self._holds, hold=False)

    def _next_pipelined(self) -> None:
        if self._holds:
            self.hold(self._holds, hold=False)
        if self.exchange is None and self._rest:
            data, self._rest = self._rest, b""
            self._next(data)

    def start_tunnel(self) -> None:
        """From now on bytes only pass through."""
        self.hold(_PIPELINE, hold=False)
        if self._rest and self.exchange is not None:
            self.exchange.push(self._rest)
        self._rest = b""

    @property
    def writing(self) -> bool:
        """Whether bytes for the client are still in this process."""
        return self.transport.get_write_buffer_size() > 0

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing and has begun nothing."""
        return self.exchange is None and not self._rest and not self._closing

    def close_if_idle(self) -> None:
        """Close the connection unless it waits for an answer or is in the middle of a request."""
        if self.idle:
            self._closing = True
            self.transport.close()

    def _linger(self) -> None:
        """Close; if there is more to come from the client, read it first, or the kernel would reset the
        connection and the client might never see our answer."""
        self._closing = True
        unread = self._body is not None or bool(self._rest) or bool(self._holds)
        self._rest = b""
        self._body = None
        self.hold(self._holds, hold=False)
        if not unread or self.transport.is_closing():
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()  # with TLS there is no such half
        self._stop_timer()
        self._timer = self._loop.call_later(LINGER, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hold(self, reason: int, *, hold: bool) -> None:
        """Stop or resume reading from the client, for one reason among several. While it is stopped, the
        kernel is asked to tell when the client goes away."""
        before = self._holds
        self._holds = before | reason if hold else before & ~reason
        if bool(self._holds) == bool(before) or self.transport.is_closing():
            return
        if hold:
            self.transport.pause_reading()
            self._gate.hangups.watch(self, self.transport.get_extra_info("socket").fileno())
        else:
            self._gate.hangups.unwatch(self)
            self.transport.resume_reading()
