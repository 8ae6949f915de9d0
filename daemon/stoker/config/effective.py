"""The configuration in force as one file: what all layers together say, and who says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stoker.config.explain import plain_data, source_of
from stoker.config.resolve import EffectiveConfig, Resolved
from stoker.config.schema import InstanceTypeSection
from stoker.config.tree import Node, Path, find, leaves
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
    values = _values(one.tree, ())
    sources = {
        _dotted(path): {"layer": leaf.source.layer, "source": source_of(leaf)}
        for path, leaf in leaves(one.tree)
    }
    for path, (value, why) in one.derived.items():
        node = find(one.tree, path)
        if node is None or node.value is None:
            _set(values, path, value)
            layer = "instance type" if why.startswith("instance type") else "derived"
            sources[_dotted(path)] = {"layer": layer, "source": why}
    return {
        "name": one.name,
        "file": one.file,
        "config": {"name": one.name, **values},
        "sources": sources,
        "instance_types": {name: type_document(resources) for name, resources in one.types.items()},
    }


def _dotted(path: Path) -> str:
    """The path as people type it: a key with a dot in it in quotes, where the path would not be clear."""
    free = 1 if path[0] == "instance_types" else path.index("envs") + 1 if "envs" in path else len(path)
    return ".".join(f'"{key}"' if "." in key and index < free else key for index, key in enumerate(path))


def _values(node: Node, path: Path) -> dict[str, Any]:
    """A mapping's values; empty mappings stay, nulls (which say nothing) do not."""
    return {
        key: _values(below, (*path, key))
        if isinstance(below.value, dict)
        else plain_data(below, (*path, key))
        for key, below in node.mapping.items()
        if below.value is not None
    }


def _set(values: dict[str, Any], path: Path, value: Mapping[str, Any] | object) -> None:
    for key in path[:-1]:
        below = values.setdefault(key, {})
        if not isinstance(below, dict):  # a list of policies has no place for single values
            return
        values = below
    values[path[-1]] = value
