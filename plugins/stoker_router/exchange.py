"""One request and its answer: the bytes kept for a second try, its place, its two connections."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from stoker_router.head import Kind
from stoker_router.recording import Row
from stoker_router.terms import PLAIN
from stoker_router.upstream import Upstream
from stoker_router.wishes import likes_pages
from stoker_router.worker import Worker

QUEUED, CONNECTING, SENT, BEGAN, TUNNEL, OVER = range(6)
"""Phases of an exchange, in this order, but that a failed try leads back to QUEUED."""

MAX_REPLAY = 1024 * 1024
"""Bytes of a request that are kept to send it again."""
MAX_HELD = 64 * 1024
"""Bytes of a request that are read while it has no worker; the rest waits in the kernel."""

NO_WORKER, UPLOAD = 1, 2
"""Reasons to stop reading from a client: no worker yet, or one that reads slower than the client sends."""


class Owner(Protocol):
    """What an exchange needs of its service."""

    def completed(self, exchange: Exchange, status: int, reusable: Upstream | None) -> None:
        """Its answer is complete; `reusable` is the connection, if it can carry another."""
        ...

    def lost(self, exchange: Exchange, reason: str, *, again: bool) -> None:
        """Its connection failed before an answer began. `again`: nothing of an answer had come."""
        ...

    def working(self, worker: Worker) -> None:
        """A worker that had failed has begun an answer."""
        ...


class ClientSide(Protocol):
    """What an exchange needs of the client's connection."""

    transport: asyncio.Transport
    write_paused: bool
    """The client reads slower than we write."""

    @property
    def service(self) -> Owner:
        """The service that was asked."""
        ...

    @property
    def peer(self) -> str:
        """The address of whoever asks."""
        ...

    def hold(self, reason: int, *, hold: bool) -> None:
        """Stop or resume reading from the client, for one reason among several."""
        ...

    def refuse(self, status: int, reason: str, retry_after: int | None) -> None:
        """Answer with an error of our own; ends the exchange for the client."""
        ...

    def done(self, *, keep: bool) -> None:
        """The exchange is over and its answer written."""
        ...

    def start_tunnel(self) -> None:
        """From now on bytes only pass through."""
        ...


class Exchange:
    """One request on its way."""

    __slots__ = (
        "arrived", "avoid", "client", "due", "keep", "kept", "kind", "last", "phase", "repeatable", "size",
        "terms", "tries", "upstream", "waited", "whole", "worker",
    )  # fmt: skip

    arrived: float
    """When it was received; set by its service."""
    due: float
    """When something is to be done about it if its answer has not begun; set by its service."""
    last: float
    """When it is given up if its answer has not begun; set by its service."""

    def __init__(self, client: ClientSide, kind: Kind, data: bytes, *, whole: bool) -> None:
        self.client = client
        self.terms = PLAIN
        self.kind = kind
        self.keep = kind.keep
        """The client's connection stays open afterwards."""
        self.kept: list[bytes] | None = [data]
        """Its bytes so far, None once it cannot be sent again."""
        self.size = len(data)
        self.whole = whole
        """The request has been received to its end."""
        self.phase = QUEUED
        self.waited = 0.0
        """Seconds in the queue; while it is there, less the time when it came."""
        self.repeatable = False
        """It may be sent a second time though a worker may have read it."""
        self.tries = 0
        """How often it was sent."""
        self.worker: Worker | None = None
        self.avoid: Worker | None = None
        """The worker that failed it last."""
        self.upstream: Upstream | None = None

    @property
    def pages(self) -> bool:
        """Whether an answer of our own should be a page for people, as far as the request is still known."""
        return self.kept is not None and likes_pages(self.kept[0])

    def row(self, service: str, now: float, status: int) -> Row:
        """What is recorded of it at its end."""
        held = max(0.0, now - self.arrived - self.waited) if self.tries else 0.0
        return Row(service, self.arrived, self.waited, held, status)

    # --- towards the worker -------------------------------------------------------------------------------

    def push(self, data: bytes) -> None:
        """More bytes of the request from the client."""
        upstream = self.upstream
        if upstream is not None:
            upstream.transport.write(data)
        if (trail := self.terms.trail) is not None:
            trail.received += len(data)
        if self.kept is not None:
            self.kept.append(data)
            self.size += len(data)
            if upstream is None:
                if self.size > MAX_HELD:
                    self.client.hold(NO_WORKER, hold=True)
            elif self.size > MAX_REPLAY:
                self.kept = None

    def send(self, upstream: Upstream) -> None:
        """Write all that is there of the request to a worker's connection."""
        kept = self.kept
        if kept is None:
            raise RuntimeError("an exchange without its bytes was sent again")
        self.upstream = upstream
        self.phase = SENT
        self.tries += 1
        if (trail := self.terms.trail) is not None and self.worker is not None:
            trail.worker = self.worker.config.id
        upstream.exchange = self
        if not self.whole:
            self.client.hold(NO_WORKER | UPLOAD, hold=False)
        if upstream.stalled:
            upstream.stall(stop=False)
        if len(kept) == 1:
            upstream.transport.write(kept[0])
        else:
            upstream.transport.writelines(kept)
        if not self.repeatable or self.size > MAX_REPLAY:
            self.kept = None
        if self.client.write_paused:
            upstream.stall(stop=True)

    def detach(self) -> None:
        """Cut its connection to the worker, if it has one."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()

    # --- from the worker (see upstream.Carried) -----------------------------------------------------------

    def interim(self, head: bytes) -> None:
        """A 1xx answer for the client."""
        if self.kind.http11:
            self.client.transport.write(head)

    def begin(self, data: bytes) -> None:
        """The answer begins: from here on it cannot be tried again."""
        self._begun(len(data))
        self.client.transport.write(data)

    def _begun(self, size: int) -> None:
        self.phase = BEGAN
        self.kept = None
        worker = self.worker
        if worker is not None and worker.backoff:
            self.client.service.working(worker)
        if (trail := self.terms.trail) is not None:
            trail.began = monotonic()
            trail.sent += size

    def answer(self, data: bytes, status: int, *, reusable: bool) -> None:
        """The whole answer at once. The worker's next request is written before it: time that a slot stands
        empty is lost to all who wait."""
        self._begun(len(data))
        client, upstream = self.client, self._released(reusable=reusable)
        client.service.completed(self, status, upstream)
        client.transport.write(data)
        client.done(keep=self.keep and self.whole)

    def relay(self, data: bytes) -> None:
        """More bytes of the answer."""
        if (trail := self.terms.trail) is not None:
            trail.sent += len(data)
        self.client.transport.write(data)

    def finish(self, status: int, *, reusable: bool) -> None:
        """The answer is complete."""
        if self.upstream is None:
            return
        client, upstream = self.client, self._released(reusable=reusable)
        # The freed slot may start the next request on this connection before our client hears of the end:
        # nothing is read from `upstream` after this.
        client.service.completed(self, status, upstream)
        client.done(keep=self.keep and self.whole)

    def _released(self, *, reusable: bool) -> Upstream | None:
        """The connection to the worker at the end of its answer, None if it can carry no other."""
        upstream, self.upstream = self.upstream, None
        self.phase = OVER
        if upstream is None:
            return None
        upstream.exchange = None
        if reusable and self.whole:
            return upstream
        upstream.transport.abort()
        return None

    def open_tunnel(self, head: bytes) -> None:
        """The worker has switched protocols."""
        self.begin(head)
        self.keep = False
        self.phase = TUNNEL
        self.client.start_tunnel()

    def end_tunnel(self) -> None:
        """The client has closed its end: what it said last still reaches the worker."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            self.phase = OVER
            upstream.exchange = None
            upstream.transport.close()
            self.client.service.completed(self, 101, None)

    def fail(self, reason: str, *, touched: bool) -> None:
        """The connection is gone or useless. `touched`: something of an answer had come."""
        if self.phase == TUNNEL:
            self.finish(101, reusable=False)
        elif self.phase == BEGAN:
            self.keep = False
            self.finish(502, reusable=False)  # for the books: the client sees its connection cut
        else:
            self.note_failure(reason)
            self.client.service.lost(self, reason, again=not touched)

    def note_failure(self, reason: str) -> None:
        """Its try with the present worker has come to nothing."""
        if (trail := self.terms.trail) is not None and self.worker is not None:
            trail.fail(self.worker.config.id, reason)

    def hold_upload(self, *, hold: bool) -> None:
        """The worker reads slower than the client sends (or again fast enough)."""
        self.client.hold(UPLOAD, hold=hold)
