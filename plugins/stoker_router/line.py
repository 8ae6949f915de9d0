"""The queue of one service: first come, first served, also after a failed try; before that by priority."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import takewhile

from stoker_router.exchange import Exchange

_Lane = OrderedDict[Exchange, None]


class Line:
    """Exchanges by priority, of equal ones in order of arrival. Adding, taking the first and leaving from
    anywhere cost the same however long the line is. It keeps `Exchange.waited`."""

    __slots__ = ("_lanes", "_news", "_plain", "size")

    def __init__(self) -> None:
        self.size = 0
        """How many there are; asked at every request, so it costs no call."""
        self._plain = _Lane()
        """Priority 0, which is all there is unless a service has priorities."""
        self._lanes: dict[int, _Lane] = {0: self._plain}
        """By priority, highest first; others than 0 only while somebody is in them."""
        self._news = 1

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Exchange]:
        for lane in self._lanes.values():
            yield from lane

    def __contains__(self, exchange: Exchange) -> bool:
        return exchange in self._lanes.get(exchange.terms.priority, ())

    @property
    def first(self) -> Exchange | None:
        """The next: the one that has waited longest of those with the highest priority, still in the line."""
        if len(self._lanes) == 1:
            return next(iter(self._plain), None)
        return next(iter(self), None)

    @property
    def oldest(self) -> float | None:
        """When the one that has waited longest arrived."""
        return min((next(iter(lane)).arrived for lane in self._lanes.values() if lane), default=None)

    @property
    def grown(self) -> bool:
        """Whether more than twice as many are in it as were told of last."""
        return len(self) >= self._news

    def told(self, now: float) -> float:
        """It is told of now; returns for how many seconds the oldest has waited."""
        self._news = 2 * len(self) + 1
        oldest = self.oldest
        return 0.0 if oldest is None else now - oldest

    def join(self, exchange: Exchange, now: float) -> None:
        """Take a place: at the end, or that of its arrival if it comes back from a failed try."""
        exchange.waited -= now
        lane = self._lane(exchange.terms.priority)
        last = next(reversed(lane), None)
        lane[exchange] = None
        self.size += 1
        if last is None or last.arrived <= exchange.arrived:
            return
        earlier = list(takewhile(lambda other: other.arrived <= exchange.arrived, lane))
        for one in (exchange, *reversed(earlier)):
            lane.move_to_end(one, last=False)

    def leave(self, exchange: Exchange, now: float) -> None:
        """Give up the place."""
        lane = self._lanes[exchange.terms.priority]
        del lane[exchange]
        self.size -= 1
        if not lane and lane is not self._plain:
            del self._lanes[exchange.terms.priority]
        exchange.waited += now

    def _lane(self, priority: int) -> _Lane:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = _Lane()
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))
        return lane
