"""The code layer of a deployment that names a project (`bento:`): what its services declare in code.

A plugin says which command reads such a project; it runs as any other of users' code does and prints one
JSON document, with `files` (what was read). Where the project was read: `services`, for each of them `values`
and `defaults` in the words of a file, `required` (names of variables without a value), `calls` (names of
services), `notes` for people, `file` and `line`. Where it was not: `error`, `where` (file and line, or null),
and whether something is `absent` from this box.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stoker.config.assemble import Deployment, Project
from stoker.config.build import OWN_TYPES
from stoker.config.interpolate import fill
from stoker.config.launch import variable_name
from stoker.config.layers import LAUNCH_WAYS, make_layer, merge_layers
from stoker.config.request import Inspection
from stoker.config.sources.child import Question, ask
from stoker.config.tree import Node, Source, find, from_data, problem_at, suggest
from stoker.errors import ConfigProblem

TIMEOUT = 60.0
"""Seconds a project may take to load: it may import whole frameworks."""

_files: dict[str, tuple[str, ...]] = {}
"""Files of the project by main file, as of the last reading."""


@dataclass(slots=True)
class Findings:
    """What the reading brought beside the layers."""

    problems: list[ConfigProblem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A project as a deployment names it. `node` is the word in the file, `tree` all layers in one."""

    deployment: Deployment
    tree: Node
    node: Node
    target: str
    question: Question
    python: str
    absent: str = ""


def add_projects(
    deployments: Sequence[Deployment], environ: Mapping[str, str], inspection: Inspection | None
) -> tuple[list[Deployment], Findings]:
    """Lay what projects declare under the deployments that name one. Blocking."""
    findings = Findings()
    if inspection is None:
        return list(deployments), findings
    named = [_named(one, environ, inspection) for one in deployments]
    answers = ask([one.question for one in named if one is not None and not one.absent])
    result = []
    for deployment, one in zip(deployments, named, strict=True):
        if one is None:
            result.append(deployment)
            continue
        answer = answers.get(one.question, {"error": one.absent, "absent": True, "files": []})
        files = [file for file in answer["files"] if os.path.isabs(file)]
        source = deployment.source
        _files[os.path.join(source.folder, os.path.basename(source.label))] = tuple(files)
        findings.files += files
        result.append(_with_answer(one, answer, findings))
    return result, findings


def project_files(mains: Iterable[str]) -> list[str]:
    """Files of the projects of these main files (absolute paths), as of the last reading."""
    return [file for main in mains for file in _files.get(main, ())]


def _named(one: Deployment, environ: Mapping[str, str], inspection: Inspection) -> _Named | None:
    """The project that a deployment names, and the question what it declares."""
    if not any("bento" in layer.tree.mapping for layer in one.layers):
        return None
    tree, _ = fill(merge_layers(one.layers), environ)
    node = tree.mapping.get("bento")
    if node is None or not isinstance(node.value, str) or not node.value:
        return None
    home, folder = environ.get("HOME", "/"), one.source.folder
    as_path = _absolute(str(node.value), folder, home)
    target = as_path if os.path.isdir(as_path) else str(node.value)
    python, absent = _interpreter(tree.mapping.get("interpreter"), folder, home)
    envs = tree.mapping.get("envs")
    texts = {key: each.value for key, each in (envs.mapping if envs is not None else {}).items()}
    question = Question(
        argv=tuple(inspection(target, python)),
        folder=folder,
        envs=tuple(sorted((key, str(text)) for key, text in texts.items() if isinstance(text, str))),
        user=_user(tree),
        timeout=TIMEOUT,
    )
    return _Named(
        deployment=one, tree=tree, node=node, target=target, question=question, python=python, absent=absent
    )


def _absolute(text: str, folder: str, home: str) -> str:
    if text == "~" or text.startswith("~/"):
        text = home + text[1:]
    return os.path.normpath(os.path.join(folder, text))


def _interpreter(node: Node | None, folder: str, home: str) -> tuple[str, str]:
    """The Python to use, and why it cannot be used."""
    if node is None or not isinstance(node.value, str) or not node.value:
        return "", ""
    path = _absolute(str(node.value), folder, home)
    if os.path.isdir(path):
        path = os.path.join(path, "bin", "python")
    return path, "" if os.access(path, os.X_OK) else f"there is no interpreter {path}"


def _user(tree: Node) -> str | None:
    """The account that the services run as, if it is one for all."""
    services = tree.mapping.get("services")
    bodies = list(services.mapping.values()) if services is not None else []
    users = {str(node.value) for body in bodies if (node := body.mapping.get("user")) and node.value}
    return users.pop() if len(users) == 1 else None


def _with_answer(one: _Named, answer: Mapping[str, Any], findings: Findings) -> Deployment:
    """The deployment with the code layer under it."""
    if "error" in answer:
        where = f" ({_shown(one, answer['where'][0])}:{answer['where'][1]})" if answer.get("where") else ""
        reason = f"{answer['error']}{where}"
        absent = reason if answer.get("absent") else ""
        if not absent:
            message = f"cannot load {one.node.value}: {reason}"
            findings.problems.append(problem_at(one.node, ("bento",), message))
        project = Project(target=one.target, python=one.python, absent=absent)
        return replace(one.deployment, project=project)
    declared: Mapping[str, Any] = answer["services"]
    findings.problems += _strangers(one, declared)
    findings.problems += _missing_variables(one, declared)
    services: dict[str, Node] = {}
    for name, service in declared.items():
        file = _shown(one, service["file"])
        source = Source("code", file, os.path.dirname(service["file"]))
        values = _without_resources(_literal(service["values"]), one.tree, name)
        tree = from_data(values, source, service["line"], 1)
        defaults = from_data(service["defaults"], Source("built-in default", "the bento's own endpoints"))
        services[name] = tree._replace(value={**defaults.mapping, **tree.mapping})
        where = f"{one.deployment.name}: services.{name} ({file}:{service['line']})"
        findings.notices += [f"{where}: {note}" for note in service["notes"]]
    source = Source("code", "")
    layer, faults = make_layer(Node({"services": Node(services, source)}, source))
    findings.problems += faults
    calls = {name: tuple(service["calls"]) for name, service in declared.items()}
    project = Project(target=one.target, python=one.python, calls=calls)
    return replace(one.deployment, layers=(layer, *one.deployment.layers), project=project)


def _without_resources(values: dict[str, Any], tree: Node, service: str) -> dict[str, Any]:
    """What is declared, without resources where the file names an instance type: that one decides, as in the
    cloud, where a decorator's resources are a hint."""
    node, own = find(tree, ("services", service, "instance_type")), find(tree, ("instance_types",))
    kind = str(node.value or "") if node is not None else ""
    overrides = values.get("config_overrides", {})
    if not (kind.startswith(OWN_TYPES) or (own is not None and kind in own.mapping)):
        return values
    return {**values, "config_overrides": {key: overrides[key] for key in overrides if key != "resources"}}


def _literal(value: Any) -> Any:
    """The data with dollars that stand for themselves: `${PORT}` in code is the worker's to fill."""
    if isinstance(value, dict):
        return {key: _literal(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_literal(below) for below in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _strangers(one: _Named, declared: Mapping[str, Any]) -> list[ConfigProblem]:
    """Services of the file that the project does not have, and that nothing else runs."""
    services = one.tree.mapping.get("services")
    problems = []
    for name, body in (services.mapping if services is not None else {}).items():
        if name in declared or any(body.mapping[way].value for way in LAUNCH_WAYS & body.mapping.keys()):
            continue
        message = f"the bento {one.node.value} has no service {name}{suggest(name, declared)}"
        problems.append(problem_at(body, ("services", name), message, key=True))
    return problems


def _missing_variables(one: _Named, declared: Mapping[str, Any]) -> list[ConfigProblem]:
    """Variables that a service needs and nobody gives it."""
    problems = []
    for name, service in declared.items():
        given = _given(one.tree, name)
        body = find(one.tree, ("services", name))
        for variable in service["required"]:
            if variable not in given:
                place = f"{_shown(one, service['file'])}:{service['line']}"
                message = (
                    f"needs the variable {variable} ({place}); add it to `envs`, `secrets` or `inherit_env`"
                )
                node = body if body is not None else one.node
                problems.append(problem_at(node, ("services", name), message, key=True))
    return problems


def _given(tree: Node, service: str) -> set[str]:
    """The variables that the file gives a service."""
    names: set[str] = set()
    for path in ((), ("services", service)):
        for below in ("envs", "config_overrides.envs"):
            envs = find(tree, (*path, *below.split(".")))
            names |= envs.mapping.keys() if envs is not None else set()
        for key in ("secrets", "inherit_env"):
            node = find(tree, (*path, key))
            listed = [str(item.value) for item in node.items] if node is not None else []
            names |= {variable_name(text) if key == "secrets" else text for text in listed}
    return names


def _shown(one: _Named, path: str) -> str:
    """A path as the main file's own is shown."""
    if os.path.isabs(one.deployment.source.label):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
