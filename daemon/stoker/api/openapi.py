"""The API described: one table from which both the routes and `/v1/openapi.json` are made. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
SERVICE: Schema = {"type": "string", "description": "name, or deployment/name where that is ambiguous"}

DEVICE: Schema = {"type": "string", "description": "a UUID, the beginning of one, or an index"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One path and method. `name` is the method of `stoker.api.endpoints.Endpoints` that answers."""

    method: str
    path: str
    name: str
    summary: str
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Mapping[str, Schema] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    media_type: str = "application/json"


def _get(
    path: str, name: str, summary: str, media_type: str = "application/json", /, **query: Schema
) -> Endpoint:
    return Endpoint(method="GET", path=path, name=name, summary=summary, media_type=media_type, query=query)


def _post(path: str, name: str, summary: str, /, *required: str, **body: Schema) -> Endpoint:
    return Endpoint(method="POST", path=path, name=name, summary=summary, body=body, required=required)


ENDPOINTS: tuple[Endpoint, ...] = (
    _get("/", "index", "The page", "text/html"),
    _get("/page/{file}", "page_file", "A part of the page", "text/javascript"),
    _get("/v1", "api_index", "What this is, in a few lines of text", "text/plain"),
    _get("/healthz", "healthz", "200 while the daemon's loop turns", "text/plain"),
    _get("/metrics", "metrics", "Prometheus metrics", "text/plain"),
    _get("/v1/openapi.json", "openapi", "This document"),
    _get("/v1/status", "status", "Daemon, services with their replicas, devices", service=SERVICE),
    _get("/v1/plan", "plan", "What the files in force, read again, would change"),
    _get("/v1/explain", "explain", "Where a value, a target or a placement comes from",
         of={**TEXT, "description": "a replica, a service or a config path: the first that fits"},
         path=TEXT, service=SERVICE, replica=TEXT),
    _get("/v1/config", "config", "The configuration in force, with the source of each value"),
    _get("/v1/events", "events", "As server-sent events (resume with Last-Event-ID) or one document",
         "text/event-stream", follow={**FLAG, "default": True}, after=TEXT, tail=COUNT),
    _get("/v1/live", "live", "The page's stream: the whole state, then what changes, once a second at most",
         "text/event-stream"),
    _get("/v1/history", "history", "Load, targets and replicas over the last hour",
         seconds={**NUMBER, "default": 3600}),
    _get("/v1/devices", "devices", "Devices, their health and who holds them"),
    _get("/v1/routes", "routes", "Where each service and door listens; `follow`: JSON lines, on change",
         follow=FLAG),
    _get("/v1/plugins", "plugins", "Plugins that were found, with the parts they bring"),
    _get("/v1/story/{replica}", "story", "The events of a replica and what caused them"),
    _get("/v1/logs", "logs", "Workers' output as JSON lines", "application/x-ndjson",
         service={**TEXT, "description": "a service or a replica; missing: all"}, follow=FLAG, tail=COUNT,
         since={**NUMBER, "description": "seconds since the epoch: only what was written since"}),
    _get("/v1/record", "record", "Each request as it ends, as JSON lines", "application/x-ndjson",
         service={**SERVICE, "description": "missing: all"}),
    _post("/v1/plan", "plan_files", "What these files would change", files=TEXTS, profile=TEXT, sets=TEXTS),
    _post("/v1/scale", "scale", "Override the bounds: replicas, or min_replicas and max_replicas", "service",
          service=SERVICE, replicas=COUNT, min_replicas=COUNT, max_replicas=COUNT),
    _post("/v1/set", "set_values", "Set live overrides by dotted path", "values", values=OBJECT),
    _post("/v1/unset", "unset_values", "Remove live overrides", "paths", paths=TEXTS),
    _post("/v1/restart", "restart", "Rolling restart by the update strategy", "service", service=SERVICE),
    _post("/v1/stop", "stop", "Hold a service at zero replicas", "service", service=SERVICE),
    _post("/v1/start", "start", "Release a held service", "service", service=SERVICE),
    _post("/v1/devices/cordon", "cordon", "Give a device to no new worker; those on it stay", "device",
          device=DEVICE),
    _post("/v1/devices/uncordon", "uncordon", "Give a cordoned or released device back", "device",
          device=DEVICE),
    _post("/v1/devices/release", "release", "Cordon a device and move its workers elsewhere",
          "device", device=DEVICE),
    _post("/v1/listen", "listen", "Open the API on TCP at HOST:PORT, for those who hold its token", "address",
          address=TEXT),
    _post("/v1/reload", "reload", "Read the configuration again now"),
    _post("/v1/reexec", "reexec", "Replace the daemon in place; workers and router go on"),
    _post("/v1/down", "down", "Drain everything and end the daemon; answers at once"),
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stoker",
            "version": version,
            "description": "The daemon's API on its unix socket. Errors are RFC 9457 problem details.",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM}},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "schema": dict(schema)} for name, schema in endpoint.query.items()
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": dict(TEXT)}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "responses": {
            "200": {"description": "OK", "content": {endpoint.media_type: {}}},
            "default": {
                "description": "A problem",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if endpoint.method == "POST":
        schema = {
            "type": "object",
            "properties": {name: dict(value) for name, value in endpoint.body.items()},
            "required": list(endpoint.required),
            "additionalProperties": False,
        }
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": bool(endpoint.required), "content": content}
    return operation


_PROBLEM: Schema = {
    "type": "object",
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "file": TEXT,
                    "line": COUNT,
                    "column": COUNT,
                    "path": TEXT,
                    "message": TEXT,
                },
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}
