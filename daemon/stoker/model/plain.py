"""What was declared, as JSON has it, and back. Pure.

A value is an object with its class's name and the fields that are not at their default: a record stays small,
and one that an older version wrote, which knew fewer fields, is read all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any

from stoker.model import door, service, state

CLASS = "$"
"""The key under which the class's name stands."""


def to_plain(value: Any) -> Any:
    """The value as JSON has it. Raises TypeError for what has no such form."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping) and CLASS not in value:
        return {key: to_plain(item) for key, item in value.items()}
    kind: type[Any] = type(value)
    if kind is not _classes().get(kind.__name__):
        raise TypeError(f"{kind.__name__} is nothing that is declared")
    found: dict[str, Any] = {CLASS: kind.__name__}
    for name, default in _defaults(kind.__name__):
        said = getattr(value, name)
        if repr(said) != default:  # equal is not enough: 0 and 0.0 are two revisions
            found[name] = to_plain(said)
    return found


def from_plain(data: Any) -> Any:
    """The value that `to_plain` gave. Raises TypeError or KeyError for what it cannot have given."""
    if isinstance(data, list):
        return tuple(map(from_plain, data))
    if not isinstance(data, dict):
        return data
    values = {key: from_plain(item) for key, item in data.items() if key != CLASS}
    return _classes()[data[CLASS]](**values) if CLASS in data else values


@cache
def _classes() -> Mapping[str, type[Any]]:
    found = [one for module in (door, service, state) for one in vars(module).values()]
    return {one.__name__: one for one in found if isinstance(one, type) and is_dataclass(one)}


@cache
def _defaults(name: str) -> list[tuple[str, str]]:
    """Each field of a class and what its default looks like."""
    return [(one.name, repr(_default(one))) for one in fields(_classes()[name])]


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()
