"""Whom a service talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stoker_router.access import Entry, Mark, Trail

if TYPE_CHECKING:
    from stoker_router.service import Service


class Connection(Protocol):
    """A client's connection, as a service sees it."""

    @property
    def writing(self) -> bool:
        """Whether bytes for the client are still in this process."""
        ...

    def close_if_idle(self) -> None:
        """Close it unless it waits for an answer."""
        ...


class Events(Protocol):
    """Whom a service tells."""

    def active(self, service: Service) -> None:
        """It was at rest and no longer is."""
        ...

    def demand(self, service: Service) -> None:
        """A request waits and there is no worker."""
        ...

    def growing(self, service: Service) -> None:
        """More than twice as many wait as were told of last."""
        ...

    def drained(self, worker: str) -> None:
        """A draining worker has nothing in flight any more."""
        ...

    def logged(self, trail: Trail, entry: Entry) -> None:
        """A request that belongs into the access log has ended."""
        ...

    def traced(self, trail: Trail, entry: Entry, mark: Mark) -> None:
        """A request has ended of which a span is to be told."""
        ...
