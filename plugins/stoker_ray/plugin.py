"""What this plugin brings: the `ray` driver, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from stoker.errors import PluginError
from stoker.model.service import ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Shortfalls, WorkerDriver, WorkerDriverFactory


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """Workers on the nodes of a Ray cluster."""
    return {"ray": _make}


@impl
def stoker_driver_shortfalls() -> Mapping[str, Shortfalls]:
    """What a worker on another node cannot have."""
    return {"ray": shortfalls}


def shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    """Pure."""
    found: dict[str, str] = {}
    if spec.probes.startup is not None and spec.probes.startup.notify:
        found["probes.startup.notify"] = "has no NOTIFY_SOCKET on other nodes; use http, tcp or exec"
    if spec.preload:
        found["preload"] = "starts each replica by itself: nothing is forked from a warm process"
    for name in ("user", "group"):
        if getattr(spec, name) is not None:
            found[name] = "runs everything as the cluster's own user, and refuses to start it as another"
    for name in ("memory", "cpu", "pids"):
        if getattr(spec.limits, name) is not None:
            found[f"limits.{name}"] = "only counts what replicas ask for, it holds no limit"
    if spec.elsewhere is not None and spec.elsewhere.resources.gpu_memory:
        found["resources.gpu_memory"] = "does not know the memory of GPUs; name a custom resource under `ray`"
    return found


def _make(context: PluginContext) -> WorkerDriver:
    if find_spec("ray") is None:
        raise PluginError("it needs ray; pip install 'stoker[ray]'")
    from stoker_ray.driver import RayDriver

    return RayDriver(context)
