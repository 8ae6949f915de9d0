"""The workers of one process as HAProxy's dynamic servers: commands that make them as the table. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stoker.model.state import UNIX, WorkerRoute
from stoker_haproxy.readings import PLUG, Reading, worker_of

_CARE = (
    "check inter 1h fastinter 250 downinter 250 rise 1 fall 1"
    " observe layer4 error-limit 1 on-error mark-down pool-purge-delay 1s"
)
"""A worker that takes no connection is left alone at once and asked again four times a second; one that works
is never asked. Idle connections to it are closed after a second or two, before it closes them itself."""


NO_LIMIT = 1_000_000
"""Slots of a worker that has any number. Without `maxconn` a server takes nothing out of a queue, and there
is one while the pool has no worker."""
_NO_ADDRESS = "-"
"""What HAProxy says of the address of a server on a unix socket."""


@dataclass(frozen=True, slots=True)
class Known:
    """A server as it was made; `place` is by `place_of`. `leaving`: its worker left the table; it goes when
    nothing is in flight."""

    name: str
    place: str
    concurrency: int | None
    draining: bool = False
    leaving: bool = False
    told: bool = False
    """It was said that it has drained."""

    @property
    def worker(self) -> str:
        """The id of the worker that it stands for."""
        return worker_of(self.name)


class Servers:
    """What is known of a process's servers. `http2`: the workers speak HTTP/2."""

    def __init__(self, *, http2: bool, known: Iterable[Known] = ()) -> None:
        self._suffix = f"{_CARE} proto h2" if http2 else _CARE
        self._known = {server.name: server for server in known}

    def __iter__(self) -> Iterator[Known]:
        yield from self._known.values()

    @property
    def serving(self) -> int:
        """How many get new requests."""
        return sum(not (server.draining or server.leaving) for server in self)

    @property
    def ending(self) -> bool:
        """Whether something is waited for: a worker to drain, or to be removed."""
        return any(server.leaving or (server.draining and not server.told) for server in self)

    def become(self, workers: Sequence[WorkerRoute]) -> list[str]:
        """The commands that make them these; they are taken for obeyed."""
        wanted = {worker.id: worker for worker in workers}
        commands: list[str] = []
        present = set()
        for server in list(self):
            worker = wanted.get(server.worker)
            if (
                worker is not None
                and place_of(worker.endpoint) == server.place
                and server.worker not in present
            ):
                present.add(server.worker)
                commands += self._update(server, worker)
            elif not server.leaving:
                self._known[server.name] = replace(server, leaving=True)
                commands.append(f"set server pool/{server.name} state maint")
        for worker in workers:
            if worker.id not in present:
                commands += self._add(worker)
        return commands

    def _update(self, server: Known, worker: WorkerRoute) -> list[str]:
        where = f"pool/{server.name}"
        commands = []
        if worker.concurrency != server.concurrency:
            commands.append(f"set maxconn server {where} {worker.concurrency or NO_LIMIT}")
        if server.leaving or worker.draining != server.draining:
            commands.append(f"set server {where} state {'drain' if worker.draining else 'ready'}")
        self._known[server.name] = replace(
            server,
            concurrency=worker.concurrency,
            draining=worker.draining,
            leaving=False,
            told=server.told and worker.draining,
        )
        return commands

    def _add(self, worker: WorkerRoute) -> list[str]:
        place, unix = place_of(worker.endpoint), worker.endpoint.startswith(UNIX)
        first = name = f"{worker.id}:{place}" if unix else worker.id
        number = 1
        while name in self._known:
            number += 1
            name = f"{first}:{number}"
        self._known[name] = Known(name, place, worker.concurrency, worker.draining)
        address = f"unix@{worker.endpoint.removeprefix(UNIX)}" if unix else worker.endpoint
        where = f"pool/{name}"
        return [
            f"add server {where} {address} maxconn {worker.concurrency or NO_LIMIT} {self._suffix}",
            f"enable health {where}",
            *([f"set server {where} state drain"] if worker.draining else []),
            f"enable server {where}",
        ]

    def removable(self, reading: Reading) -> list[str]:
        """Servers whose worker left and that have nothing any more."""
        return [server.name for server in self if server.leaving and _free(reading, server.name)]

    def removed(self, name: str) -> None:
        """It is gone."""
        del self._known[name]

    def drained(self, reading: Reading) -> list[str]:
        """Draining workers that have nothing in flight, each said once."""
        found = []
        for server in list(self):
            if server.draining and not server.leaving and not server.told and _free(reading, server.name):
                self._known[server.name] = replace(server, told=True)
                found.append(server.worker)
        return found

    def tell_again(self) -> None:
        """Forget that it was said who has drained."""
        for server in list(self):
            self._known[server.name] = replace(server, told=False)


def place_of(endpoint: str) -> str:
    """What tells a worker's address from another: itself, or a mark of the path of a unix socket. HAProxy
    does not tell such a path, so the mark is part of the server's name."""
    return hashlib.sha256(endpoint.encode()).hexdigest()[:8] if endpoint.startswith(UNIX) else endpoint


def _free(reading: Reading, name: str) -> bool:
    server = reading.servers.get(name)
    return server is None or not (server.busy or server.queued)


def read_servers(state: str, reading: Reading) -> list[Known]:
    """The servers of a process that an earlier daemon made, from `show servers state pool` and its counters.
    What is under maintenance was leaving."""
    lines = state.splitlines()
    header = next(line for line in lines if line.startswith("# ")).removeprefix("# ").split()
    found = []
    for line in lines:
        row = dict(zip(header, line.split(), strict=False))
        name = row.get("srv_name", "")
        if name in reading.servers and name != PLUG:
            host = row["srv_addr"]
            place = f"[{host}]:{row['srv_port']}" if ":" in host else f"{host}:{row['srv_port']}"
            server = reading.servers[name]
            found.append(
                Known(
                    name,
                    name.split(":")[1] if host == _NO_ADDRESS else place,
                    None if server.limit == NO_LIMIT else server.limit or 0,
                    draining=server.status.startswith("DRAIN"),
                    leaving=server.status.startswith("MAINT"),
                )
            )
    return found
