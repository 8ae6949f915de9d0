"""The daemon's values on the control socket and back. Pure; the daemon's side only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.errors import RouterError
from stoker.model.door import Door
from stoker.model.load import LoadSample, RequestBatch, RequestRecord
from stoker.model.service import ServiceKey
from stoker.model.state import Route, RoutingTable
from stoker.model.trace import FailedTry, RequestSpan, SpanBatch


def encode_table(table: RoutingTable, ports: Mapping[ServiceKey, tuple[str, int]]) -> list[dict[str, Any]]:
    """The routes as the program reads them. `ports`: where services are open or were open last, so that one
    whose port is chosen by the router gets the same port again from a new program."""
    return [_encode_route(route, ports.get(route.service)) for route in table.routes.values()]


def door_name(door: Door) -> str:
    """Its name among the addresses; no service has such a one."""
    return f"@{door.host}:{door.port}"


def encode_doors(table: RoutingTable) -> list[dict[str, Any]]:
    """The doors as the program reads them."""
    return [
        {
            **_encode_address(door),
            "service": door_name(door),
            "waiting_page": door.waiting_page,
            "rules": [
                {"service": rule.service, "host": rule.host, "path": rule.path, "strip": rule.strip}
                for rule in door.rules
            ],
        }
        for door in table.doors
    ]


def _encode_address(place: Route | Door) -> dict[str, Any]:
    tls = place.tls
    return {
        "host": place.host,
        "port": place.port,
        "tls": None if tls is None else {"cert": tls.cert, "key": tls.key, "version": tls.version},
        "proxy_protocol": place.proxy_protocol,
        "trusted_proxies": place.trusted_proxies,
    }


def _encode_route(route: Route, last: tuple[str, int] | None) -> dict[str, Any]:
    return {
        **_encode_address(route),
        "service": route.service,
        "prefer": last[1] if last is not None and last[0] == route.host else 0,
        "timeout": route.timeout,
        "max_queue": route.max_queue,
        "max_concurrency": route.max_concurrency,
        "retry": route.retry,
        "protocol": route.protocol,
        "held": route.held,
        "leaving": route.leaving,
        "inner": route.inner,
        "max_body": route.max_body,
        "priority_header": route.priority_header,
        "timeout_header": route.timeout_header,
        "access_log": route.access_log,
        "trace": route.trace,
        "workers": [
            {
                "id": worker.id,
                "endpoint": worker.endpoint,
                "concurrency": worker.concurrency,
                "draining": worker.draining,
            }
            for worker in route.workers
        ],
    }


def decode_records(message: Mapping[str, Any]) -> RequestBatch:
    """The requests of a pushed batch. Raises RouterError for what is none."""
    if message.get("op") != "requests":
        raise RouterError(f"the router does not record: {message.get('message', 'it does not say why')}")
    requests = (
        RequestRecord(service=service, arrived=arrived, waited=waited, held=held, status=status)
        for service, arrived, waited, held, status in message["rows"]
    )
    return RequestBatch(requests, message.get("dropped", 0))


def decode_spans(message: Mapping[str, Any]) -> SpanBatch:
    """The spans of a pushed batch. Raises RouterError for what is none."""
    if message.get("op") != "spans":
        raise RouterError(f"the router tells no spans: {message.get('message', 'it does not say why')}")
    spans = (
        RequestSpan(**{**row, "failed": tuple(FailedTry(*failed) for failed in row["failed"])})
        for row in message["rows"]
    )
    return SpanBatch(tuple(spans), message.get("dropped", 0))


def decode_sample(message: Mapping[str, Any]) -> LoadSample:
    """The load sample of a pushed line. Raises KeyError, TypeError or ValueError."""
    fields = {name: value for name, value in message.items() if name != "op"}
    fields["latency"] = {float(bound): count for bound, count in message["latency"].items()}
    return LoadSample(**fields)
