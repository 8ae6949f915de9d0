"""Keeps who has ended and may still be on its devices, over the daemon's death."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from stoker.decide.pinning import Departure
from stoker.runtime.store import Store

NAME = "departures"
"""Of the file in the state directory."""


class Departures:
    """`boot` is the id of this boot: pids of another one say nothing."""

    def __init__(self, store: Store, *, boot: str) -> None:
        self._store = store
        self._boot = boot

    def keep(self, departures: Iterable[Departure]) -> None:
        """Write down who is on its way. What cannot be written is lost with this daemon, and no more."""
        found = [
            {"replica": one.replica, "service": one.service, "devices": one.devices, "pids": sorted(one.pids)}
            for one in departures
        ]
        with contextlib.suppress(OSError):
            self._store.write(NAME, {"boot": self._boot, "departures": found})

    def recall(self) -> Iterator[Departure]:
        """Those of the daemon before: who was on its way, and every worker it has recorded, since nobody
        knows yet which of these live."""
        written = self._store.read(NAME)
        if written.get("boot") == self._boot:
            for one in written.get("departures", ()):
                with contextlib.suppress(KeyError, TypeError):  # not as we write it: it says nothing
                    yield Departure(
                        replica=one["replica"],
                        service=one["service"],
                        devices=tuple(one["devices"]),
                        pids=frozenset(one["pids"]),
                    )
        for record in self._store.workers():
            if record.reservations:
                yield Departure(
                    replica=record.replica,
                    service=record.service,
                    devices=tuple(given.uuid for given in record.reservations),
                    pids=frozenset({record.handle.pid} if record.handle else ()),
                )
