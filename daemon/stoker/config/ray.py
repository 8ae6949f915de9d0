"""Ray in the file: where the cluster is, and what a service needs of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from stoker.config.fields import Number, Text, plain
from stoker.config.section import Section
from stoker.model.service import Elsewhere, Resources


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


def ray_place(own: RayServiceSection, wanted: Resources, runtime_env: Mapping[str, Any]) -> Elsewhere:
    """Return what the service needs of the cluster."""
    env = _plain(dict(runtime_env))
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
