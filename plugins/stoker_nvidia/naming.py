"""The instance-type key of a GPU, from its name and memory. Pure."""

from __future__ import annotations

import re

from stoker.model.device import memory_class

_FORMS = ("nvl", "pcie")
"""Ways to build a model that matter to people; SXM boards do not always say that they are one."""
_NOISE = re.compile(r"nvidia|tesla|geforce|quadro|gpu|generation|edition|server|\d+gb|hbm\d*e?|sxm\d*")
_MIG = re.compile(r" MIG (\S+)$")


def type_key(name: str, memory_total: int) -> str:
    """`gpu.<model>[.<size>g][.<form>]`, or `gpu.mig.<profile>` of a MIG instance.

    "NVIDIA H100 80GB HBM3" with 79.6 GiB is `gpu.h100.80g`, "Tesla T4" `gpu.t4.16g`, "NVIDIA GeForce RTX
    4090" `gpu.rtx4090.24g`. `memory_total` in bytes; a size that is not sold is left out.
    """
    profile = _MIG.search(name)
    if profile:
        return f"gpu.mig.{profile[1].lower()}"
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and not _NOISE.fullmatch(word)]
    model = "".join(word for word in words if word not in _FORMS) or "unknown"
    size = memory_class(memory_total)
    parts = ["gpu", model, *([f"{size}g"] if size else []), *(form for form in _FORMS if form in words)]
    return ".".join(parts)
