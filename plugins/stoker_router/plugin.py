"""What this plugin brings: the router `stoker`."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Router, RouterFactory


@impl
def stoker_routers() -> Mapping[str, RouterFactory]:
    """The default router: a program of its own that outlives the daemon."""
    return {"stoker": _make}


def _make(context: PluginContext) -> Router:
    from stoker_router.link import ProgramLink

    return ProgramLink(context)
