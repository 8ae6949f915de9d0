"""Ray in the file: where the cluster is, and what a service needs of it. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from stoker.config.fields import Number, Text, plain
from stoker.config.section import Section
from stoker.config.tree import Path, Report
from stoker.model.service import Elsewhere, Resources

if TYPE_CHECKING:
    from stoker.config.schema import ServiceSection

BACKEND = "ray"


class RayFileSection(Section):
    """The Ray cluster. It has to run already: Stoker starts none."""

    address: Annotated[
        str, Text("auto, or HOST:PORT of the head", "auto", r"auto|[A-Za-z0-9_.:\[\]-]+:\d+")
    ] = "auto"
    """auto: the cluster that this box is a node of."""
    runtime_env: dict[str, Any] = Field(default={}, examples=[{"working_dir": "."}])
    """What Ray prepares on a node before a replica starts there, in Ray's own words."""


class RayServiceSection(Section):
    """What one replica needs of the Ray cluster, beside `resources`."""

    resources: dict[str, Annotated[float, Number(example=1)]] = Field(
        default={}, examples=[{"vram_mib": 8000}]
    )
    """Amounts of the cluster's custom resources."""
    strategy: Literal["DEFAULT", "SPREAD"] = "DEFAULT"
    """SPREAD: put replicas on as many nodes as there are."""
    accelerator: Annotated[str, Text("a Ray accelerator type", "H100")] | None = None
    """Only nodes with GPUs of that type, in Ray's words; in place of `gpu_type`."""


def build_elsewhere(
    section: ServiceSection,
    backend: str,
    report: Report,
    path: Path,
    *,
    wanted: Resources,
    runtime_env: dict[str, Any],
) -> Elsewhere | None:
    """Return what the service needs of the cluster, None for one of this box."""
    own = section.ray
    if backend != BACKEND:
        if own != RayServiceSection():
            report.add((*path, "ray"), f"is for backend: {BACKEND}; this one is {backend}", key=True)
        return None
    env = _plain(runtime_env)
    return Elsewhere(
        resources=wanted,
        custom=tuple(sorted(own.resources.items())),
        strategy=own.strategy,
        accelerator=own.accelerator,
        runtime_env=json.dumps(env, sort_keys=True) if env else "",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_plain(below) for below in value]
    return plain(value)
