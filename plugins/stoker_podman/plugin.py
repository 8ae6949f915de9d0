"""What this plugin brings: the drivers `podman` and `docker`, and what they cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.model.service import Command, ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Shortfalls, WorkerDriver, WorkerDriverFactory


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """Workers as containers."""
    return {"podman": _podman, "docker": _docker}


@impl
def stoker_driver_shortfalls() -> Mapping[str, Shortfalls]:
    """What a container cannot do."""
    return {"podman": shortfalls, "docker": docker_shortfalls}


def shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    """Pure."""
    found: dict[str, str] = {}
    own = spec.container
    if spec.preload:
        found["preload"] = "starts each replica by itself: nothing is forked from a warm process"
    if own.network == "bridge" and spec.probes.startup is not None and spec.probes.startup.notify:
        found["probes.startup.notify"] = (
            "gives a bridge network no NOTIFY_SOCKET of this box; use network: host"
        )
    if own.network == "bridge" and not own.image and isinstance(spec.launch, Command) and own.port is None:
        found["container.network"] = (
            "publishes the port, so the command has to listen on 0.0.0.0, not 127.0.0.1"
        )
    if own.image and spec.user is not None and not spec.user.isdigit():
        found["user"] = "looks that name up in the image, not on this box"
    return found


def docker_shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    """Pure."""
    found = dict(shortfalls(spec))
    if spec.umask is not None:
        found["umask"] = 'starts every container with "0022"'
    return found


def _podman(context: PluginContext) -> WorkerDriver:
    from stoker_podman.driver import PodmanDriver

    return PodmanDriver(context)


def _docker(context: PluginContext) -> WorkerDriver:
    from stoker_podman.driver import DockerDriver

    return DockerDriver(context)
