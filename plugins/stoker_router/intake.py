"""What is looked at in a request before it is let in, for services that have rules about it, or whose spans
are collected. Pure but for chance: which requests are written to the access log, ids of spans."""

from __future__ import annotations

from math import inf
from random import random

from stoker_router.access import Entry, Trail
from stoker_router.exchange import Exchange
from stoker_router.ports import Events
from stoker_router.table import RouteConfig
from stoker_router.terms import Terms
from stoker_router.tracing import marked
from stoker_router.wishes import field, wishes_of

_REPEATABLE = {"idempotent": (False, True), "always": (True, True), "never": (False, False)}
_END = b"\r\n\r\n"
_LENGTH = field("content-length")


class Intake:
    """The rules of one service. `plain`: there are none, and its requests are not looked at."""

    __slots__ = ("_route", "_spans", "_wishes", "plain", "repeatable")

    def __init__(self, route: RouteConfig) -> None:
        self._spans = False
        self.configure(route)

    def configure(self, route: RouteConfig) -> None:
        """Take these rules from now on."""
        self._route = route
        self._wishes = wishes_of(route)
        self.repeatable = _REPEATABLE[route.retry]
        """Whether a request may be sent twice: one that is not idempotent, and one that is."""
        self.trace(spans=self._spans)

    def trace(self, *, spans: bool) -> None:
        """Follow the requests that their callers sample from now on, or none."""
        self._spans = spans
        ruled = self._wishes is not None or self._route.max_body is not None
        self.plain = not (ruled or self._route.access_log or spans)

    def look(self, exchange: Exchange) -> str:
        """Heed what the request says itself. Return why it is too large, "" if it is not."""
        kept, route = exchange.kept, self._route
        terms = exchange.terms = Terms()
        if kept is None:
            return ""
        came = kept[0]
        if self._wishes is not None:
            kept[0] = data = self._wishes.traced(came)
            exchange.size = len(data)
            head = data[: data.find(_END) + 4]
            terms.priority = self._wishes.priority_of(head)
            self.time(exchange, self._wishes.patience_of(head))
        found = marked(kept[0], begun=kept[0] is not came) if self._spans else None
        if found is not None:
            kept[0] = found[0]
        if route.access_log or found is not None:
            head, _, body = kept[0].partition(_END)
            trail = terms.trail = Trail(head + b"\r\n", chosen=random() < route.access_log)
            trail.received = len(body)
            trail.mark = found[1] if found is not None else None
        if route.max_body is None:
            return ""
        end = kept[0].find(_END)
        told = _LENGTH.search(kept[0], 0, end + 2)
        terms.room = route.max_body - (len(kept[0]) - end - 4)
        too_large = terms.room < 0 or (told is not None and int(told[1]) > route.max_body)
        return f"the body is larger than {route.max_body} bytes" if too_large else ""

    def time(self, exchange: Exchange, patience: float = inf) -> None:
        """Give it the time that the service, or it itself, sets."""
        exchange.last = exchange.arrived + min(self._route.timeout, patience)
        exchange.due = min(exchange.due, exchange.last)

    def log(self, exchange: Exchange, status: int, events: Events) -> None:
        """Tell of its end, if it is to be written to the access log or is part of a trace."""
        trail = exchange.terms.trail
        if trail is None:
            return
        chosen = trail.chosen or (status >= 500 and self._route.access_log > 0)
        if not chosen and trail.mark is None:
            return
        entry = Entry(
            self._route.service,
            exchange.client.peer,
            exchange.arrived,
            exchange.waited,
            status,
            trail.worker,
            exchange.tries,
        )
        if chosen:
            events.logged(trail, entry)
        if trail.mark is not None:
            events.traced(trail, entry, trail.mark)
