"""Which types of GPU are what a service asked for, and which are better. Pure."""

from __future__ import annotations

from functools import lru_cache

from stoker.model.device import memory_class
from stoker.model.service import Resources

_MODELS = {
    "k80": (3.7, 12), "p4": (6.1, 8), "p100": (6.0, 12),
    "v100": (7.0, 16), "t4": (7.5, 16), "a100": (8.0, 40), "a30": (8.0, 24), "a10": (8.6, 24),
    "a10g": (8.6, 24), "a40": (8.6, 48), "l4": (8.9, 24), "l40": (8.9, 48), "l40s": (8.9, 48),
    "rtx4090": (8.9, 24), "rtx6000ada": (8.9, 48), "h100": (9.0, 80), "h200": (9.0, 141),
    "b200": (10.0, 192), "gb200": (10.0, 192), "b300": (10.3, 288), "rtx5090": (12.0, 32),
    "rtxpro6000blackwell": (12.0, 96),
}  # fmt: skip
"""Compute capability, and the smallest memory in GiB under which it is sold."""


def type_matches(wanted: str | None, type_key: str) -> bool:
    """Whether a device of that type is what was asked for: `h100` and `gpu.h100` match `gpu.h100.80g` and
    `gpu.h100.94g.nvl`, `h100.nvl` only the latter; None and `any` match every type. Pure."""
    asked = (wanted or "any").lower().removeprefix("gpu.").split(".")
    if asked == ["any"]:
        return True
    have = iter(type_key.lower().removeprefix("gpu.").split("."))
    return asked[0] == next(have) and all(part in have for part in asked[1:])


def fitness(need: Resources, type_key: str, memory: int) -> int | None:
    """0 if a device of that type is what was asked for; its memory class in GiB if it is better and may be
    taken for it (`or_better`), so that the smallest of these comes first; None if it is neither. Pure.

    Better is what runs all that the type asked for runs: no lower compute capability, no less memory.
    """
    return _fitness(need.gpu_type, type_key, memory, or_better=need.or_better)


@lru_cache(maxsize=1024)
def _fitness(wanted: str | None, type_key: str, memory: int, *, or_better: bool) -> int | None:
    if type_matches(wanted, type_key):
        return 0
    if not or_better or wanted is None:
        return None
    asked = _strength(wanted, None)
    have = _strength(type_key, memory)
    if asked is None or have is None or have[0] < asked[0] or have[1] < asked[1]:
        return None
    return have[1]


def _strength(type_key: str, memory: int | None) -> tuple[float, int] | None:
    """Compute capability and GiB of a type; of one that is asked for the size in its name counts."""
    parts = type_key.lower().removeprefix("gpu.").split(".")
    known = _MODELS.get(parts[0])
    if known is None or "mig" in parts:
        return None
    if memory is not None:
        return known[0], memory_class(memory) or memory // 2**30
    sizes = [int(part[:-1]) for part in parts[1:] if part.endswith("g") and part[:-1].isdecimal()]
    return known[0], max(sizes, default=known[1])
