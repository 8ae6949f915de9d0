"""The files that a file names: `include` and `env_file`. Reads them, and remembers which to watch.

What is included lies under the file that includes it, later ones over earlier ones; a file of variables
lies under the `envs` that stand beside its key.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stoker.config.env_file import parse_env_file
from stoker.config.interpolate import fill_text
from stoker.config.layers import Layer, make_layer
from stoker.config.sources.files import read_document, read_text
from stoker.config.tree import LayerName, Node, Path, Source, problem_at
from stoker.errors import ConfigProblem

MAX_INCLUDED = 200
"""So many files one deployment may be made of."""
_WILD = frozenset("*?[")

_named: dict[str, tuple[str, ...]] = {}
"""Paths that a file names, by the file's own path, as of the last reading."""


@dataclass(slots=True)
class Reading:
    """One document and all that it names while it is read. `watch`: absolute paths, existing or not."""

    environ: Mapping[str, str]
    problems: list[ConfigProblem] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    watch: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def with_references(
    tree: Node, path: str, environ: Mapping[str, str]
) -> tuple[list[Layer], list[ConfigProblem], list[str]]:
    """The layers of a document that was read from `path`: those it includes, lowest first, then its own.

    Also returns problems and the labels of the files that were read for it.
    """
    reading = Reading(environ=environ, seen={os.path.realpath(path)})
    layers = _layers(tree, reading, (os.path.realpath(path),))
    _named[path] = tuple(dict.fromkeys(reading.watch))
    return layers, reading.problems, reading.files


def named_files(paths: Iterable[str]) -> list[str]:
    """What the files at these paths named when they were read last."""
    return [named for path in paths for named in _named.get(path, ())]


def _layers(tree: Node, reading: Reading, above: tuple[str, ...]) -> list[Layer]:
    layer, faults = make_layer(tree)
    reading.problems += faults
    under: list[Layer] = []
    for where, node, _ in _paths(layer.tree.mapping.get("include"), ("include",), reading):
        for label, path in _meant(node, where, reading):
            under += _included(label, path, (node, where), reading, above)
    return [*under, _with_variables(layer, reading)]


def _included(
    label: str, path: str, said: tuple[Node, Path], reading: Reading, above: tuple[str, ...]
) -> list[Layer]:
    """The layers of one included file; none if it was read before."""
    node, where = said
    real = os.path.realpath(path)
    if real in above and _WILD & set(str(node.value)):
        return []  # a pattern that matches the file it stands in means the others
    if real in above:
        reading.problems.append(problem_at(node, where, f"{label} includes itself, here or further down"))
    elif len(reading.seen) >= MAX_INCLUDED:
        reading.problems.append(problem_at(node, where, f"more than {MAX_INCLUDED} files"))
    elif real not in reading.seen:
        reading.seen.add(real)
        reading.watch += [path, real]
        if not os.path.exists(path):
            reading.problems.append(problem_at(node, where, f"no such file: {label}"))
            return []
        tree, faults = read_document(path, Source("include", label, os.path.dirname(path)))
        reading.problems += faults
        reading.files.append(label)
        return _layers(tree, reading, (*above, real)) if tree is not None else []
    return []


def _meant(node: Node, where: Path, reading: Reading) -> Iterator[tuple[str, str]]:
    """(label, path) of each file that an entry means: one, or those that match a pattern."""
    label, path = _place(str(node.value), node.source)
    if not _WILD & set(str(node.value)):
        yield label, path
        return
    folder = os.path.dirname(path)
    reading.watch.append(folder if not _WILD & set(folder) else os.path.dirname(folder))
    for found in sorted(glob.glob(path))[: MAX_INCLUDED + 1]:
        if os.path.isfile(found):
            yield os.path.join(os.path.dirname(label), os.path.relpath(found, folder)), found


def _with_variables(layer: Layer, reading: Reading) -> Layer:
    """The layer with the variables of its files under its own."""
    whole = _variables(layer.tree, (), reading)
    services = whole.mapping.get("services")
    if services is None or not services.mapping:
        return Layer(whole)
    bodies = {name: _variables(body, ("services", name), reading) for name, body in services.mapping.items()}
    if all(bodies[name] is body for name, body in services.mapping.items()):
        return Layer(whole)
    return Layer(whole._replace(value={**whole.mapping, "services": services._replace(value=bodies)}))


def _variables(section: Node, path: Path, reading: Reading) -> Node:
    """A mapping with `envs` that hold the variables of its `env_file` too."""
    node = section.mapping.get("env_file")
    envs = section.mapping.get("envs")
    if node is None or (envs is not None and not isinstance(envs.value, dict | None)):
        return section
    found: dict[str, Node] = {}
    for where, each, required in _paths(node, (*path, "env_file"), reading):
        found |= _env_file(each, where, reading, required=required)
    own = {name: value for name, value in envs.mapping.items() if value.value is not None} if envs else {}
    whole = (envs if envs is not None and envs.mapping else node)._replace(value={**found, **own}, text="")
    return section._replace(value={**section.mapping, "envs": whole})


def _env_file(node: Node, where: Path, reading: Reading, *, required: bool) -> dict[str, Node]:
    label, path = _place(str(node.value), node.source)
    reading.watch += [path, os.path.realpath(path)]
    if not os.path.exists(path):
        if required:
            hint = "make it, or write {path: FILE, required: false}"
            reading.problems.append(problem_at(node, where, f"no such file: {label}; {hint}"))
        return {}
    layer: LayerName = "env file"
    source = Source(layer, label, node.source.folder)
    text, faults = read_text(path, source)
    variables, more = parse_env_file(text or "", source)
    reading.problems += [*faults, *more]
    reading.files.append(label)
    return variables


def _place(text: str, source: Source) -> tuple[str, str]:
    """How people would name the file, and its absolute path: relative to the file that says it."""
    beside = os.path.dirname(source.label) if source.folder else ""
    label = text if os.path.isabs(text) else os.path.normpath(os.path.join(beside, text))
    return label, os.path.normpath(os.path.join(source.folder or os.getcwd(), text))


def _paths(node: Node | None, path: Path, reading: Reading) -> Iterator[tuple[Path, Node, bool]]:
    """(path in the file, text, required) of each entry. What is no text is left for the schema to refuse."""
    if node is None:
        return
    listed = isinstance(node.value, list)
    entries: Sequence[Node] = node.items if listed else [node]
    for index, entry in enumerate(entries):
        where = (*path, str(index)) if listed else path
        named = entry.mapping.get("path", entry) if entry.mapping else entry
        needed = entry.mapping.get("required")
        if isinstance(named.value, str) and named.value and "\0" not in named.value:
            text, faults = fill_text(named.value, reading.environ)
            reading.problems += [problem_at(named, where, fault) for fault in faults]
            if not faults:
                yield where, named._replace(value=text), needed is None or needed.value is not False
