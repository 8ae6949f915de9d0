"""What this plugin brings: the router `stoker`."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.model.service import ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Router, RouterFactory, Shortfalls


@impl
def stoker_routers() -> Mapping[str, RouterFactory]:
    """The default router: a program of its own that outlives the daemon."""
    return {"stoker": _make}


@impl
def stoker_router_shortfalls() -> Mapping[str, Shortfalls]:
    """What it does not speak."""
    return {"stoker": _shortfalls}


def _shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    if spec.traffic.protocol == "http":
        return {}
    return {"traffic.protocol": f"speaks HTTP/1.1 and WebSocket, not {spec.traffic.protocol}"}


def _make(context: PluginContext) -> Router:
    from stoker_router.link import ProgramLink

    return ProgramLink(context)
