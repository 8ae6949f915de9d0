"""One service in the program: admits requests, queues them, hands them to workers, keeps the books."""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic
from typing import Any

from stoker_router.alarm import Throttle
from stoker_router.exchange import BEGAN, OVER, QUEUED, SENT, Exchange
from stoker_router.intake import Intake
from stoker_router.line import Line
from stoker_router.meter import ABORTED, Meter
from stoker_router.overdue import Overdue
from stoker_router.ports import Connection, Events
from stoker_router.table import RouteConfig
from stoker_router.tries import Tries
from stoker_router.upstream import Upstream
from stoker_router.worker import Pool, Worker

DEMAND_INTERVAL = 0.1
"""Seconds between two cries for a worker."""
RETRY_HELD, RETRY_FULL, RETRY_STARTING = 5, 1, 1
"""Retry-After, in seconds, of a service that is held, has too much to do, is starting."""
QUARANTINE = 10.0
"""Seconds, at most, that a slot is not given away whose request was never answered: the worker may still be
at it."""


class Service:
    """One service: `line` holds what waits, `flying` what is inside workers.

    Laws: a worker never has more in flight than its limit; requests leave the line in order of arrival;
    each has one entry in the books; nothing runs while nothing is in flight or queued.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, events: Events, route: RouteConfig) -> None:
        self._events = events
        self._late = Overdue(loop, lambda: (*self.line, *self.flying), self._overdue)
        self._cry = Throttle(loop, DEMAND_INTERVAL, self._say_demand)
        self._tries = Tries(loop, self)
        self.route = route
        self.intake = Intake(route)
        self.line = Line()
        self.flying: set[Exchange] = set()
        self.meter = Meter(monotonic())
        self.pool = Pool(loop, self.pump)
        self.clients: set[Connection] = set()
        """All open connections to its address."""
        self.quiet = True
        """At rest: nothing has happened since its last sample."""
        self.closed = False
        """It takes no more requests: it left the table or the program is ending."""

    # --- configuration ------------------------------------------------------------------------------------

    def configure(self, route: RouteConfig) -> None:
        """Take the table's word on everything but the address."""
        before, self.route = self.route.timeout, route
        self.intake.configure(route)
        self.pool.configure(route.workers)
        for worker in self.pool.workers.values():
            self._check_drained(worker)
        if route.timeout != before:
            for exchange in (*self.line, *self.flying):
                exchange.due = inf
                self.intake.time(exchange)
        self._late.look()
        self._check_line()
        self.pump()

    def _check_line(self) -> None:
        """Those who wait for a worker that will not come are told so; else the daemon is."""
        if self.line and not self.pool.serving:
            if self.route.held:
                for exchange in list(self.line):
                    self._refuse(exchange, 503, self.route.held, RETRY_HELD)
            else:
                self._cry.call()

    def _say_demand(self) -> None:
        if self.line and not self.pool.serving:
            self._events.demand(self)

    def reintroduce(self) -> None:
        """Say again what a new daemon has to know."""
        for worker in self.pool.workers.values():
            worker.told = False
            self._check_drained(worker)
        self._say_demand()

    # --- a request's way ----------------------------------------------------------------------------------

    def admit(self, exchange: Exchange, page_at: float = inf) -> None:
        """Take a new request. `page_at`: when who asks is to be shown a page, if there is no worker."""
        exchange.arrived = now = monotonic()
        intake = self.intake
        exchange.repeatable = intake.repeatable[exchange.kind.idempotent]
        exchange.last = now + self.route.timeout
        exchange.due = min(page_at, exchange.last)
        if self.closed:
            exchange.keep = False
        if self.quiet:
            self.quiet = False
            self._events.active(self)
        self.meter.arrivals += 1
        if not intake.plain and (reason := intake.look(exchange)):
            self._refuse(exchange, 413, reason)
            return
        most = self.route.max_concurrency
        if most is not None and len(self.flying) + len(self.line) >= most:
            self._refuse(exchange, 429, f"more than {most} requests at once", RETRY_FULL)
            return
        if not self.line.size:
            worker = self.pool.pick()
            if worker is not None:
                self._start(worker, exchange, now)
                return
        self._enqueue(exchange, now)

    def _enqueue(self, exchange: Exchange, now: float) -> None:
        """No slot is free: wait, if that is worth while and there is room."""
        serving = self.pool.serving
        if self.route.held and not serving:
            self._refuse(exchange, 503, self.route.held, RETRY_HELD)
        elif len(self.line) >= self.route.max_queue:
            self._refuse(exchange, 503, f"{len(self.line)} requests are already waiting", RETRY_FULL)
        else:
            self._wait(exchange, now)
            if not serving:
                self._cry.call()

    def _wait(self, exchange: Exchange, now: float) -> None:
        exchange.phase = QUEUED
        self.line.join(exchange, now)
        self.meter.queue_area -= now
        self._late.alarm.set(exchange.due)
        if self.line.grown:
            self._events.growing(self)

    def _start(self, worker: Worker, exchange: Exchange, now: float) -> None:
        """Give a free slot of the worker to the exchange."""
        worker.busy += 1
        self.flying.add(exchange)
        self.meter.flight_area -= now
        exchange.worker = worker
        if exchange.due < self._late.alarm.at:
            self._late.alarm.set(exchange.due)
        if worker.idle:
            upstream = worker.warm(now, careful=not exchange.repeatable)
            if upstream is not None:
                exchange.send(upstream)
                return
        self._tries.begin(worker, exchange)

    def connected(self, worker: Worker, exchange: Exchange, upstream: Upstream) -> None:
        """See `Outcome.connected`."""
        exchange.send(upstream)
        self.working(worker)

    def unreachable(self, worker: Worker, exchange: Exchange, reason: str) -> None:
        """See `Outcome.unreachable`."""
        self.pool.failed(worker)
        self.lost(exchange, reason, again=True)

    def pump(self) -> None:
        """Move requests from the line to free slots."""
        while (exchange := self.line.first) is not None:
            worker = self.pool.pick(exchange.avoid)
            if worker is None:
                return
            self._call_up(worker, exchange)

    def _call_up(self, worker: Worker, exchange: Exchange) -> None:
        now = monotonic()
        self._leave_line(exchange, now)
        self._start(worker, exchange, now)

    def _leave_line(self, exchange: Exchange, now: float) -> None:
        self.line.leave(exchange, now)
        self.meter.queue_area += now

    # --- ends (see exchange.Owner) ------------------------------------------------------------------------

    def completed(self, exchange: Exchange, status: int, reusable: Upstream | None) -> None:
        """A worker has answered to the end."""
        now = monotonic()
        self.meter.completed(status, now - exchange.arrived, exchange.waited)
        if self.meter.recorders:
            self.meter.record(exchange.row(self.route.service, now, status))
        if exchange.terms.trail is not None:
            self.intake.log(exchange, status, self._events)
        worker = self._land(exchange, now)
        if reusable is not None:
            self.pool.park(worker, reusable, now)
        if self.line.size or worker.draining:
            self._hand_over(worker)

    def _land(self, exchange: Exchange, now: float) -> Worker:
        """Take an exchange off its worker; the slot is free but not yet given away."""
        worker = exchange.worker
        if worker is None:
            raise RuntimeError("an exchange without a worker has landed")
        exchange.worker = None
        self.flying.discard(exchange)
        self.meter.flight_area += now
        worker.busy -= 1
        if not worker.present:
            self.pool.left(worker)
        return worker

    def _hand_over(self, worker: Worker) -> None:
        """Give a free slot to the first in the line (nobody else has a free one, else there were no line)."""
        first = self.line.first
        if first is not None and first.avoid is worker:
            self.pump()  # it has failed this one: others first
        elif first is not None and self.pool.can_take(worker):
            self._call_up(worker, first)
        if worker.draining:
            self._check_drained(worker)

    def working(self, worker: Worker) -> None:
        """A worker has taken a connection or begun an answer."""
        if worker.backoff:
            self.pool.works(worker)
            self.pump()

    def lost(self, exchange: Exchange, reason: str, *, again: bool) -> None:
        """The connection failed before an answer began: try again if that is safe."""
        now = monotonic()
        exchange.upstream = None
        exchange.avoid = worker = self._land(exchange, now)
        if again and self._tries.another(exchange, now, self.meter.total):
            self._wait(exchange, now)
        else:
            tries = f", tried {exchange.tries} times" if exchange.tries > 1 else ""
            self._close_books(exchange, 502)
            exchange.client.refuse(502, f"{reason} without an answer{tries}", None)
        self._hand_over(worker)
        self._check_line()

    def abandon(self, exchange: Exchange) -> None:
        """The client went away: the worker is told by closing its connection."""
        if exchange.phase != OVER:
            self._end(exchange, ABORTED)

    def _refuse(self, exchange: Exchange, status: int, reason: str, retry_after: int | None = None) -> None:
        """Answer with an error of our own, in whatever phase before the answer began."""
        self._end(exchange, status)
        exchange.client.refuse(status, reason, retry_after)

    def spoil(self, exchange: Exchange, status: int, reason: str) -> None:
        """It cannot go on, for example because the rest of the request is malformed."""
        begun = exchange.phase >= BEGAN
        self._end(exchange, status)
        if begun:
            exchange.client.done(keep=False)
        else:
            exchange.client.refuse(status, reason, None)

    def _end(self, exchange: Exchange, status: int) -> None:
        """Take an exchange out of wherever it is and close its books."""
        now = monotonic()
        if exchange in self.line:
            self._leave_line(exchange, now)
        worker = None if exchange.worker is None else self._land(exchange, now)
        self._tries.cancel(exchange)
        exchange.detach()
        self._close_books(exchange, status)
        if worker is not None:
            self._hand_over(worker)

    def _close_books(self, exchange: Exchange, status: int) -> None:
        exchange.phase = OVER
        self.meter.answered(status)
        if self.meter.recorders:
            self.meter.record(exchange.row(self.route.service, monotonic(), status))
        if exchange.terms.trail is not None:
            self.intake.log(exchange, status, self._events)

    def _overdue(self, exchange: Exchange, now: float) -> None:
        if exchange.last <= now:
            if exchange.phase == SENT and exchange.worker is not None:
                self.pool.hangs(exchange.worker, min(QUARANTINE, self.route.timeout / 4))
            self._refuse(
                exchange, 504, f"{_too_late(exchange)} within {exchange.last - exchange.arrived:g} s"
            )
        elif exchange.phase == QUEUED and not self.pool.serving:
            name = self.route.service.rpartition("/")[2]
            self._refuse(exchange, 503, f"{name} is starting", RETRY_STARTING)
        else:
            exchange.due = exchange.last  # somebody serves: it is worth the whole wait

    # --- what is told -------------------------------------------------------------------------------------

    def _check_drained(self, worker: Worker) -> None:
        if worker.draining and not worker.busy and not worker.told and worker.present:
            worker.told = True
            self._events.drained(worker.config.id)

    def sample(self, now: float) -> dict[str, Any]:
        """The load since the last sample, as fields of a LoadSample."""
        sample = self.meter.take(now, len(self.flying), len(self.line))
        sample["workers"] = {worker.config.id: worker.busy for worker in self.pool}
        return {**sample, "service": self.route.service, "oldest_wait": self.line.told(now)}

    # --- the end ------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether anybody still waits for an answer (or for the rest of its bytes)."""
        return bool(self.flying or self.line or any(client.writing for client in self.clients))

    def last_requests(self) -> None:
        """Connections close after their next answer."""
        self.closed = True
        for exchange in (*self.line, *self.flying):
            exchange.keep = False

    def begin_close(self) -> None:
        """Finish what is here; connections close after their answer, those without a request at once."""
        self.last_requests()
        for client in list(self.clients):
            client.close_if_idle()

    def close(self, reason: str) -> None:
        """It left the table: what waits is refused, what is in flight goes on."""
        self.begin_close()
        self.configure(self.route._replace(workers=(), held=reason))

    def cut(self, reason: str) -> None:
        """End everything now."""
        for exchange in (*self.line, *self.flying):
            self.spoil(exchange, 503, reason)


def _too_late(exchange: Exchange) -> str:
    """Why a request without an answer has none, in words."""
    if exchange.phase != QUEUED:
        return "the worker did not answer"
    return "no worker was free" if exchange.avoid is None else "no worker could be reached"
