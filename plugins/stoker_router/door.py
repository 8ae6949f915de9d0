"""One address for several services: which of them a request is for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from stoker_router.head import BadMessage
from stoker_router.ports import Connection
from stoker_router.service import Service
from stoker_router.table import DoorConfig, RuleConfig
from stoker_router.wishes import field

_HOST = field("host")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)([^?#]*)")
_DOTS = re.compile(rb"/(?:\.|%2[eE]){1,2}(?:/|\\|%2[fF]|%5[cC]|$)")


class Asked(NamedTuple):
    """Whom a request is for. `head` is as it was, but for the beginning of a path that was left out."""

    service: Service
    head: bytes


class Keeper(Protocol):
    """What a connection has to know of its door."""

    closed: bool
    clients: set[Connection]

    @property
    def waiting_page(self) -> float | None:
        """Seconds after which a browser is shown a page in place of nothing."""
        ...

    def ask(self, head: bytes, sent: bytes) -> Asked:
        """Whom a request is for, of which `head` came and `sent` goes on. Raises BadMessage."""
        ...


class Door:
    """A front door in the program. `services` are those of the program, by name."""

    def __init__(self, config: DoorConfig, services: Mapping[str, Service]) -> None:
        self._services = services
        self.clients: set[Connection] = set()
        """All open connections to its address."""
        self.closed = False
        """Its connections close after their next answer."""
        self._rules: tuple[RuleConfig, ...] = ()
        self.configure(config)

    def configure(self, config: DoorConfig) -> None:
        """Take the table's word on everything but the address."""
        self.waiting_page = config.waiting_page
        self._rules = tuple(sorted(config.rules, key=lambda rule: (not rule.host, -len(rule.path))))

    def ask(self, head: bytes, sent: bytes) -> Asked:
        """See `Keeper.ask`."""
        host, path = _aim(head)
        if _DOTS.search(path):
            raise BadMessage(400, "malformed request: the path goes through . or ..")
        text = path.decode("latin1")
        rule = next((one for one in self._rules if _fits(one, host, text)), None)
        if rule is None:
            raise BadMessage(404, f"no service is at {host or 'this address'}{text[:200]}")
        service = self._services.get(rule.service)
        if service is None:
            raise BadMessage(
                503, f"no way leads from here to {rule.service.rpartition('/')[2]}; ask at its own address"
            )
        return Asked(service, _without(sent, rule.path) if rule.strip and rule.path != "/" else sent)

    @property
    def busy(self) -> bool:
        """Whether bytes for a client are still in this process; the services know what is in flight."""
        return any(client.writing for client in self.clients)

    def last_requests(self) -> None:
        """Connections close after their next answer."""
        self.closed = True

    def begin_close(self) -> None:
        """Connections close after their answer, those without a request at once."""
        self.closed = True
        for client in list(self.clients):
            client.close_if_idle()


def _aim(head: bytes) -> tuple[str, bytes]:
    """The host, in lower case and without a port, and the path that a request names."""
    target = head.split(b" ", 2)[1]
    absolute = None if target.startswith(b"/") else _ABSOLUTE.match(target)
    if absolute is not None:
        authority, path = absolute.groups()
    else:
        found = _HOST.search(head)
        authority, path = found[1] if found else b"", target.partition(b"?")[0]
    host = authority.decode("latin1").lower()
    if not host.endswith("]"):
        host = host.rpartition(":")[0] or host if host.count(":") == 1 or "]:" in host else host
    return host.strip("[]").rstrip("."), path if path.startswith(b"/") else b"/"


def _fits(rule: RuleConfig, host: str, path: str) -> bool:
    if rule.host and rule.host != host:
        return False
    return rule.path in ("/", path) or path.startswith(f"{rule.path}/")


def _without(sent: bytes, prefix: str) -> bytes:
    """The head without that beginning of its path, and a field that says so."""
    method, target, rest = sent.split(b" ", 2)
    absolute = None if target.startswith(b"/") else _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end(1) :]
    shorter = target[len(prefix) :]
    if not shorter.startswith(b"/"):
        shorter = b"/" + shorter
    line = b"X-Forwarded-Prefix: %b\r\n\r\n" % prefix.encode()
    return b"%b %b %b%b" % (method, shorter, rest[:-2], line)
