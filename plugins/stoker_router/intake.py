"""What is looked at in a request before it is let in, for services that have rules about it. Pure but for
chance: which requests are written to the access log."""

from __future__ import annotations

from math import inf
from random import random

from stoker_router.access import Entry, Trail
from stoker_router.exchange import Exchange
from stoker_router.ports import Events
from stoker_router.table import RouteConfig
from stoker_router.terms import Terms
from stoker_router.wishes import field, wishes_of

_REPEATABLE = {"idempotent": (False, True), "always": (True, True), "never": (False, False)}
_END = b"\r\n\r\n"
_LENGTH = field("content-length")


class Intake:
    """The rules of one service. `plain`: there are none, and its requests are not looked at."""

    __slots__ = ("_route", "_wishes", "plain", "repeatable")

    def __init__(self, route: RouteConfig) -> None:
        self._route = route
        self._wishes = wishes_of(route)
        self.repeatable = _REPEATABLE[route.retry]
        """Whether a request may be sent twice: one that is not idempotent, and one that is."""
        self.plain = self._wishes is None and route.max_body is None and not route.access_log

    def look(self, exchange: Exchange) -> str:
        """Heed what the request says itself. Return why it is too large, "" if it is not."""
        kept, route = exchange.kept, self._route
        terms = exchange.terms = Terms()
        if kept is None:
            return ""
        if self._wishes is not None:
            kept[0] = data = self._wishes.traced(kept[0])
            exchange.size = len(data)
            head = data[: data.find(_END) + 4]
            terms.priority = self._wishes.priority_of(head)
            self.time(exchange, self._wishes.patience_of(head))
        if route.access_log:
            head, _, body = kept[0].partition(_END)
            terms.trail = Trail(head + b"\r\n", chosen=random() < route.access_log)
            terms.trail.received = len(body)
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
        """Tell of its end, if it is to be written to the access log."""
        trail = exchange.terms.trail
        if trail is None or (not trail.chosen and status < 500):
            return
        worker = exchange.worker or exchange.avoid
        entry = Entry(
            self._route.service,
            exchange.client.peer,
            exchange.arrived,
            exchange.waited,
            status,
            worker.config.id if worker is not None else "",
            exchange.tries,
        )
        events.logged(trail, entry)
