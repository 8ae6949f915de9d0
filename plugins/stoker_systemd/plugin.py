"""What this plugin brings: the `systemd` driver, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.errors import PluginError
from stoker.model.service import ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Shortfalls, WorkerDriver, WorkerDriverFactory


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """Workers as transient units."""
    return {"systemd": _make}


@impl
def stoker_driver_shortfalls() -> Mapping[str, Shortfalls]:
    """What a transient unit cannot do."""
    return {"systemd": _shortfalls}


def _shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    found: dict[str, str] = {}
    if spec.probes.startup is not None and spec.probes.startup.notify and spec.user is None:
        found["probes.startup.notify"] = (
            "gives a service without `user` one of its own, which cannot reach NOTIFY_SOCKET; name a `user`"
        )
    if spec.preload:
        found["preload"] = "starts each replica by itself: nothing is forked from a warm process"
    return found


def _make(context: PluginContext) -> WorkerDriver:
    try:
        from stoker_systemd.driver import SystemdDriver
    except ModuleNotFoundError as error:
        raise PluginError(f"it needs {error.name}; pip install 'stoker[systemd]'") from error
    return SystemdDriver(context)
