"""One of a daemon's routers: its part of the table, what it is asked to finish, what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import anyio

from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.model.state import Route
from stoker.plugin.ports import Router, RouterEvents
from stoker.runtime.routes import RouteFeed

THROUGH = "router:"
"""What the id of a worker begins with that is another router."""
SEPARATOR = "."
"""Between a router's name and the number of one of its further processes; names of parts have none."""


def process_name(base: str, place: int) -> str:
    """The name of a router's process; that of the first is the router's own. Pure."""
    return f"{base}{SEPARATOR}{place + 1}" if place else base


def base_of(name: str) -> str:
    """The router that a process is one of. Pure."""
    return name.partition(SEPARATOR)[0]


def place_of(name: str) -> int:
    """Which of them, from 0. Pure."""
    number = name.partition(SEPARATOR)[2]
    return int(number) - 1 if number.isdecimal() else 0


class Member:
    """One router, with what it is told and what it has told last."""

    def __init__(self, name: str, router: Router) -> None:
        self.name = name
        self.router = router
        self.feed = RouteFeed()
        self.leaving: dict[ServiceKey, Route] = {}
        """Services that another one has now and that this one still finishes."""
        self.loads: dict[ServiceKey, LoadSample] = {}
        self._scope = anyio.CancelScope()

    def at_rest(self, service: ServiceKey) -> bool:
        """Whether it has told of nothing that is still to be finished."""
        load = self.loads.get(service)
        if load is None:
            return True
        if any(worker.startswith(THROUGH) for worker in load.workers):  # what a door leads on is another's
            return not any(busy for worker, busy in load.workers.items() if not worker.startswith(THROUGH))
        return not (load.in_flight or load.queued)

    async def run(self, listener: Listener) -> None:
        """Serve until cancelled or ended."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.router.run, Ears(listener, self))
                tasks.start_soon(self.feed.run, self.router)

    async def end(self, grace: float) -> None:
        """End its program, and what serves it here."""
        await self.router.stop(grace)
        self._scope.cancel()


class Listener(Protocol):
    """Who hears what members tell."""

    events: RouterEvents

    def owns(self, member: Member, service: ServiceKey) -> bool:
        """Whether it is that member that has the service."""
        ...

    def heard_drained(self, member: Member, replica: str) -> None:
        """It has nothing in flight on a draining worker."""
        ...


@dataclass(frozen=True, slots=True)
class Ears:
    """What one member calls back (see stoker.plugin.ports.RouterEvents)."""

    listener: Listener
    member: Member

    def sample(self, sample: LoadSample) -> None:
        """The load of a service is what the router tells that has it."""
        self.member.loads[sample.service] = sample
        if self.listener.owns(self.member, sample.service):
            self.listener.events.sample(sample)

    def demand(self, service: ServiceKey) -> None:
        """Whoever holds a request needs a worker."""
        self.listener.events.demand(service)

    def drained(self, replica: str) -> None:
        """A worker is drained once every router says so that sends it requests."""
        self.listener.heard_drained(self.member, replica)

    def bound(self, service: ServiceKey, host: str, port: int) -> None:
        """The address is open."""
        if self.listener.owns(self.member, service):
            self.listener.events.bound(service, host, port)

    def trouble(self, service: ServiceKey, message: str) -> None:
        """Something that the operator must know."""
        self.listener.events.trouble(service, message)
