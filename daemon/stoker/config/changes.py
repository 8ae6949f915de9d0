"""What differs between two configurations, in the file's own words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from stoker.config.resolve import EffectiveConfig
from stoker.model.service import Command, DesiredState, ServiceKey, ServiceSpec

_RENAMED = {
    "held": "hold",
    "slo_wait": "slo.wait",
    "scaling.policies": "scaling.policy",
    "probes.startup_timeout": "probes.startup.timeout",
}
_IDENTITY = ("deployment", "name")


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
    old, new = dict(_flat(before)), dict(_flat(after))
    return sorted({key for key in old.keys() | new.keys() if old.get(key) != new.get(key)})


def _flat(spec: ServiceSpec) -> Iterator[tuple[str, Any]]:
    yield "command" if isinstance(spec.launch, Command) else "python", spec.launch
    for name, value in spec.envs:
        yield f"envs.{name}", value
    for one in fields(spec):
        if one.name not in ("launch", "envs", *_IDENTITY):
            yield from _parts(one.name, getattr(spec, one.name))


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from _parts(f"{name}.{one.name}", getattr(value, one.name))
    else:
        yield _RENAMED.get(name, name), value
