"""What a router on another box does: each address of the deployment, led on to the deployment's own router.

One queue per service, at home: there its replicas are counted, its load is measured and its workers drain. A
router elsewhere only finds the way there. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from stoker.model.service import ServiceKey
from stoker.model.state import Route, RoutingTable, WorkerRoute

SLACK = 5.0
"""Seconds beyond a service's own timeout: its own router is to be the one who says that it was too long."""
DOOR_TIMEOUT = 3600.0
"""Seconds of patience with a door: each service behind it has a timeout of its own there."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The table of such a router, and by address what is not carried and why."""

    table: RoutingTable
    notes: Mapping[ServiceKey, str]


def forwarding(document: Mapping[str, Any], home: str, listen: str) -> Forwarded:
    """What to do for what a daemon at the host `home` tells of its addresses (`GET /v1/routes`), with all
    addresses opened at `listen`. Raises KeyError, TypeError or ValueError for what is no such document."""
    routes, notes = {}, {}
    doors = [
        {**door, "service": f"door/{door['port']}", "timeout": DOOR_TIMEOUT} for door in document["doors"]
    ]
    for told in (*document["routes"], *doors):
        name, where = str(told["service"]), reached(str(told["host"]), home)
        if why := _never(told):
            notes[name] = why
            continue
        if not where:
            notes[name] = _unreachable(name, str(told["host"]))
        routes[name] = _route(told, name, listen, where, held=notes.get(name, ""))
    return Forwarded(RoutingTable(routes=routes), notes)


def reached(host: str, home: str) -> str:
    """Where something that listens at `host` on the box `home` is reached; "" if only that box reaches it."""
    if _is(host, "is_unspecified"):
        return home
    if _is(host, "is_loopback") or host == "localhost":
        # The daemon itself was asked on loopback: this very box, or a tunnel.
        return host if _is(home, "is_loopback") or home == "localhost" else ""
    return host


def _is(host: str, what: str) -> bool:
    try:
        return bool(getattr(ip_address(host), what))
    except ValueError:
        return False


def _never(told: Mapping[str, Any]) -> str:
    if told["tls"]:
        return "has a certificate, and is asked for at its own address"
    if told["proxy_protocol"]:
        return "wants the PROXY protocol, which is for the proxy before it"
    if told.get("protocol", "http") != "http":
        return f"speaks {told['protocol']}, and is asked for at its own address"
    return ""


def _unreachable(name: str, host: str) -> str:
    key = "ingress.host" if name.startswith("door/") else "endpoint.host"
    return f"listens at {host} of its own box only; set its {key} to 0.0.0.0"


def _route(told: Mapping[str, Any], name: str, listen: str, where: str, *, held: str) -> Route:
    host = f"[{where}]" if ":" in where else where
    home = WorkerRoute(id=f"{name}@home", endpoint=f"{host}:{int(told['port'])}")
    return Route(
        service=name,
        host=listen,
        port=int(told["port"]),
        workers=() if held else (home,),
        timeout=float(told["timeout"]) + SLACK,
        max_queue=int(told.get("max_queue", 1000)),
        max_body=told.get("max_body"),
        retry=str(told.get("retry", "idempotent")),
        held=f"{name} {held}" if held else "",
    )
