"""The code layer: what `@stoker.service` declares in the modules of `python:` services."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from stoker.config.assemble import Deployment
from stoker.config.build import absolute_folder
from stoker.config.interpolate import fill
from stoker.config.layers import Layer, make_layer, merge_layers
from stoker.config.schema import PYTHON_TARGET
from stoker.config.sources.child import Question, ask
from stoker.config.tree import Node, Source, find, from_data, problem_at
from stoker.errors import ConfigProblem

TIMEOUT = 20.0
"""Seconds a module may take to load."""


class Target(NamedTuple):
    """One `python:` target and the question what it declares."""

    target: str
    question: Question


_files: dict[str, tuple[str, ...]] = {}
"""Module files by main file, as of the last reading."""


def add_code(
    deployments: Sequence[Deployment], environ: Mapping[str, str]
) -> tuple[list[Deployment], list[ConfigProblem], list[str]]:
    """Lay the code layer under each deployment. Also returns problems and the module files to watch."""
    wanted = [(one, _targets(one, environ)) for one in deployments]
    answers = ask([target.question for _, found in wanted for target, _ in found.values()])
    result: list[Deployment] = []
    problems: list[ConfigProblem] = []
    files: list[str] = []
    for one, found in wanted:
        layer, faults = _layer(one, found, answers)
        problems += faults
        mine = [
            file for target, _ in found.values() for file in _module_files(target, answers[target.question])
        ]
        _files[os.path.join(one.source.folder, os.path.basename(one.source.label))] = tuple(mine)
        files += mine
        result.append(replace(one, layers=(layer, *one.layers)) if layer is not None else one)
    return result, problems, files


def code_files(mains: Iterable[str]) -> list[str]:
    """Module files of these main files (absolute paths), as of the last reading."""
    return [file for main in mains for file in _files.get(main, ())]


def _targets(one: Deployment, environ: Mapping[str, str]) -> dict[str, tuple[Target, Node]]:
    """What to load for each service, with the node of its `python:`."""
    if not any("python" in service.mapping for layer in one.layers for service in layer.services.values()):
        return {}
    tree, _ = fill(merge_layers(one.layers), environ)
    services = find(tree, ("services",))
    found: dict[str, tuple[Target, Node]] = {}
    for name, service in (services.mapping if services is not None else {}).items():
        node = service.mapping.get("python")
        if node is None or not isinstance(node.value, str) or not re.fullmatch(PYTHON_TARGET, node.value):
            continue
        envs = find(service, ("envs",))
        texts = {key: each.value for key, each in (envs.mapping if envs else {}).items()}
        user = find(service, ("user",))
        question = Question(
            argv=(sys.executable, "-P", "-m", "stoker.introspect", str(node.value)),
            folder=absolute_folder(
                service.mapping.get("working_dir"), one.source.folder, environ.get("HOME", "/")
            ),
            envs=tuple(sorted((key, str(text)) for key, text in texts.items() if isinstance(text, str))),
            user=str(user.value) if user is not None and isinstance(user.value, str) else None,
            timeout=TIMEOUT,
        )
        found[name] = Target(str(node.value), question), node
    return found


def _layer(
    one: Deployment, found: Mapping[str, tuple[Target, Node]], answers: Mapping[Question, Mapping[str, Any]]
) -> tuple[Layer | None, list[ConfigProblem]]:
    services: dict[str, Node] = {}
    problems: list[ConfigProblem] = []
    shown = (lambda path: path) if os.path.isabs(one.source.label) else _relative
    for name, (target, node) in found.items():
        answer = answers[target.question]
        if "error" in answer:
            where = f" ({shown(answer['where'][0])}:{answer['where'][1]})" if answer.get("where") else ""
            hint = f"; {answer['hint']}" if answer.get("hint") else ""
            message = f"cannot load {target.target}: {answer['error']}{where}{hint}"
            problems.append(problem_at(node, ("services", name, "python"), message, key=True))
        elif answer["values"]:
            source = Source("code", shown(answer["file"]), os.path.dirname(answer["file"]))
            services[name] = from_data(answer["values"], source, answer["line"], 1)
    if not services:
        return None, problems
    source = Source("code", "")
    layer, faults = make_layer(Node({"services": Node(services, source)}, source))
    return layer, problems + faults


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _module_files(target: Target, answer: Mapping[str, Any]) -> list[str]:
    """The files that were loaded; if loading failed also those where the module would be."""
    module = os.path.join(target.question.folder, *target.target.partition(":")[0].split("."))
    candidates = [f"{module}.py", os.path.join(module, "__init__.py")] if "error" in answer else []
    return [*answer["files"], *candidates]
