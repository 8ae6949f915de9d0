"""The configuration in force as one file: what all layers together say, and who says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stoker.config.bentoml import MOVED
from stoker.config.explain import plain_data, source_of
from stoker.config.layers import LAUNCH_WAYS
from stoker.config.outcome import EffectiveConfig, Resolved
from stoker.config.schema import InstanceTypeSection
from stoker.config.tree import Filled, Node, Path, find, leaves
from stoker.config.validate import wants_text
from stoker.model.service import Resources


def effective_document(config: EffectiveConfig) -> dict[str, Any]:
    """`{deployments: [{name, file, config, sources, instance_types}]}`.

    `config` holds what some layer says or what follows from it, references filled, not what is built in;
    `sources` gives `{layer, source}` of each single value by its dotted path; `instance_types` are the
    file's own, resolved. Secrets are only names here.
    """
    return {"deployments": [_deployment(one) for one in config.layers]}


def type_document(resources: Resources) -> dict[str, Any]:
    """What an instance type stands for: gpu, gpu_type, gpu_memory, cpu, memory (bytes)."""
    values = asdict(resources)
    return {key: values[key] for key in InstanceTypeSection.model_fields}


def _deployment(one: Resolved) -> dict[str, Any]:
    """A file of BentoML's is told in BentoML's words: it reads again as the same only so."""
    tree = one.tree if one.written is None else _once(one.written, one.tree)
    values = _values(tree, ())
    sources = {
        _dotted(path): {"layer": leaf.source.layer, "source": source_of(leaf)} for path, leaf in leaves(tree)
    }
    for path, (value, why) in _derived(one).items():
        node = find(one.tree, path)
        if node is None or node.value is None:
            _set(values, path, int(value) if isinstance(value, float) and value.is_integer() else value)
            layer = "instance type" if why.startswith("instance type") else "derived"
            sources[_dotted(path)] = {"layer": layer, "source": why}
    _place_folders(values, tree, one, sources)
    return {
        "name": one.name,
        "file": one.file,
        "config": {"name": one.name, **{key: values[key] for key in values if key not in _READ_ALREADY}},
        "sources": {path: said for path, said in sources.items() if not _read_already(path)},
        "instance_types": {name: type_document(resources) for name, resources in one.types.items()},
    }


def _derived(one: Resolved) -> Mapping[Path, tuple[Any, str]]:
    """What follows from other values; of a file of BentoML's only what it could say itself."""
    if one.written is None:
        return one.derived
    if find(one.tree, ("bento",)) is None:
        return {}
    return {path: said for path, said in one.derived.items() if said[1].startswith("instance type")}


_READ_ALREADY = frozenset({"include", "env_file"})
"""What these files say stands in the values."""


def _read_already(path: str) -> bool:
    keys = path.split(".")
    return keys[0] in _READ_ALREADY or (keys[0] == "services" and "env_file" in keys[2:3])


def _once(written: Node, tree: Node) -> Node:
    """BentoML's words, but of a thing that two layers say in both ways only what holds."""
    services = find(written, ("services",))
    if services is None or not services.mapping:
        return written
    bodies: dict[str, Node] = {}
    for name, body in services.mapping.items():
        bodies[name] = body
        envs = find(tree, ("services", name, "envs"))
        if envs is not None:  # those of `config_overrides` are among them, below the service's own
            whole = {**_without(body, ("config_overrides", "envs")).mapping, "envs": envs}
            bodies[name] = body._replace(value=whole)
        for moved, place in MOVED.items():
            theirs, ours = find(body, moved), find(body, place)
            if theirs is not None and theirs.value is not None and ours is not None:
                holds = find(tree, ("services", name, *place))
                loser = place if holds is not None and _same_place(holds, theirs) else moved
                bodies[name] = _without(bodies[name], loser)
    return written._replace(value={**written.mapping, "services": services._replace(value=bodies)})


def _same_place(one: Node, other: Node) -> bool:
    return (one.source.label, one.line, one.column) == (other.source.label, other.line, other.column)


def _without(node: Node, path: Path) -> Node:
    key, deeper = path[0], path[1:]
    rest = {name: below for name, below in node.mapping.items() if name != key or deeper}
    if deeper and key in rest:
        rest[key] = _without(rest[key], deeper)
    return node._replace(value=rest)


def _place_folders(
    values: dict[str, Any], tree: Node, one: Resolved, sources: dict[str, dict[str, str]]
) -> None:
    """A directory is relative to the file that says it, so that here it must be absolute."""
    services = values.get("services")
    for name, body in services.items() if isinstance(services, dict) else ():
        own = isinstance(body, dict) and (one.written is None or LAUNCH_WAYS & body.keys())
        if isinstance(body, dict):
            body.pop("env_file", None)
        if own and one.folders.get(name):
            body["working_dir"] = one.folders[name]
            path = _dotted(("services", name, "working_dir"))
            sources.setdefault(path, {"layer": "derived", "source": "the file's own folder"})


def _dotted(path: Path) -> str:
    """The path as people type it: a key with a dot in it in quotes, where the path would not be clear."""
    free = 1 if path[0] == "instance_types" else path.index("envs") + 1 if "envs" in path else len(path)
    return ".".join(f'"{key}"' if "." in key and index < free else key for index, key in enumerate(path))


def _values(node: Node, path: Path) -> dict[str, Any]:
    """A mapping's values; empty mappings stay, nulls (which say nothing) do not, but for whole services."""
    values: dict[str, Any] = {}
    for key, below in node.mapping.items():
        if isinstance(below.value, dict) or (below.value is None and path == ("services",)):
            values[key] = _values(below, (*path, key))
        elif below.value is not None:
            values[key] = _plain(below, (*path, key))
    if not values and len(path) == 2 and path[0] == "services":
        return dict.fromkeys(node.mapping)  # its keys, though they say nothing, show whose file it is
    return values


def _plain(node: Node, path: Path) -> Any:
    """A value; one filled from the environment as what it spells, unless the key wants text."""
    if isinstance(node.value, list):
        return [_plain(below, (*path, str(index))) if below.scalar else plain_data(below, path)
                for index, below in enumerate(node.value)]  # fmt: skip
    if isinstance(node.value, Filled) and wants_text(path):
        return str(node.value)
    return plain_data(node, path)


def _set(values: dict[str, Any], path: Path, value: Mapping[str, Any] | object) -> None:
    for key in path[:-1]:
        below = values.setdefault(key, {})
        if not isinstance(below, dict):  # a list of policies has no place for single values
            return
        values = below
    values[path[-1]] = value
