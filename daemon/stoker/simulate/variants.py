"""The same case with one value changed, to see what it does. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from stoker.model.service import PolicySpec, ServiceSpec
from stoker.simulate.replay import Case

BOUNDS = ("min_replicas", "max_replicas")
OTHERS = ("concurrency", "startup", "slo_wait")
OF_RULES = (
    "target", "window", "patience", "tolerance", "risk", "restart_worth", "utilization",
    "scale_up_stabilization_window", "scale_down_stabilization_window",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sweep:
    """One name and the values it is to have in turn."""

    name: str
    values: Sequence[float]

    def label(self, value: float) -> str:
        """As the table names the row."""
        return f"{self.name}={value:g}"


def parse_sweep(text: str) -> Sweep:
    """Read `target=2,4,8`. Raises ValueError that says what is wrong with it."""
    name, equals, rest = text.partition("=")
    name = name.strip()
    known = (*BOUNDS, *OTHERS, *OF_RULES)
    if not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE,VALUE, as in target=2,4,8")
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise ValueError(f"{name!r} cannot be swept; {hint}")
    return Sweep(name, [_value(name, part) for part in rest.split(",")])


def varied(case: Case, name: str, value: float) -> Case:
    """The case with that value. Raises ValueError where it makes no sense together with the others."""
    spec = case.spec
    if name == "startup":
        return replace(case, startup=value)
    if name == "slo_wait":
        return replace(case, spec=replace(spec, slo_wait=value), slo_wait=value)
    if name == "concurrency":
        return replace(case, spec=replace(spec, traffic=replace(spec.traffic, concurrency=int(value))))
    return replace(case, spec=_rescaled(spec, name, value))


def _rescaled(spec: ServiceSpec, name: str, value: float) -> ServiceSpec:
    scaling = spec.scaling
    if name == "min_replicas":
        scaling = replace(scaling, min_replicas=int(value))
    elif name == "max_replicas":
        scaling = replace(scaling, max_replicas=int(value))
    else:
        scaling = replace(scaling, policies=tuple(_ruled(rule, name, value) for rule in scaling.policies))
    if scaling.min_replicas > scaling.max_replicas:
        raise ValueError(
            f"{name}={value:g}: min_replicas {scaling.min_replicas} is more than "
            f"max_replicas {scaling.max_replicas}"
        )
    return replace(spec, scaling=scaling)


def _ruled(rule: PolicySpec, name: str, value: float) -> PolicySpec:
    if name == "target":
        return replace(rule, target=value)
    if name == "scale_up_stabilization_window":
        return replace(rule, scale_up_stabilization_window=value)
    if name == "scale_down_stabilization_window":
        return replace(rule, scale_down_stabilization_window=value)
    kept = tuple(pair for pair in rule.params if pair[0] != name)
    return replace(rule, params=(*kept, (name, value)))


def _value(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = name in (*BOUNDS, "concurrency")
    least = 1 if name in ("max_replicas", "concurrency") else 0
    if not math.isfinite(value) or value < least or (whole and value != int(value)):
        kind = f"a whole number, {least} or more" if whole else "a number, 0 or more"
        raise ValueError(f"{name} must be {kind}; found {text.strip()!r}")
    return value
