"""Other machines that a driver can start workers on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of a cluster, by the driver's word: all that it has, whoever uses it. `memory`: bytes.
    `custom`: what the cluster counts by names of its own."""

    address: str
    alive: bool = True
    gpus: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    accelerator: str = ""
    custom: Mapping[str, float] = field(default_factory=dict)
