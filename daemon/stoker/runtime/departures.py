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
        self._unwritten: dict[str, str] = {}
        """Why not, by replica."""

    def keep(self, departures: Iterable[Departure]) -> None:
        """Write down who is on its way. Of whom that cannot be written the record has to stay (`unnoted`)."""
        found = [
            {
                "replica": one.replica,
                "service": one.service,
                "devices": one.devices,
                "pids": sorted(one.pids),
                "strangers": sorted(one.strangers),
                "unclaimed": one.unclaimed,
            }
            for one in departures
        ]
        try:
            self._store.write(NAME, {"boot": self._boot, "departures": found})
        except OSError as error:
            self._unwritten = {str(one["replica"]): error.strerror or str(error) for one in found}
        else:
            self._unwritten = {}

    def unnoted(self, replica: str) -> str:
        """Why it is not written that this worker is on its way, "" if it is or need not be."""
        return self._unwritten.get(replica, "")

    def recall(self) -> Iterator[Departure]:
        """Those of the daemon before: who was on its way, and every worker it has recorded, since nobody
        knows yet which of these live."""
        written = self._store.read(NAME)
        if written.get("boot") == self._boot:
            for one in written.get("departures", ()):
                with contextlib.suppress(
                    KeyError, TypeError, ValueError
                ):  # not as we write it: it says nothing
                    yield Departure(
                        replica=one["replica"],
                        service=one["service"],
                        devices=tuple(one["devices"]),
                        pids=frozenset(one["pids"]),
                        strangers=frozenset(one.get("strangers", ())),
                        unclaimed=tuple((uuid, int(size)) for uuid, size in one.get("unclaimed", ())),
                    )
        for record in self._store.workers():
            if record.reservations:
                yield Departure(
                    replica=record.replica,
                    service=record.service,
                    devices=tuple(given.uuid for given in record.reservations),
                    pids=frozenset({record.handle.pid} if record.handle else ()),
                )
