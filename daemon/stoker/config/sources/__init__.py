"""Finds and reads the layers. The only part of the configuration that touches disk, environment and
processes; everything it finds wrong is noted, nothing is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stoker.config.assemble import Deployment, Operator, RawLayers, add_drop_ins, add_operator
from stoker.config.bentoml import unwrap
from stoker.config.layers import make_layer
from stoker.config.sources.code import add_code, code_files
from stoker.config.sources.files import MainFile, drop_in_files, find_files, profile_file, read_document
from stoker.config.tree import Node, Source
from stoker.errors import ConfigProblem

__all__ = ["ConfigRequest", "RawLayers", "read", "watch_paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRequest:
    """What to load. `files`: main files, one deployment each, or directories of them. `profile`: reads
    `NAME.PROFILE.yaml` beside each. `sets`: PATH=VALUE. `overrides`: live ones, dotted path -> value.
    `environ`: the operator's environment. `secrets_dir` is not read: a secret is looked up when a worker
    starts, and its change concerns no layer."""

    files: tuple[str, ...]
    profile: str | None = None
    sets: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets_dir: str | None = None


def read(request: ConfigRequest) -> RawLayers:
    """Read all layers. Blocking. Problems are in the result; a file that cannot be read has no deployment."""
    mains, problems, notices = find_files(request.files)
    deployments: list[Deployment] = []
    files: list[str] = []
    for main in mains:
        deployment, faults = _main(main)
        problems += faults
        files.append(main.label)
        deployments += [deployment] if deployment else []
    complete = not problems
    drop_ins, folders, faults = _drop_ins(mains)
    problems += faults
    files += folders
    deployments, faults, hints = add_drop_ins(deployments, drop_ins, folders, complete=complete)
    problems, notices = problems + faults, notices + hints
    deployments, profiles, faults = _profiles(mains, deployments, request.profile)
    problems += faults
    operator = Operator(environ=request.environ, sets=request.sets, overrides=request.overrides)
    deployments, faults, idle = add_operator(deployments, operator, complete=not problems)
    problems += faults
    deployments, faults, modules = add_code(deployments, request.environ)
    problems += faults
    return RawLayers(
        deployments=tuple(deployments),
        environ=request.environ,
        files=(*files, *profiles),
        watch=tuple(dict.fromkeys([*watch_paths(request), *modules])),
        notices=tuple(notices),
        idle_overrides=tuple(idle),
        problems=tuple(problems),
    )


def watch_paths(request: ConfigRequest) -> tuple[str, ...]:
    """Absolute paths, existing or not, at or below which a change concerns this request. Cheap, never
    raises: also good when the files are broken or gone."""
    mains, _, _ = find_files(request.files)
    paths: list[str] = []
    for path in [*request.files, *(main.path for main in mains)]:
        absolute = os.path.abspath(path)
        paths += [absolute, os.path.realpath(absolute)]
        folder = absolute if os.path.isdir(absolute) else os.path.dirname(absolute)
        paths.append(os.path.join(folder, "conf.d"))
    if request.profile is not None:
        for main in mains:
            paths += [f"{os.path.splitext(main.path)[0]}.{request.profile}{end}" for end in (".yaml", ".yml")]
    return tuple(dict.fromkeys([*paths, *code_files(main.path for main in mains)]))


def _main(main: MainFile) -> tuple[Deployment | None, list[ConfigProblem]]:
    source = Source("file", main.label, main.folder)
    tree, problems = read_document(main.path, source)
    if tree is None:
        if not problems:
            problems = [ConfigProblem("is empty; a deployment needs `services:`", main.label, 1, 1)]
        return None, problems
    tree = unwrap(tree)
    layer, faults = make_layer(tree)
    if not isinstance(tree.value, dict):
        return None, problems + faults
    stem = os.path.splitext(os.path.basename(main.path))[0]
    return Deployment(stem=stem, source=source, layers=(layer,)), problems + faults


def _drop_ins(mains: list[MainFile]) -> tuple[list[Node], dict[str, str], list[ConfigProblem]]:
    """The trees of all drop-ins, their folders of main files by label, problems."""
    trees: list[Node] = []
    folders: dict[str, str] = {}
    problems: list[ConfigProblem] = []
    for main in {main.folder: main for main in reversed(mains)}.values():
        files, faults = drop_in_files(main)
        problems += faults
        for label, path in files:
            folders[label] = main.folder
            tree, faults = read_document(path, Source("drop-in", label, os.path.dirname(path)))
            problems += faults
            trees += [tree] if tree else []
    return trees, folders, problems


def _profiles(
    mains: list[MainFile], deployments: list[Deployment], profile: str | None
) -> tuple[list[Deployment], list[str], list[ConfigProblem]]:
    """The deployments with their profile layers, the files read for them, problems."""
    if profile is None or not mains:
        return deployments, [], []
    result = list(deployments)
    files: list[str] = []
    problems: list[ConfigProblem] = []
    for main in mains:
        found = profile_file(main, profile)
        if found is None:
            continue
        label, path = found
        files.append(label)
        tree, faults = read_document(path, Source("profile", label, main.folder))
        problems += faults
        if tree is not None:
            layer, faults = make_layer(tree)
            problems += faults
            result = [
                replace(one, layers=(*one.layers, layer)) if one.source.label == main.label else one
                for one in result
            ]
    if not files:
        stem = os.path.splitext(os.path.basename(mains[0].path))[0]
        message = (
            f"no file has a profile {profile}; it would be {stem}.{profile}.yaml beside {mains[0].label}"
        )
        problems.append(ConfigProblem(message, mains[0].label))
    return result, files, problems
