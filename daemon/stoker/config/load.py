"""The one door: a request in, the configuration in force out."""

from __future__ import annotations

from dataclasses import replace

from stoker.config.changes import changed_keys
from stoker.config.outcome import EffectiveConfig, LoadError, located, says
from stoker.config.request import ConfigRequest
from stoker.config.resolve import resolve
from stoker.config.sources import read, watch_paths
from stoker.config.sources.certificates import certificate_files, with_certificates
from stoker.errors import ConfigError

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
