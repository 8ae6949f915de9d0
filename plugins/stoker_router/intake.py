"""What is looked at in a request before it is let in, for services that have rules about it. Pure but for
chance: which requests are written to the access log."""

from __future__ import annotations

from math import inf
from random import random

from stoker_router.access import Entry, Trail
from stoker_router.exchange import Exchange
from stoker_router.table import RouteConfig
from stoker_router.wishes import wishes_of

_END = b"\r\n\r\n"


class Intake:
    """The rules of one service. `plain`: there are none, and its requests are not looked at."""

    __slots__ = ("_route", "_wishes", "plain")

    def __init__(self, route: RouteConfig) -> None:
        self._route = route
        self._wishes = wishes_of(route)
        self.plain = self._wishes is None and route.max_body is None and not route.access_log

    def look(self, exchange: Exchange) -> str:
        """Heed what the request says itself. Return why it is too large, "" if it is not."""
        kept, route = exchange.kept, self._route
        if kept is None:
            return ""
        if self._wishes is not None:
            kept[0] = data = self._wishes.traced(kept[0])
            exchange.size = len(data)
            head = data[: data.find(_END) + 4]
            exchange.priority = self._wishes.priority_of(head)
            self.time(exchange, self._wishes.patience_of(head))
        if route.access_log:
            head, _, body = kept[0].partition(_END)
            exchange.trail = Trail(head + b"\r\n", chosen=random() < route.access_log)
            exchange.trail.received = len(body)
        if route.max_body is None:
            return ""
        exchange.room = route.max_body - (len(kept[0]) - kept[0].find(_END) - 4)
        too_large = exchange.length > route.max_body or exchange.room < 0
        return f"the body is larger than {route.max_body} bytes" if too_large else ""

    def time(self, exchange: Exchange, patience: float = inf) -> None:
        """Give it the time that the service, or it itself, sets."""
        exchange.last = exchange.arrived + min(self._route.timeout, patience)
        exchange.due = min(exchange.due, exchange.last)

    def entry(self, exchange: Exchange, trail: Trail, status: int) -> Entry | None:
        """What the access log says of its end; None if it is not to be written."""
        if not trail.chosen and status < 500:
            return None
        worker = exchange.worker or exchange.avoid
        return Entry(
            self._route.service,
            exchange.client.peer,
            exchange.arrived,
            exchange.waited,
            status,
            worker.config.id if worker is not None else "",
            exchange.tries,
        )
