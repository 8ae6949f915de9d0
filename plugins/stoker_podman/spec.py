"""From a start request to the specification of a container, as libpod's API wants it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stoker.plugin.ports import StartRequest
from stoker_podman.health import NONE

INSTANCE, MARK, LOG, RAW, INIT = "stoker.instance", "stoker.id", "stoker.log", "stoker.raw", "stoker.init"
CHECK = "stoker.check"
"""Labels by which a container is found again."""
GPU = "nvidia.com/gpu"
PERIOD = 100_000
"""Microseconds over which a share of the cores is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a container lives on this box. `rootfs` "" for an image; `mounts` are libpod's own."""

    rootfs: str = ""
    mounts: Sequence[Mapping[str, Any]] = ()
    raw: str = ""
    """The file that the engine writes the output to."""
    user: str = ""
    groups: Sequence[str] = ()
    cpus: str = ""
    nproc: int | None = None
    check: str = ""
    """The image's own check, as it stands in the label."""


def container_name(instance: str, replica: str, serial: int) -> str:
    """The name of a worker's container: no two starts share one."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"stoker-{instance}-{replica}-{serial:x}")


def container_spec(request: StartRequest, instance: str, name: str, place: Place) -> dict[str, Any]:
    """All of the container. Its environment is the request's and, below it, that of its image."""
    container = request.container
    spec: dict[str, Any] = {
        "name": name,
        "command": list(request.argv),
        "env": environment(request),
        "unsetenv": ["container", "TERM"],
        "unsetenv_all": not container.image,
        "httpproxy": False,
        "labels": labels(request, instance, place),
        "log_configuration": {"driver": "k8s-file", "path": place.raw},
        "init": True,
        "systemd": "false",
        "stdin": False,
        "restart_policy": "no",
        "umask": f"{0o022 if request.umask is None else request.umask:04o}",
        "mounts": [*place.mounts, *map(mount, container.mounts)],
        "resource_limits": _resources(request, place.cpus),
        "netns": {"nsmode": container.network},
    }
    if container.network == "bridge":
        port = int(request.endpoint.rpartition(":")[2])
        inside = container.port or port
        spec["portmappings"] = [{"host_ip": "127.0.0.1", "host_port": port, "container_port": inside}]
    if container.image:
        spec["image"] = container.image
        spec["healthconfig"] = NONE
    else:
        spec["rootfs"] = place.rootfs
    if request.working_dir:
        spec["work_dir"] = request.working_dir
    if place.user:
        spec["user"] = place.user
    if place.groups:
        spec["groups"] = list(place.groups)
    if request.limits.nofile is not None:
        spec["r_limits"] = [_rlimit("nofile", request.limits.nofile)]
        # podman's own defaults hold only where no limit is given at all.
        spec["r_limits"] += [_rlimit("nproc", place.nproc)] if place.nproc is not None else []
    if request.reservations:
        spec["devices"] = [{"path": f"{GPU}={given.uuid}"} for given in request.reservations]
    return spec


def labels(request: StartRequest, instance: str, place: Place) -> dict[str, str]:
    """What a container has to say to the next daemon."""
    own = {CHECK: place.check} if place.check else {}
    return {INSTANCE: instance, MARK: request.mark, LOG: request.log_path, RAW: place.raw, **own}


def environment(request: StartRequest) -> dict[str, str]:
    """As declared; but temporary files lie in the container's own /tmp."""
    environ = dict(request.environ)
    if request.tmp_dir and environ.get("TMPDIR") == request.tmp_dir:
        environ["TMPDIR"] = "/tmp"
    return environ


def mount(text: str) -> dict[str, Any]:
    """SOURCE:TARGET[:ro] as libpod has it."""
    source, target, *mode = text.split(":")
    return bind(source, target, mode[0] if mode else "rw")


def bind(source: str, target: str, mode: str) -> dict[str, Any]:
    """A directory or file of the box, seen in the container."""
    return {"type": "bind", "source": source, "destination": target, "options": ["rbind", mode]}


def _rlimit(name: str, value: int) -> dict[str, Any]:
    return {"type": name, "hard": value, "soft": value}


def _resources(request: StartRequest, cpus: str) -> dict[str, Any]:
    limits, found = request.limits, dict[str, Any]()
    found["pids"] = {"limit": limits.pids if limits.pids is not None else -1}
    if limits.memory is not None:
        found["memory"] = {"limit": limits.memory, "swap": limits.memory}
    if limits.cpu is not None:
        found["cpu"] = {"quota": max(1000, round(limits.cpu * PERIOD)), "period": PERIOD}
    if cpus:
        found["cpu"] = {**found.get("cpu", {}), "cpus": cpus}
    return found
