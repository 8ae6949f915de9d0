"""What the keys that say which GPUs a service may have mean together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stoker.config.instance_types import CATALOGUE
from stoker.config.schema import ResourcesSection
from stoker.config.tree import Path, Report

_UUID = len("GPU-00000000-0000-0000-0000-000000000000")
"""Characters of a whole UUID of a device, at the least."""
_MODELS = frozenset(kind.gpu_type.split(".")[0] for kind in CATALOGUE.values() if kind.gpu_type)
_FAMILIES = re.compile(r"(gtx|rtx|rtxa|rtxpro)\d{3,4}[a-z]*|titan[a-z]*|mig|any")
"""Of these there are more than are listed."""


def check_wish(
    own: ResourcesSection,
    values: Mapping[str, Any],
    path: Path,
    report: Report,
    *,
    elsewhere: bool,
    lenient: bool,
) -> Iterator[str]:
    """Reports what contradicts itself; yields what may be meant and most likely is not, with its place.

    `values`: those of the instance type with the service's own over them. `elsewhere`: the GPUs are not of
    this box. `lenient`: a model without a number is no fault (a bento's decorator may say the number).
    """
    where = (*path, "resources")
    if "gpu" not in values:
        yield from _needs_gpu(own, where, report, lenient=lenient)
    elif values["gpu"] and own.devices:
        _enough_devices(own, values["gpu"], where, report)
    kind = values.get("gpu_type")
    if own.or_better and not kind:
        message = "there is no gpu_type to be better than: any GPU is taken; name one, or leave this out"
        report.add((*where, "or_better"), message, key=True)
    if not kind or elsewhere:
        return
    model = kind.lower().removeprefix("gpu.").split(".")[0]
    if model not in _MODELS and not _FAMILIES.fullmatch(model):
        hint = report.hint(model, _MODELS) or "; `stoker instance-types` lists those that are."
        message = f"{kind} is no GPU type that is known{hint} Replicas wait for one of that name"
        yield report.note((*where, "gpu_type"), message)
    if own.or_better and model not in _MODELS:
        message = f"has no effect: how strong a GPU of type {kind} is, is not known"
        yield report.note((*where, "or_better"), message, key=True)


def _enough_devices(own: ResourcesSection, gpu: float, where: Path, report: Report) -> None:
    """Devices that are named one by one must be enough. The beginning of a UUID may mean several."""
    left = [name for name in own.devices if name not in own.exclude]
    if len(left) < gpu and all(name.isdecimal() or len(name) >= _UUID for name in left):
        count = f"{len(left)} " + ("is" if len(left) == 1 else "are")
        why = " and not excluded" if len(left) < len(own.devices) else ""
        report.add((*where, "devices"), f"{count} named{why}, but gpu: {gpu:g} is asked for")


def _needs_gpu(own: ResourcesSection, where: Path, report: Report, *, lenient: bool) -> Iterator[str]:
    """A model without a number."""
    for key in ("gpu_type", "gpu_memory", "devices"):
        if not getattr(own, key):
            continue
        if lenient:
            yield f"{'.'.join((*where, key))} has no effect until a number of GPUs is said; add gpu: 1"
        else:
            message = "says nothing of how many; add gpu: 1, or a share such as gpu: 0.25"
            report.add((*where, key), message, key=True)
