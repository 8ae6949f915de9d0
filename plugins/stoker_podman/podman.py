"""podman, by its own API (libpod): the one it also offers in docker's words drops GPUs without saying so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stoker.errors import WorkerError
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_podman.api import Engine, EngineError
from stoker_podman.kind import Listed, of_instance, refused, user_runtime_dir
from stoker_podman.output import Outputs
from stoker_podman.spec import GPU, INIT, INSTANCE, Place, container_spec

API = "/v4.0.0/libpod"
REMEDY = "systemctl enable --now podman.socket starts it, with --user without root"
_RUNNING = frozenset({"running", "paused"})


class Podman:
    """See `stoker_podman.kind.Kind`."""

    name = "podman"

    def __init__(self, context: PluginContext) -> None:
        self.engine = Engine(_socket(context), API, name=self.name, remedy=REMEDY)
        self.init = True
        self._log = context.log

    def outputs(self, directory: Path) -> Outputs:
        return Outputs(directory)

    async def create(self, request: StartRequest, instance: str, name: str, place: Place) -> str:
        """Where podman has no init program, without one."""
        spec = container_spec(request, instance, name, place)
        try:
            return str((await self.engine.call("POST", "/containers/create", spec))["Id"])
        except EngineError as error:
            if "catatonit" not in str(error) or not self.init:
                raise
        self.init = False
        self._log(
            "podman has no init for containers (catatonit): commands run as process 1, which ignores signals "
            "that it does not handle; install catatonit"
        )
        bare = {**spec, "init": False, "labels": {**spec["labels"], INIT: "no"}}
        return str((await self.engine.call("POST", "/containers/create", bare))["Id"])

    async def listed(self, instance: str) -> list[Listed]:
        found = await self.engine.call("GET", "/containers/json", **of_instance(INSTANCE, instance))
        return [
            Listed(
                id=one["Id"],
                init=int(one["Pid"]) if one["State"] in _RUNNING else 0,
                labels=one.get("Labels") or {},
            )
            for one in found or ()
        ]

    async def has(self, image: str) -> bool:
        return await self.engine.there(f"/images/{quote(image, safe='')}/exists")

    async def healthcheck(self, image: str) -> Mapping[str, Any] | None:
        about = await self.engine.call("GET", f"/images/{quote(image, safe='')}/json")
        found: Mapping[str, Any] | None = about.get("Healthcheck") or about.get("HealthCheck")
        return found

    async def pull(self, image: str) -> str:
        said = bytearray()
        await self.engine.stream("POST", "/images/pull", said.extend, reference=image, quiet="true")
        return complaint(said)

    def failure(self, request: StartRequest, error: EngineError) -> WorkerError:
        low = str(error).lower()
        if "unresolvable cdi" in low or (GPU in low and "cdi" in low):
            words = (
                f"podman does not know its GPUs ({error}); run: nvidia-ctk cdi generate "
                "--output=/etc/cdi/nvidia.yaml --device-name-strategy=uuid"
            )
            return WorkerError(f"{request.service}: {words}", permanent=True)
        return refused(self.name, request, error)


def complaint(said: bytes | bytearray) -> str:
    """The error in what an engine tells of a pull, "" for none. Pure."""
    found = ""
    for line in said.splitlines():
        try:
            found = json.loads(line).get("error", "") or found
        except ValueError:
            continue
    return " ".join(found.split())


def _socket(context: PluginContext) -> str:
    chosen = str(context.options.get("socket", "")) or context.environ.get("CONTAINER_HOST", "")
    if chosen:
        return chosen.removeprefix("unix://")
    if os.geteuid() == 0:
        return "/run/podman/podman.sock"
    return f"{user_runtime_dir(context)}/podman/podman.sock"
