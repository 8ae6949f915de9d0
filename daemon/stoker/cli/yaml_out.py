"""Plain data as YAML that Stoker's own reader takes back for the same values. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stoker.config.yaml_text import resolve_scalar

Path = tuple[str, ...]
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.+-]*")
_WOULD_BE_FILLED = re.compile(r"\$(?=[${])")


class Reference(str):
    """Text in which `${VAR}` and `${VAR:-default}` are to be filled when the file is read."""

    __slots__ = ()


def yaml_lines(values: Mapping[str, Any], notes: Mapping[Path, str]) -> list[str]:
    """Lines of a block mapping; `notes` are comments behind single values, by path."""
    return list(_block(values, notes, ()))


def _block(values: Mapping[str, Any], notes: Mapping[Path, str], path: Path) -> Iterator[str]:
    indent = "  " * len(path)
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_scalar(key)}:"
            yield from _block(value, notes, here)
        else:
            note = f"  # {notes[here]}" if here in notes else ""
            yield f"{indent}{_scalar(key)}: {_flow(value)}{note}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(below) for below in value) + "]"
    if isinstance(value, str) and not isinstance(value, Reference):
        value = _WOULD_BE_FILLED.sub("$$", value)
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and isinstance(resolve_scalar(value), str):
        return value
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())
