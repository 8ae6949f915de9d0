"""The one door: a request in, the configuration in force out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stoker.config.changes import changed_keys
from stoker.config.resolve import EffectiveConfig, resolve
from stoker.config.sources import ConfigRequest, read, watch_paths
from stoker.config.sources.certificates import certificate_files, with_certificates
from stoker.config.tree import Report, find
from stoker.errors import ConfigError, ConfigProblem
from stoker.model.service import ServiceKey

__all__ = [
    "ConfigRequest",
    "EffectiveConfig",
    "LoadError",
    "changed_keys",
    "load",
    "located",
    "resolve",
    "says",
    "watch_paths",
]


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


def load(request: ConfigRequest, *, to_run: bool = True) -> EffectiveConfig:
    """Read and check everything. Blocking: reads files, may run `python:` modules in child processes.

    `to_run` False only checks: services that cannot be launched here are good then, with a notice. Raises
    LoadError with every problem.
    """
    raw = read(request)
    try:
        effective = resolve(raw, to_run=to_run)
    except ConfigError as error:
        raise LoadError(error.problems, raw.watch) from None
    named = certificate_files(effective)
    if not named:
        return effective
    watch = tuple(dict.fromkeys((*effective.watch, *named)))
    effective, problems = with_certificates(effective)
    if problems:
        raise LoadError(problems, watch)
    return replace(effective, watch=watch)
