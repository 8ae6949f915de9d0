"""What came of loading: the configuration that was found good, or why none was. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stoker.config.layers import Layer
from stoker.config.tree import Node, Path, Report, find
from stoker.errors import ConfigError, ConfigProblem
from stoker.model.service import DesiredState, Resources, ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """One deployment as it came out. `tree` is the merged one, references filled; `derived` holds values
    that no layer wrote: path -> (value, why)."""

    name: str
    file: str
    layers: tuple[Layer, ...]
    tree: Node
    derived: Mapping[Path, tuple[Any, str]] = field(default_factory=dict)
    types: Mapping[str, Resources] = field(default_factory=dict)
    """The file's own instance types."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """The working directory of each service, absolute."""
    written: Node | None = None
    """The merged tree in BentoML's words, where the file has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveConfig:
    """A configuration that was found good. `watch`: absolute paths at or below which a change concerns it,
    existing or not. `idle_overrides`: live overrides of services that are not there."""

    desired: DesiredState
    watch: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    layers: tuple[Resolved, ...] = ()
    idle_overrides: tuple[str, ...] = ()


class LoadError(ConfigError):
    """The configuration was refused. `watch`: paths whose change may mend it."""

    def __init__(self, problems: Sequence[ConfigProblem], watch: tuple[str, ...]) -> None:
        self.watch = watch
        super().__init__(*problems)


def located(config: EffectiveConfig, key: ServiceKey, path: Sequence[str], message: str) -> ConfigProblem:
    """A problem that shows only beside the running system, with the place of that key of the service."""
    deployment, _, name = key.partition("/")
    report = Report(next(one.tree for one in config.layers if one.name == deployment))
    report.add(("services", name, *path), message)
    return report.problems[0]


def says(config: EffectiveConfig, key: ServiceKey, path: Sequence[str]) -> bool:
    """Whether some layer says that key of the service, so that it is not the built-in default."""
    deployment, _, name = key.partition("/")
    tree = next(one.tree for one in config.layers if one.name == deployment)
    return find(tree, ("services", name, *path)) is not None
