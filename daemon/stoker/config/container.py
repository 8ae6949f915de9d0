"""Containers in the file: the keys of `container`, and what they mean together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stoker.config.fields import Text, Whole
from stoker.config.section import Section
from stoker.config.tree import Path, Report
from stoker.model.service import Container

if TYPE_CHECKING:
    from stoker.config.schema import ServiceSection

ImageName = Annotated[str, Text("the name of a container image", "ghcr.io/org/model:1.2", r"\S+", 512)]
Mount = Annotated[
    str, Text("SOURCE:TARGET or SOURCE:TARGET:ro", "/models:/models:ro", r"/[^:]*:/[^:]*(:r[ow])?", 4096)
]
OF_CONTAINERS = frozenset({"docker", "podman"})
"""Backends of Stoker's own that run containers; others may be a plugin's."""
DEFAULT = "podman"
"""The backend of a service that names an image and no backend."""


class ContainerSection(Section):
    """How a container is joined to the box."""

    network: Literal["host", "bridge"] = "host"
    """host: it listens on the box itself. bridge: in a network of its own, its port is published on
    127.0.0.1."""
    port: Annotated[int, Whole(1, 65535, 8000)] | None = None
    """With bridge: the port it listens on inside, for images that do not read PORT."""
    mounts: list[Mount] = Field(default=[], examples=[["/models:/models:ro"]])
    """Directories and files of the box that it sees, by absolute paths."""
    pull: Literal["missing", "always", "never"] = "missing"
    """When the image is fetched: before the first start if it is not there, after every change of the
    configuration, or never."""


def build_container(section: ServiceSection, backend: str, report: Report, path: Path) -> Container:
    """Return what the service says of its container; complains of keys that mean nothing together."""
    own = section.container
    if section.image is not None and section.python is not None:
        message = "an image runs its own command or `command`; `python` is served by the box's Stoker"
        report.add((*path, "image"), message, key=True)
    if section.image is not None and backend in ("process", "systemd", "ray", "slurm"):
        report.add(
            (*path, "image"), f"backend {backend} runs no images; say backend: {DEFAULT} or docker", key=True
        )
    if own.port is not None and own.network != "bridge":
        message = "is for network: bridge; on the box's own network a container listens on {port} (PORT)"
        report.add((*path, "container", "port"), message, key=True)
    return Container(
        image=section.image or "",
        network=own.network,
        port=own.port,
        mounts=tuple(own.mounts),
        pull=own.pull,
    )
