"""From documents and the operator's word to the layers of each deployment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stoker.config.assign import (
    Assignment,
    from_override,
    from_set,
    from_variables,
    known_services,
    to_tree,
)
from stoker.config.layers import Layer, make_layer
from stoker.config.tree import LayerName, Node, Source, nearest
from stoker.errors import ConfigProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What was read of the project that a deployment names. `calls`: by service, the services it calls.
    `absent` says what this box lacks for it to be read."""

    target: str
    python: str = ""
    calls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One main file and every layer on it, lowest first. `stem` is its name if it does not give one."""

    stem: str
    source: Source
    layers: tuple[Layer, ...]
    project: Project | None = None

    @property
    def name(self) -> str:
        """Its name by the main file and what lies on it."""
        given = [layer.tree.mapping["name"].value for layer in self.layers if "name" in layer.tree.mapping]
        names = [name for name in given if isinstance(name, str) and name]
        return names[-1] if names else self.stem

    @property
    def services(self) -> dict[str, None]:
        """Names of all services in any layer, in order."""
        return {name: None for layer in self.layers for name in layer.services}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLayers:
    """All that was read. `environ` is the operator's environment; `idle_overrides` are paths of live
    overrides whose service no longer exists. Problems do not stop the reading."""

    deployments: tuple[Deployment, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    idle_overrides: tuple[str, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What the operator says beside the files."""

    environ: Mapping[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)


def add_drop_ins(
    deployments: Sequence[Deployment], drop_ins: Sequence[Node], folders: Mapping[str, str], *, complete: bool
) -> tuple[list[Deployment], list[ConfigProblem], list[str]]:
    """Lay drop-ins (in order) on the deployments whose main file stands beside their `conf.d`.

    `folders` gives each drop-in's folder of main files, by label. One with a `name` goes to that
    deployment; one without to all, but a service in it only to those that have this service.
    `complete` False: a main file could not be read, so a service that seems to be missing is no fault.
    """
    problems: list[ConfigProblem] = []
    notices: list[str] = []
    result = list(deployments)
    for tree in drop_ins:
        layer, faults = make_layer(tree)
        problems += faults
        label = tree.source.label
        beside = [i for i, one in enumerate(result) if one.source.folder == folders[label]]
        name = layer.tree.mapping.get("name")
        if name is None:
            homeless = _spread(layer, result, beside, alone=complete and len(beside) == 1)
            problems += homeless if complete else []
            continue
        chosen = [i for i in beside if result[i].name == name.value]
        if not chosen:
            close = nearest(str(name.value), [result[i].name for i in beside])
            hint = f"; did you mean {close}?" if close else ""
            notices.append(f"{label} is for deployment {name.value}, which is not loaded{hint}")
        for index in chosen:
            result[index] = replace(result[index], layers=(*result[index].layers, layer))
    return result, problems, notices


def add_operator(
    deployments: Sequence[Deployment], operator: Operator, *, complete: bool
) -> tuple[list[Deployment], list[ConfigProblem], list[str]]:
    """Lay environment, `--set` and live overrides on the deployments. Also returns idle overrides.

    `complete` False: a file could not be read, so a service that seems to be missing is no fault.
    """
    services = {one.name: one.services for one in deployments}
    result = list(deployments)
    problems: list[ConfigProblem] = []
    idle: list[str] = []
    for layer_name, assignments, faults in _operator_layers(operator, list(services.values())):
        problems += faults
        per_deployment: dict[str, list[Assignment]] = {name: [] for name in services}
        for assignment in assignments:
            ends = {assignment.path[0], assignment.path[-1]}
            if ends & {"include", "env_file"} and "envs" not in assignment.path:
                problems.append(assignment.problem(f"`{assignment.path[-1]}` stands in files only"))
                continue
            names, fault = known_services(assignment, services)
            if fault and layer_name == "override":
                idle.append(assignment.value.source.label.removeprefix("override "))
            elif fault and complete:
                problems.append(assignment.problem(fault))
            for name in names:
                per_deployment[name].append(assignment)
        for index, one in enumerate(result):
            if per_deployment[one.name]:
                layer, bad_form = make_layer(to_tree(per_deployment[one.name], layer_name))
                problems += bad_form
                result[index] = replace(one, layers=(*one.layers, layer))
    return result, problems, idle


def _operator_layers(
    operator: Operator, services: Sequence[Mapping[str, None]]
) -> list[tuple[LayerName, list[Assignment], list[ConfigProblem]]]:
    sets = [from_set(text) for text in operator.sets]
    overrides = [from_override(path, value) for path, value in operator.overrides.items()]
    return [
        ("environment", *from_variables(operator.environ, services)),
        ("set", *_flat(sets)),
        ("override", *_flat(overrides)),
    ]


def _flat(
    pairs: Sequence[tuple[list[Assignment], list[ConfigProblem]]],
) -> tuple[list[Assignment], list[ConfigProblem]]:
    return [one for found, _ in pairs for one in found], [fault for _, faults in pairs for fault in faults]


def _spread(
    layer: Layer, deployments: list[Deployment], beside: Sequence[int], *, alone: bool
) -> list[ConfigProblem]:
    """Lay a drop-in without a name on its deployments: as it is on one that is alone."""
    if alone:
        one = deployments[beside[0]]
        deployments[beside[0]] = replace(one, layers=(*one.layers, layer))
        return []
    homeless = dict(layer.services)
    for index in beside:
        one = deployments[index]
        mine = {name: node for name, node in layer.services.items() if name in one.services}
        whole = dict(layer.tree.mapping)
        if layer.services:
            whole["services"] = whole["services"]._replace(value=mine)
        deployments[index] = replace(one, layers=(*one.layers, Layer(layer.tree._replace(value=whole))))
        homeless = {name: node for name, node in homeless.items() if name not in mine}
    message = "no deployment has this service; add `name:` with the deployment it is for"
    return [
        ConfigProblem(message, node.source.label, node.key_line, node.key_column, f"services.{name}")
        for name, node in homeless.items()
    ]
