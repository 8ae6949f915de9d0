"""What this plugin brings: the router `haproxy`, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.model.service import ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Router, RouterFactory, Shortfalls


@impl
def stoker_routers() -> Mapping[str, RouterFactory]:
    """HAProxy: for HTTP/2 and gRPC."""
    return {"haproxy": make}


@impl
def stoker_router_shortfalls() -> Mapping[str, Shortfalls]:
    """What HAProxy cannot do as it is asked to."""
    return {"haproxy": _shortfalls}


def _shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    traffic, found = spec.traffic, {}
    if traffic.max_body is not None:
        found["traffic.max_body"] = "goes by Content-Length: a body that comes in chunks is not limited"
    if traffic.priority_header is not None:
        found["traffic.priority_header"] = "serves requests in the order in which they come"
    if traffic.timeout_header is not None:
        found["traffic.timeout_header"] = "gives every request the `timeout` of the service"
    if traffic.access_log:
        found["traffic.access_log"] = "writes no access log"
    if traffic.trace == "start":
        found["traffic.trace"] = "passes trace context on and starts none"
    return found


def make(context: PluginContext) -> Router:
    """The router. Raises PluginError where there is no HAProxy that serves."""
    from stoker_haproxy.binary import find
    from stoker_haproxy.router import HaproxyRouter

    return HaproxyRouter(context, find(context.environ))
