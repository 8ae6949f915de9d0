"""Finds and reads the layers. The only part of the configuration that touches disk, environment and
processes; everything it finds wrong is noted, nothing is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stoker.config.assemble import Deployment, Operator, RawLayers, add_drop_ins, add_operator
from stoker.config.bentoml import unwrap
from stoker.config.layers import merge
from stoker.config.request import ConfigRequest, Inspection
from stoker.config.sources.code import add_code, code_files
from stoker.config.sources.files import MainFile, drop_in_files, find_files, profile_file, read_document
from stoker.config.sources.project import add_projects, project_files
from stoker.config.sources.references import named_files, with_references
from stoker.config.tree import Node, Source
from stoker.errors import ConfigProblem

__all__ = ["ConfigRequest", "Inspection", "RawLayers", "read", "watch_paths"]


def read(request: ConfigRequest) -> RawLayers:
    """Read all layers. Blocking. Problems are in the result; a file that cannot be read has no deployment."""
    mains, problems, notices = find_files(request.files)
    deployments: list[Deployment] = []
    files: list[str] = []
    for main in mains:
        deployment, faults, more = _main(main, request.environ)
        problems += faults
        files += [main.label, *more]
        deployments += [deployment] if deployment else []
    complete = not problems
    drop_ins, folders, faults = _drop_ins(mains, request.environ)
    problems += faults
    files += folders
    deployments, faults, hints = add_drop_ins(deployments, drop_ins, folders, complete=complete)
    problems, notices = problems + faults, notices + hints
    deployments, profiles, faults = _profiles(mains, deployments, request)
    problems += faults
    operator = Operator(environ=request.environ, sets=request.sets, overrides=request.overrides)
    deployments, faults, idle = add_operator(deployments, operator, complete=not problems)
    problems += faults
    deployments, faults, modules = add_code(deployments, request.environ)
    problems += faults
    deployments, found = add_projects(deployments, request.environ, request.inspection)
    problems += found.problems
    return RawLayers(
        deployments=tuple(deployments),
        environ=request.environ,
        files=(*files, *profiles),
        watch=tuple(dict.fromkeys([*watch_paths(request), *modules, *found.files])),
        notices=(*notices, *found.notices),
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
    drop_ins = [path for main in mains for _, path in drop_in_files(main)[0]]
    return tuple(dict.fromkeys([*paths, *_code_files(mains), *named_files([*paths, *drop_ins])]))


def _code_files(mains: Sequence[MainFile]) -> list[str]:
    """Files of users' code that was read."""
    paths = [main.path for main in mains]
    return [*code_files(paths), *project_files(paths)]


def _main(
    main: MainFile, environ: Mapping[str, str]
) -> tuple[Deployment | None, list[ConfigProblem], list[str]]:
    source = Source("file", main.label, main.folder)
    tree, problems = read_document(main.path, source)
    if tree is None:
        if not problems:
            problems = [ConfigProblem("is empty; a deployment needs `services:`", main.label, 1, 1)]
        return None, problems, []
    tree = unwrap(tree)
    layers, faults, files = with_references(tree, main.path, environ)
    if not isinstance(tree.value, dict):
        return None, problems + faults, files
    stem = os.path.splitext(os.path.basename(main.path))[0]
    return Deployment(stem=stem, source=source, layers=tuple(layers)), problems + faults, files


def _drop_ins(
    mains: list[MainFile], environ: Mapping[str, str]
) -> tuple[list[Node], dict[str, str], list[ConfigProblem]]:
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
            if tree is None:
                continue
            layers, faults, _ = with_references(tree, path, environ)
            problems += faults
            whole = Node({}, tree.source)
            for layer in layers:
                whole = merge(whole, layer.tree, ())
            trees.append(whole._replace(source=tree.source))
    return trees, folders, problems


def _profiles(
    mains: list[MainFile], deployments: list[Deployment], request: ConfigRequest
) -> tuple[list[Deployment], list[str], list[ConfigProblem]]:
    """The deployments with their profile layers, the files read for them, problems."""
    profile = request.profile
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
            layers, faults, more = with_references(tree, path, request.environ)
            problems, files = problems + faults, files + more
            result = [
                replace(one, layers=(*one.layers, *layers)) if one.source.label == main.label else one
                for one in result
            ]
    if not files:
        stem = os.path.splitext(os.path.basename(mains[0].path))[0]
        message = (
            f"no file has a profile {profile}; it would be {stem}.{profile}.yaml beside {mains[0].label}"
        )
        problems.append(ConfigProblem(message, mains[0].label))
    return result, files, problems
