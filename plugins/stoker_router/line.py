"""The queue of one service: first come, first served, also after a failed try."""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile

from stoker_router.exchange import Exchange


class Line(OrderedDict[Exchange, None]):
    """Exchanges in order of arrival. Adding, taking the first and leaving from anywhere cost the same
    however long the line is. It keeps `Exchange.waited`."""

    @property
    def first(self) -> Exchange | None:
        """The one that has waited longest, still in the line."""
        return next(iter(self), None)

    def join(self, exchange: Exchange, now: float) -> None:
        """Take a place: at the end, or that of its arrival if it comes back from a failed try."""
        exchange.waited -= now
        last = next(reversed(self), None)
        self[exchange] = None
        if last is None or last.arrived <= exchange.arrived:
            return
        earlier = list(takewhile(lambda other: other.arrived <= exchange.arrived, self))
        for one in (exchange, *reversed(earlier)):
            self.move_to_end(one, last=False)

    def leave(self, exchange: Exchange, now: float) -> None:
        """Give up the place."""
        del self[exchange]
        exchange.waited += now
