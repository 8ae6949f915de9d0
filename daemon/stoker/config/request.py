"""What is to be loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Inspection = Callable[[str, str], Sequence[str]]
"""The command that reads a project, from its name and the Python it runs in ("" is Stoker's own)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRequest:
    """What to load. `files`: main files, one deployment each, or directories of them. `profile`: reads
    `NAME.PROFILE.yaml` beside each. `sets`: PATH=VALUE. `overrides`: live ones, dotted path -> value.
    `environ`: the operator's environment. `secrets_dir` is not read: a secret is looked up when a worker
    starts, and its change concerns no layer. `inspection`: makes the command that reads a bento."""

    files: tuple[str, ...]
    profile: str | None = None
    sets: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets_dir: str | None = None
    inspection: Inspection | None = None
