"""Every hook of Stoker, on one page.

A plugin is a module (or object) with functions of these names, marked with `@stoker.plugin.impl`, and
an entry point in the group `stoker` that names it. Hooks run once, when the plugin is loaded; they
declare *factories*, which are called only when the configuration asks for the thing they make. Each
factory gets a `stoker.plugin.ports.PluginContext`.

    # my_plugin.py                          # pyproject.toml
    from stoker.plugin import impl          # [project.entry-points.stoker]
                                            # mine = "my_plugin"
    @impl
    def stoker_policies():
        return {"tides": lambda context: Tides()}
"""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

from stoker.plugin.ports import (
    ApplicationFactory,
    DeviceSourceFactory,
    EventSinkFactory,
    PolicyFactory,
    RouterFactory,
    Shortfalls,
    WorkerDriverFactory,
)

spec = pluggy.HookspecMarker("stoker")


@spec
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:  # type: ignore[empty-body]
    """Drivers by the name that `backend:` uses (`process`, `systemd`, `ray`).

    .. versionadded:: 0.1
    """


@spec
def stoker_driver_shortfalls() -> Mapping[str, Shortfalls]:  # type: ignore[empty-body]
    """What drivers cannot do, by the name that `backend:` uses: said by `stoker check` where it is asked for.

    .. versionadded:: 0.1
    """


@spec
def stoker_device_sources() -> Mapping[str, DeviceSourceFactory]:  # type: ignore[empty-body]
    """Sources of devices by name. All of them run; their inventories are joined.

    .. versionadded:: 0.1
    """


@spec
def stoker_routers() -> Mapping[str, RouterFactory]:  # type: ignore[empty-body]
    """Routers by the name that `box.router` uses.

    .. versionadded:: 0.1
    """


@spec
def stoker_router_shortfalls() -> Mapping[str, Shortfalls]:  # type: ignore[empty-body]
    """What routers cannot do, by the name that `box.router` uses: said by `stoker check` where it is asked
    for. A service whose `traffic.protocol` is among it is given to a router that speaks the protocol.

    .. versionadded:: 0.1
    """


@spec
def stoker_policies() -> Mapping[str, PolicyFactory]:  # type: ignore[empty-body]
    """Scaling policies by the name that `scaling.policy.metric` uses.

    .. versionadded:: 0.1
    """


@spec
def stoker_event_sinks() -> Mapping[str, EventSinkFactory]:  # type: ignore[empty-body]
    """Receivers of events by name; all of them run.

    .. versionadded:: 0.1
    """


@spec
def stoker_applications() -> Mapping[str, ApplicationFactory]:  # type: ignore[empty-body]
    """Projects that declare their services in code, by the key of the file that names one (`bento`).

    .. versionadded:: 0.1
    """
