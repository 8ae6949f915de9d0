"""Why a value of the configuration is what it is: every layer's word on one path. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from stoker.config.assign import split_deployment, split_path
from stoker.config.bentoml import MOVED
from stoker.config.instance_types import CATALOGUE
from stoker.config.layers import Layer
from stoker.config.outcome import EffectiveConfig, Resolved
from stoker.config.schema import FileSection, InstanceTypeSection
from stoker.config.tree import Filled, Node, Path, find, leaves, nearest, place
from stoker.config.validate import fields_at, known_path, section_at
from stoker.config.yaml_text import resolve_scalar
from stoker.errors import NotFoundError

_BOTTOM = "built-in default"
ASIDE = "means nothing on a box of one's own and has no effect"


def explain(config: EffectiveConfig, path: str) -> Mapping[str, Any]:
    """Return `{path, value, layers: [{layer, source, value, wins}]}`, the highest layer first.

    `path` is dotted; `deployment/` in front says which one, if several have it. A mapping's value is what
    all layers together make of it. A key of BentoML's whose meaning stands elsewhere is answered from there,
    with the path that was asked for as `asked`. Raises NotFoundError naming the nearest path.
    """
    wanted, rest = split_deployment(path)
    try:
        keys = split_path(rest)
    except ValueError as error:
        raise NotFoundError(str(error)) from None
    one = _deployment(config, wanted, keys, path)
    moved = _moved(one, keys)
    if moved is not None:
        return {**_answer(one, moved, ".".join(moved)), "asked": path}
    aside = find(one.written, keys)
    if aside is not None and aside.value is not None and find(one.tree, keys) is None:
        row = {"layer": _first_source(aside).source.layer, "source": source_of(aside)}
        value = plain_data(aside, keys)
        return {
            "path": path,
            "value": value,
            "layers": [{**row, "value": value, "wins": True}],
            "note": ASIDE,
        }
    _check_known(one, keys, path)
    return _answer(one, keys, path)


def _answer(one: Resolved, keys: Path, path: str) -> dict[str, Any]:
    rows = [row for layer in reversed(one.layers) for row in _rows(one, layer, keys)]
    rows += _derived_rows(one, keys)
    rows += _default_rows(one, keys)
    return {"path": path, "value": _value(one, keys, rows), "layers": rows}


def _deployment(config: EffectiveConfig, wanted: str | None, keys: Path, path: str) -> Resolved:
    """The deployment a path is about."""
    by_name = {one.name: one for one in config.layers}
    if wanted is not None:
        if wanted not in by_name:
            raise NotFoundError(_missing("deployment", wanted, list(by_name)))
        return by_name[wanted]
    having = [one for one in config.layers if find(one.tree, keys[:2]) or find(one.written, keys[:2])]
    if len(having) == 1 or len(config.layers) == 1:
        return (having or list(config.layers))[0]
    if having:
        names = ", ".join(f"{one.name}/{path}" for one in having)
        raise NotFoundError(f"several deployments have {path}; say which: {names}")
    services = [name for one in config.layers for name in _services(one)]
    if keys[0] == "services" and len(keys) > 1:
        raise NotFoundError(_missing("service", keys[1], services))
    names = ", ".join(f"{name}/{path}" for name in by_name)
    raise NotFoundError(f"say which deployment: {names}" if names else "no deployment is loaded")


def _moved(one: Resolved, keys: Path) -> Path | None:
    """Where what a key of a BentoML file says stands; None for any other key."""
    if one.written is None or len(keys) < 3 or keys[0] != "services":
        return None
    if keys[2:4] == ("config_overrides", "envs"):
        return (*keys[:2], *keys[3:])
    place = MOVED.get(keys[2:])
    return (*keys[:2], *place) if place is not None else None


def _check_known(one: Resolved, keys: Path, path: str) -> None:
    """Raise NotFoundError unless the path is in the file or could be."""
    if find(one.tree, keys) is not None or keys in one.derived:
        return
    if keys[0] == "services" and len(keys) > 1 and keys[1] not in _services(one):
        raise NotFoundError(_missing("service", keys[1], _services(one)))
    if known_path(keys) and not (_open_ended(keys) and keys[-1] not in CATALOGUE):
        return
    for length in range(len(keys)):
        names = [*(fields_at(FileSection, keys[:length]) or ()), *_written(one, keys[:length])]
        if keys[length] not in names:
            close = nearest(keys[length], names)
            hint = f"; did you mean {'.'.join((*keys[:length], close))}?" if close else ""
            raise NotFoundError(f"there is no config path {path}{hint}")
    raise NotFoundError(f"there is no config path {path}")


def _open_ended(keys: Path) -> bool:
    """Whether the last key is a name that somebody chose: a variable, an instance type."""
    return len(keys) > 1 and keys[-2] in ("envs", "instance_types")


def _written(one: Resolved, keys: Path) -> Sequence[str]:
    node = find(one.tree, keys)
    return list(node.mapping) if node is not None else []


def _services(one: Resolved) -> list[str]:
    return list(_written(one, ("services",)))


def _missing(kind: str, name: str, names: Sequence[str]) -> str:
    close = nearest(name, names)
    hint = f"did you mean {close}?" if close else f"there are {', '.join(names) or 'none'}"
    return f"there is no {kind} {name}; {hint}"


def _rows(one: Resolved, layer: Layer, keys: Path) -> list[dict[str, Any]]:
    """What one layer says: at most one row, two for a variable given for all and for the service."""
    nodes = [find(layer.tree, keys)]
    if keys[0] == "services" and len(keys) > 2 and keys[2] == "envs":
        nodes.append(find(layer.tree, keys[2:]))
    winners = {_identity(node) for _, node in _leaves(find(one.tree, keys))}
    return [
        {
            "layer": _first_source(node).source.layer,
            "source": source_of(node),
            "value": plain_data(node, keys),
            "wins": any(_identity(leaf) in winners for _, leaf in leaves(node)),
        }
        for node in nodes
        if node is not None
    ]


def _leaves(node: Node | None) -> list[tuple[Path, Node]]:
    return list(leaves(node)) if node is not None else []


def _identity(node: Node) -> tuple[str, int, int]:
    return node.source.label, node.line, node.column


def _first_source(node: Node) -> Node:
    return next((leaf for _, leaf in leaves(node)), node)


def source_of(node: Node) -> str:
    """`file:line:column`; the variables or commands where a mapping came in pieces."""
    if node.line:
        return place(node.source, node.key_line or node.line, node.key_column or node.column)
    return ", ".join(dict.fromkeys(leaf.source.label for _, leaf in leaves(node))) or node.source.label


def _derived_rows(one: Resolved, keys: Path) -> list[dict[str, Any]]:
    """What follows from other keys: one row per reason."""
    reasons: dict[str, dict[Path, Any]] = {}
    for path, (value, why) in one.derived.items():
        if path[: len(keys)] == keys:
            reasons.setdefault(why, {})[path[len(keys) :]] = value
    rows = []
    for why, values in reasons.items():
        whole: Any = values.get((), {})
        for path, value in values.items():
            whole = _with(whole, path, value) if path else value
        wins = any(find(one.tree, (*keys, *path)) is None for path in values)
        layer = "instance type" if why.startswith("instance type") else "derived"
        rows.append({"layer": layer, "source": why, "value": whole, "wins": wins})
    return rows


def _default_rows(one: Resolved, keys: Path) -> list[dict[str, Any]]:
    value = _default(keys)
    above = {keys} if not isinstance(value, dict) else {(*keys, *path) for path in _paths(value)}
    wins = any(_unset(one, path) for path in above)
    return [{"layer": _BOTTOM, "source": _BOTTOM, "value": value, "wins": wins}]


def _unset(one: Resolved, path: Path) -> bool:
    """Whether nothing above the built-in default says anything of a single value."""
    node = find(one.tree, path)
    return (node is None or node.value is None) and path not in one.derived


def _paths(values: Mapping[str, Any]) -> list[Path]:
    """The paths of all single values."""
    found: list[Path] = []
    for key, value in values.items():
        found += [(key, *path) for path in _paths(value)] if isinstance(value, dict) else [(key,)]
    return found


def _default(keys: Path) -> Any:
    """The value where no layer says anything."""
    if keys[0] == "instance_types" and len(keys) > 1:
        kind = CATALOGUE.get(keys[1])
        values = {name: getattr(kind, name) for name in InstanceTypeSection.model_fields} if kind else {}
        present = {name: value for name, value in values.items() if value}
        return present.get(keys[2]) if len(keys) > 2 else present or None
    parent = section_at(FileSection, keys[:-1])
    field = parent.model_fields.get(keys[-1]) if parent is not None else None
    if field is not None:
        return _plain_default(field.get_default())
    section = section_at(FileSection, keys)
    return _plain_default(section()) if section is not None else None


def _plain_default(value: Any) -> Any:
    """Sections as mappings without what is not set, whole numbers without a point."""
    if isinstance(value, BaseModel):
        return _plain_default(value.model_dump(exclude_none=True))
    if isinstance(value, dict):
        return {key: _plain_default(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_default(below) for below in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _value(one: Resolved, keys: Path, rows: Sequence[Mapping[str, Any]]) -> Any:
    """What holds: the merged tree over derived values over the default."""
    node = find(one.tree, keys)
    under = rows[-1]["value"]
    if isinstance(under, dict):
        whole = dict(under)
        for path, (value, _) in one.derived.items():
            if path[: len(keys)] == keys:
                whole = _with(whole, path[len(keys) :], value)
        for path, leaf in _leaves(node):
            whole = _with(whole, path, plain_data(leaf, (*keys, *path)))
        return whole
    if node is not None and node.value is not None:
        return plain_data(node, keys)
    return one.derived[keys][0] if keys in one.derived else under


def _with(values: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    if not path:
        return dict(values)
    below = values.get(path[0])
    deeper = _with(below if isinstance(below, dict) else {}, path[1:], value) if path[1:] else value
    return {**values, path[0]: deeper}


def plain_data(node: Node, keys: Path) -> Any:
    """The node's data; text filled from the environment reads as what it spells, but for variables."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain_data(below, (*keys, key)) for key, below in value.items()}
    if isinstance(value, list):
        return [plain_data(below, keys) for below in value]
    return resolve_scalar(str(value)) if isinstance(value, Filled) and "envs" not in keys else value
