"""docker, by the API of its daemon."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stoker.errors import WorkerError
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_podman.api import Engine, EngineError
from stoker_podman.boxroot import NO_COPY
from stoker_podman.health import NONE
from stoker_podman.kind import Listed, of_instance, refused, user_runtime_dir
from stoker_podman.podman import complaint
from stoker_podman.spec import INSTANCE, PERIOD, Place, environment, labels
from stoker_podman.spec import mount as libpod_mount
from stoker_podman.tails import KEPT, Tails

REMEDY = "systemctl start docker starts it; who is not root has to be in the group docker"
BOX = "stoker-box"
"""The image of containers without one: nothing but the box's links (/bin -> usr/bin). All else is mounted."""
INITS = ("docker-init", "tini", "catatonit", "dumb-init")
"""Programs that a command of the box's own files can run below, best known first."""
_RUNNING = frozenset({"running", "paused"})


class Docker:
    """See `stoker_podman.kind.Kind`."""

    name = "docker"

    def __init__(self, context: PluginContext) -> None:
        # What is used of the API is the same in all versions from 1.40 (docker 19.03) on; docker takes a call
        # without a version as one in its own.
        self.engine = Engine(_socket(context), "", name=self.name, remedy=REMEDY)
        self.init = True
        self._log = context.log
        self._box = ""

    def outputs(self, directory: Path) -> Tails:
        return Tails(directory, self.engine)

    async def create(self, request: StartRequest, instance: str, name: str, place: Place) -> str:
        """A container without an image has the box's links as its root."""
        spec = docker_spec(request, instance, place)
        if not request.container.image:
            spec["Image"] = await self._box_image(place.rootfs)
            spec["Cmd"] = [*self._box_init(), *request.argv]
        return str((await self.engine.call("POST", "/containers/create", spec, name=name))["Id"])

    async def listed(self, instance: str) -> list[Listed]:
        found = []
        for one in await self.engine.call("GET", "/containers/json", **of_instance(INSTANCE, instance)) or ():
            init = await self._init_of(one["Id"]) if one["State"] in _RUNNING else 0
            found.append(Listed(id=one["Id"], init=init, labels=one.get("Labels") or {}))
        return found

    async def has(self, image: str) -> bool:
        return await self.engine.there(f"/images/{quote(image)}/json")

    async def healthcheck(self, image: str) -> Mapping[str, Any] | None:
        about = (await self.engine.call("GET", f"/images/{quote(image)}/json"))["Config"] or {}
        found: Mapping[str, Any] | None = about.get("Healthcheck")
        return found

    async def pull(self, image: str) -> str:
        said = bytearray()
        name, tag = name_and_tag(image)
        await self.engine.stream("POST", "/images/create", said.extend, fromImage=name, tag=tag)
        return complaint(said)

    def failure(self, request: StartRequest, error: EngineError) -> WorkerError:
        if "could not select device driver" in str(error):
            words = (
                f"docker cannot give it GPUs ({error}); install nvidia-container-toolkit and restart docker"
            )
            return WorkerError(f"{request.service}: {words}", permanent=True)
        return refused(self.name, request, error)

    async def _init_of(self, container: str) -> int:
        try:
            return int((await self.engine.call("GET", f"/containers/{container}/json"))["State"]["Pid"])
        except EngineError as error:
            if error.status == 404:
                return 0
            raise

    async def _box_image(self, root: str) -> str:
        if not self._box or not await self.has(self._box):
            said = bytearray()
            query = {"fromSrc": "-", "repo": BOX, "tag": "1"}
            await self.engine.stream("POST", "/images/create", said.extend, packed(root), **query)
            if wrong := complaint(said):
                raise EngineError(500, wrong)
            self._box = f"{BOX}:1"
        return self._box

    def _box_init(self) -> list[str]:
        """docker's own would have to be put among the box's files."""
        for program in map(shutil.which, INITS):
            if program:
                return [program, "--"]
        if self.init:
            self._log(
                f"there is no init for containers of the box's own files ({', '.join(INITS)}): commands "
                "run as process 1, which ignores signals that it does not handle; install tini"
            )
        self.init = False
        return []


def docker_spec(request: StartRequest, instance: str, place: Place) -> dict[str, Any]:
    """All of a container as docker's API wants it. Pure."""
    container = request.container
    environ = environment(request)
    if container.image and not request.reservations:
        # Where NVIDIA's runtime is docker's default, an image that asks for all GPUs would get them.
        environ.setdefault("NVIDIA_VISIBLE_DEVICES", "void")
    spec: dict[str, Any] = {
        "Image": container.image,
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "Labels": labels(request, instance, place),
        "Healthcheck": NONE,
        "HostConfig": _host(request, place),
    }
    if request.argv:
        spec["Cmd"] = list(request.argv)
    if container.network == "bridge":
        spec["ExposedPorts"] = {port: {} for port in spec["HostConfig"]["PortBindings"]}
    if request.working_dir:
        spec["WorkingDir"] = request.working_dir
    if place.user:
        spec["User"] = place.user
    return spec


def _host(request: StartRequest, place: Place) -> dict[str, Any]:
    container, limits = request.container, request.limits
    mounts = [*place.mounts, *map(libpod_mount, container.mounts)]
    found: dict[str, Any] = {
        "Init": bool(container.image),
        "NetworkMode": container.network,
        "LogConfig": {"Type": "json-file", "Config": KEPT},
        "Mounts": [_bind(one) for one in mounts if one["type"] == "bind"],
        "Tmpfs": {one["destination"]: _tmpfs(one["options"]) for one in mounts if one["type"] == "tmpfs"},
        "PidsLimit": limits.pids if limits.pids is not None else -1,
    }
    if container.network == "bridge":
        port = request.endpoint.rpartition(":")[2]
        inside = container.port or port
        found["PortBindings"] = {f"{inside}/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
        found["ExtraHosts"] = [f"host.{who}.internal:host-gateway" for who in ("containers", "docker")]
    if place.groups:
        found["GroupAdd"] = list(place.groups)
    if place.cpus:
        found["CpusetCpus"] = place.cpus
    if limits.memory is not None:
        found["Memory"] = found["MemorySwap"] = limits.memory
    if limits.cpu is not None:
        found["CpuPeriod"], found["CpuQuota"] = PERIOD, max(1000, round(limits.cpu * PERIOD))
    if limits.nofile is not None:
        found["Ulimits"] = [{"Name": "nofile", "Hard": limits.nofile, "Soft": limits.nofile}]
    if request.reservations:
        uuids = [given.uuid for given in request.reservations]
        found["DeviceRequests"] = [{"DeviceIDs": uuids, "Capabilities": [["gpu"]]}]
    return found


def _bind(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": mount["source"],
        "Target": mount["destination"],
        "ReadOnly": "ro" in mount["options"],
    }


def _tmpfs(options: list[str]) -> str:
    return ",".join(["rw", "exec", "nodev", *(one for one in options if one != NO_COPY)])


def name_and_tag(image: str) -> tuple[str, str]:
    """An image's name without its tag or digest, and that; without one docker fetches all there are. Pure."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "latest")


def packed(root: str) -> bytes:
    """A directory of links as a tar file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(root, arcname=".")
    return made.getvalue()


def _socket(context: PluginContext) -> str:
    chosen = str(context.options.get("socket", "")) or context.environ.get("DOCKER_HOST", "")
    if chosen:
        return chosen.removeprefix("unix://")
    own = f"{user_runtime_dir(context)}/docker.sock"
    return own if os.geteuid() != 0 and os.path.exists(own) else "/var/run/docker.sock"
