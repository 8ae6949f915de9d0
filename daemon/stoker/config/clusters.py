"""Backends that find the place themselves, on nodes of a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stoker.config.ray import RayServiceSection, ray_place
from stoker.config.slurm import SlurmSection, options_of
from stoker.config.tree import Path, Report
from stoker.model.service import Elsewhere, Resources

if TYPE_CHECKING:
    from stoker.config.schema import ServiceSection

CLUSTERS = frozenset({"ray", "slurm"})


def build_elsewhere(
    section: ServiceSection,
    backend: str,
    report: Report,
    path: Path,
    *,
    wanted: Resources,
    runtime_env: Mapping[str, Any],
    slurm: SlurmSection,
) -> Elsewhere | None:
    """Return what the service needs of the cluster, None for one of this box. `runtime_env` and `slurm`: what
    the file says for all of its services."""
    given = {"ray": section.ray != RayServiceSection(), "slurm": section.slurm != SlurmSection()}
    for name in sorted(CLUSTERS - {backend}):
        if given[name]:
            report.add((*path, name), f"is for backend: {name}; this one is {backend}", key=True)
    if backend == "ray":
        return ray_place(section.ray, wanted, runtime_env)
    if backend == "slurm":
        return Elsewhere(resources=wanted, options=options_of(slurm, section.slurm, report, path))
    return None
