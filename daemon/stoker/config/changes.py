"""What differs between two configurations, in the file's own words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from stoker.config.outcome import EffectiveConfig
from stoker.model.service import BentoService, Command, DesiredState, ServiceKey, ServiceSpec

_RENAMED = {
    "held": "hold",
    "slo_wait": "slo.wait",
    "scaling.policies": "scaling.policy",
    "probes.startup_timeout": "probes.startup.timeout",
}


def changed_keys(
    before: EffectiveConfig | DesiredState, after: EffectiveConfig | DesiredState
) -> Mapping[ServiceKey, list[str]]:
    """Dotted keys (below the service) whose value differs, for each service of both that changed."""
    old, new = _services(before), _services(after)
    changed = {key: _differing(old[key], new[key]) for key in old.keys() & new.keys() if old[key] != new[key]}
    return {key: changed[key] for key in sorted(changed)}


def _services(config: EffectiveConfig | DesiredState) -> Mapping[ServiceKey, ServiceSpec]:
    return (config.desired if isinstance(config, EffectiveConfig) else config).services


def _differing(before: ServiceSpec, after: ServiceSpec) -> list[str]:
    keys = _launch_keys(before, after)
    old_envs, new_envs = dict(before.envs), dict(after.envs)
    names = old_envs.keys() | new_envs.keys()
    keys |= {f"envs.{name}" for name in names if old_envs.get(name) != new_envs.get(name)}
    for one in fields(before):
        if one.name == "secret_versions":
            moved = set(before.secret_versions) ^ set(after.secret_versions)
            keys |= {f"secrets.{secret}" for secret, _ in moved}
        elif one.name not in ("launch", "envs"):
            keys.update(_compared(one.name, getattr(before, one.name), getattr(after, one.name)))
    return sorted(keys)


def _launch_keys(before: ServiceSpec, after: ServiceSpec) -> set[str]:
    old, new = before.launch, after.launch
    if isinstance(old, BentoService) and isinstance(new, BentoService) and old != new:
        moved = {"bento"} if old.bento != new.bento else set()
        moved |= {"interpreter"} if old.python != new.python else set()
        moved |= {"bento"} if old.calls != new.calls else set()
        return moved | set(_entries("config_overrides", json.loads(old.config), json.loads(new.config)))
    words = {Command: "command", BentoService: "bento"}
    return {words.get(type(one), "python") for one in (old, new) if old != new}


def _entries(name: str, before: Any, after: Any) -> Iterator[str]:
    """The names of single entries of mappings that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _entries(f"{name}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield name


def _compared(name: str, before: Any, after: Any) -> Iterator[str]:
    """The names of single values that differ; a section that came or went is one."""
    if before == after:
        return
    if is_dataclass(before) and is_dataclass(after):
        for one in fields(before):
            yield from _compared(f"{name}.{one.name}", getattr(before, one.name), getattr(after, one.name))
    else:
        yield _RENAMED.get(name, name)
