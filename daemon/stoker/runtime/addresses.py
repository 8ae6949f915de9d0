"""Which port: a stable one for each service, a fresh one for each worker.

Chosen ports lie below the kernel's ephemeral range, where no outgoing connection can sit on one
between the moment it is chosen and the moment a slow worker binds it. Each instance begins to look at a
place of its own.
"""

from __future__ import annotations

import errno
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from stoker.errors import WorkerError
from stoker.model.service import DesiredState, ServiceKey
from stoker.runtime.store import Store

SERVICE_PORTS = range(18000, 20000)
WORKER_PORTS = range(20000, 32000)
LOOPBACK = "127.0.0.1"


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on that port."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def _offset(instance: str, count: int) -> int:
    """Where an instance begins to look, so that several daemons on a box do not take each other's ports."""
    return zlib.crc32(instance.encode()) % count if instance else 0


class WorkerPorts:
    """Hands out ports for workers, each to one replica at a time, going round so that a port just given
    back is the last to be used again."""

    def __init__(self, ports: range = WORKER_PORTS, *, instance: str = "") -> None:
        self._ports = ports
        self._next = _offset(instance, len(ports))
        self._taken: set[int] = set()

    def take(self, host: str = "127.0.0.1") -> int:
        """A free port. Raises WorkerError when there is none."""
        for _ in range(len(self._ports)):
            port = self._ports[self._next]
            self._next = (self._next + 1) % len(self._ports)
            if port not in self._taken and is_free(host, port):
                self._taken.add(port)
                return port
        low, high = self._ports[0], self._ports[-1]
        raise WorkerError(
            f"no free port for a worker between {low} and {high}; `ss -ltnp` shows who has them"
        )

    def adopt(self, port: int) -> None:
        """Remember a port that a worker already has."""
        self._taken.add(port)

    def give_back(self, port: int) -> None:
        """The worker of that port is gone."""
        self._taken.discard(port)


class ServiceAddresses:
    """The stable address of each service: the declared one, or one chosen once and kept in the state.
    `trouble` is told what an operator must know; a service for which no port is left has no address."""

    def __init__(self, store: Store, trouble: Callable[[str], None] = lambda message: None) -> None:
        self._store = store
        self._trouble = trouble
        recorded = store.read("addresses")
        self._chosen: dict[ServiceKey, int] = {
            key: port for key, port in recorded.items() if isinstance(port, int)
        }
        self._table: dict[ServiceKey, tuple[str, int]] = dict(_former(recorded))
        self._of: DesiredState | None = None
        self._kept = recorded

    def table(self, desired: DesiredState) -> Mapping[ServiceKey, tuple[str, int]]:
        """Address by service; new ones are chosen and recorded."""
        if desired is not self._of:
            former = self._table
            self._table = self._assign(desired)
            taken = set(self._table.values())
            # A service that left the file keeps its address while its last requests are finished.
            self._table |= {
                key: address
                for key, address in former.items()
                if key not in desired.services and address not in taken
            }
            self._of = desired
            self._keep()
        return self._table

    def url(self, service: ServiceKey) -> str:
        """`http://host:port` of a service, `https` where it has a certificate, "" if it has no address."""
        address = self._table.get(service)
        spec = self._of.services.get(service) if self._of is not None else None
        scheme = "https" if spec is not None and spec.endpoint.tls is not None else "http"
        return f"{scheme}://{address[0]}:{address[1]}" if address else ""

    def _assign(self, desired: DesiredState) -> dict[ServiceKey, tuple[str, int]]:
        table = {
            key: (spec.endpoint.host, spec.endpoint.port)
            for key, spec in desired.services.items()
            if spec.endpoint.port
        }
        for key, spec in desired.services.items():
            if key not in table:
                port = self._chosen.get(key) or self._choose(spec.endpoint.host, table)
                if port:
                    self._chosen[key] = port
                    table[key] = (spec.endpoint.host, port)
        return table

    def _keep(self) -> None:
        """Record ports that were chosen, to choose them again, and in words the addresses that a file
        declares: the next daemon's file may lack the service, whose last requests are then finished there."""
        declared = {
            key: f"{host}:{port}"
            for key, (host, port) in self._table.items()
            if self._chosen.get(key) != port
        }
        record = {**self._chosen, **declared}
        if record == self._kept:
            return
        try:
            self._store.write("addresses", record)
            self._kept = record
        except OSError as error:
            self._trouble(
                f"cannot record the services' addresses: {error}; the next daemon may choose others"
            )

    def _choose(self, host: str, table: Mapping[ServiceKey, tuple[str, int]]) -> int:
        used = {*self._chosen.values(), *(port for _, port in table.values())}
        first = _offset(self._store.instance(), len(SERVICE_PORTS))
        for port in chain(SERVICE_PORTS[first:], SERVICE_PORTS[:first]):
            if port not in used and is_free(host, port):
                return port
        self._trouble(
            f"no free port for a service on {host} between {SERVICE_PORTS[0]} and {SERVICE_PORTS[-1]}"
        )
        return 0


def _former(recorded: Mapping[ServiceKey, object]) -> Iterator[tuple[ServiceKey, tuple[str, int]]]:
    """The addresses of the daemon before."""
    for key, value in recorded.items():
        if isinstance(value, int):
            yield key, (LOOPBACK, value)
        elif isinstance(value, str) and (port := value.rpartition(":")[2]).isdigit():
            yield key, (value.rpartition(":")[0], int(port))
