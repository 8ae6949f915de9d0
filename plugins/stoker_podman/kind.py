"""What the driver asks of a container engine, where each has words of its own for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stoker.errors import WorkerError
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_podman.api import Engine, EngineError
from stoker_podman.spec import Place

OVER = "no such process"
"""In what podman says when a command ends while it is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A container of this instance. `init` is the first process in it, 0 if none runs."""

    id: str
    init: int
    labels: Mapping[str, str]


class Following(Protocol):
    """Carries the output of containers to the logs of workers."""

    def follow(self, container: str, raw: str, log: str) -> None:
        """Begin, or go on where the daemon before has left it. Raises WorkerError."""
        ...

    async def leave(self, container: str) -> None:
        """Carry the rest of a container that has ended."""
        ...

    def forget_others(self, raws: Iterable[str]) -> None:
        """Remove what containers that are gone have left."""
        ...

    def close(self) -> None:
        """Stop; the next daemon goes on."""
        ...


class Kind(Protocol):
    """One of the two engines. All but `failure` and `outputs` raise EngineError and EngineLostError."""

    name: str
    engine: Engine
    init: bool
    """Whether commands run below a small init."""

    def outputs(self, directory: Path) -> Following:
        """Who carries the outputs; what has to outlive the daemon lies in that directory."""
        ...

    async def create(self, request: StartRequest, instance: str, name: str, place: Place) -> str:
        """Make a container; its id."""
        ...

    async def listed(self, instance: str) -> list[Listed]:
        """All containers of an instance."""
        ...

    async def has(self, image: str) -> bool:
        """Whether an image is on this box."""
        ...

    async def healthcheck(self, image: str) -> Mapping[str, Any] | None:
        """What an image on this box declares as its HEALTHCHECK."""
        ...

    async def pull(self, image: str) -> str:
        """Fetch it; what the engine complains of, "" for nothing."""
        ...

    def failure(self, request: StartRequest, error: EngineError) -> WorkerError:
        """Say why a container did not come to run."""
        ...


Make = Callable[[PluginContext], Kind]


def refused(kind: str, request: StartRequest, error: EngineError) -> WorkerError:
    """What both engines say alike."""
    text = str(error)
    low = text.lower()
    if "no such image" in low or "image not known" in low:
        return WorkerError(
            f"{request.service}: the image {request.container.image} is not on this box any more; "
            f"{kind} pull {request.container.image}"
        )
    permanent = any(part in low for part in ("not found", "no such file", "permission denied", "exec format"))
    return WorkerError(f"{request.service}: {kind} refused the container: {text}", permanent=permanent)


def user_runtime_dir(context: PluginContext) -> str:
    """Where the sockets of this user's own services lie."""
    return context.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")


def of_instance(label: str, instance: str) -> Mapping[str, Any]:
    """The query for all containers with that label."""
    return {"all": "true", "filters": f'{{"label":["{label}={instance}"]}}'}
