"""A tree against a section of the schema: the checked values and every problem, each with its place. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import GenericAlias, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stoker.config.fields import Argv, EnvFile, Text
from stoker.config.schema import FileSection, ServiceSection
from stoker.config.tree import Node, Path, Report, find, found, suggest, to_data
from stoker.errors import ConfigProblem

M = TypeVar("M", bound=BaseModel)

MAX_PROBLEMS = 50
"""Problems told of one section; nobody reads more, and each costs a search for the nearest name."""
PRUNINGS = 4

UNSUPPORTED = {
    "bento": "stands at the top of the file, once for all services of the bento",
}
COMPOSE_WORDS = {
    "environment": "envs", "depends_on": "depends", "entrypoint": "command", "cmd": "command",
    "args": "command", "replicas": "scaling.min_replicas", "deploy": "scaling", "gpus": "resources.gpu",
    "healthcheck": "probes", "ports": "endpoint.port", "cwd": "working_dir", "stop_signal": "drain.signal",
    "stop_grace_period": "drain.timeout", "ulimits": "limits",
}  # fmt: skip
"""Words for keys of a service that people bring from docker compose and its like."""


def check(
    model: type[M], node: Node, path: Path, *, hints: bool = True
) -> tuple[M | None, list[ConfigProblem]]:
    """Return the section's values and all problems with them.

    With problems the values are those of the rest, the bad keys left out, so that what the good ones mean
    can be checked in the same pass; None if nothing can be made of it. Without `hints` no nearest names
    are looked for.
    """
    report = Report(node)
    data = to_data(node)
    for _ in range(PRUNINGS):
        try:
            return model.model_validate(data), _placed(report.problems, path)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=True, include_context=True)
            for detail in details[: MAX_PROBLEMS - len(report.problems)]:
                _complain(detail, model, report, hints=hints)
            if not isinstance(data, dict) or any(not detail["loc"] for detail in details):
                break
            for detail in details:
                _prune(data, detail["loc"])
    return None, _placed(report.problems, path)


def fields_at(model: type[BaseModel], path: Iterable[str]) -> Mapping[str, Any] | None:
    """The keys a mapping at that path may have; None if it is no section of the schema."""
    section = section_at(model, path)
    return section.model_fields if section is not None else None


def section_at(model: type[BaseModel], path: Iterable[str]) -> type[BaseModel] | None:
    """The section of the schema that stands at a path; None if it is a value or nothing."""
    annotation: Any = model
    for key in path:
        annotation = _below(annotation, key)
    unwrapped = _unwrapped(annotation)
    if get_origin(unwrapped) is list:  # a single policy may stand without its list
        unwrapped = _unwrapped(get_args(unwrapped)[0])
    return unwrapped if isinstance(unwrapped, type) and issubclass(unwrapped, BaseModel) else None


def known_path(path: Path) -> bool:
    """Whether a path of the file means something, present or not."""
    annotation: Any = FileSection
    for key in path:
        annotation = _below(annotation, key)
        if annotation is None:
            return False
    return True


def wants_text(path: Path) -> bool:
    """Whether the key at a path takes text and no number: `user: "1000"`."""
    if path and path[-1].isdecimal():
        path = path[:-1]
    section = section_at(FileSection, path[:-1]) if path else None
    field = section.model_fields.get(path[-1]) if section is not None else None
    if field is None:
        return path[-2:-1] == ("envs",)
    return any(
        isinstance(kind, Text | Argv | EnvFile) for kind in (*field.metadata, *_kinds(field.annotation))
    )


def _kinds(annotation: Any) -> list[Any]:
    """The kinds of values in an annotation, those below `| None` and in a list too."""
    found = list(getattr(annotation, "__metadata__", ()))
    return found + [kind for each in get_args(annotation) for kind in _kinds(each)]


def _unwrapped(annotation: Any) -> Any:
    """Without `Annotated` and `| None`."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _unwrapped(next((arg for arg in get_args(annotation) if arg is not type(None)), None))
    if hasattr(annotation, "__metadata__"):
        return _unwrapped(annotation.__origin__)
    return annotation


def _below(annotation: Any, key: str) -> Any:
    annotation = _unwrapped(annotation)
    if isinstance(annotation, type) and not isinstance(annotation, GenericAlias):
        field = annotation.model_fields.get(key) if issubclass(annotation, BaseModel) else None
        return field.annotation if field is not None else None
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return arguments[1]
    if origin in (list, tuple):
        # A single policy may stand without its list.
        return arguments[0] if key.isdecimal() else _below(arguments[0], key)
    return None


def _placed(problems: list[ConfigProblem], path: Path) -> list[ConfigProblem]:
    """The problems with the section's own path in front of theirs."""
    prefix = ".".join(path)
    return [
        ConfigProblem(
            p.message, p.file, p.line, p.column, ".".join(part for part in (prefix, p.path) if part)
        )
        for p in problems
    ]


def _prune(data: dict[str, Any], loc: tuple[int | str, ...]) -> None:
    """Take the value at `loc` out of the data; a list with a bad element goes as a whole."""
    head, deeper = str(loc[0]), loc[1:]
    below = data.get(head)
    if isinstance(below, dict) and deeper:
        if isinstance(deeper[0], int):  # a single policy that stands without its list
            deeper = deeper[1:]
        if deeper:
            _prune(below, deeper)
            return
    data.pop(head, None)


def _complain(detail: ErrorDetails, model: type[BaseModel], report: Report, *, hints: bool) -> None:
    path = _tree_path(detail["loc"], report.tree)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        report.add(path, _unknown_key(path, model) if hints else "unknown key", key=True)
    elif kind == "stoker":
        report.add(path, str(context.get("text", "")))
    elif kind == "literal_error":
        report.add(path, _not_one_of(str(context.get("expected", "")), detail["input"]))
    else:
        shape = "a list" if "list" in kind else "a mapping"
        report.add(path, f"must be {shape}{_example(model, path)}; found {found(detail['input'])}")


def _tree_path(loc: tuple[int | str, ...], tree: Node) -> Path:
    """Where the error's location is in the tree: a single policy stands there without its list."""
    path: Path = ()
    for part in loc:
        node = find(tree, path)
        if isinstance(part, int) and (node is None or isinstance(node.value, dict)):
            continue
        path = (*path, str(part))
    return path


def _unknown_key(path: Path, model: type[BaseModel]) -> str:
    key = path[-1]
    if key in UNSUPPORTED and (model is FileSection or (model is ServiceSection and len(path) == 1)):
        return UNSUPPORTED[key]
    inner = _deeper(model, path)
    if inner is not None:
        return f"unknown key here; did you mean {inner}?"
    return "unknown key" + suggest(key, fields_at(model, path[:-1]) or ())


def _deeper(model: type[BaseModel], path: Path) -> str | None:
    """Where one level down that very key exists: `max_replicas` of a service is scaling.max_replicas."""
    if len(path) == 1 and issubclass(model, FileSection):
        inner = path[0] if path[0] in ServiceSection.model_fields else _deeper(ServiceSection, path)
        return f"services.NAME.{inner}" if inner else None
    known = fields_at(model, path[:-1]) or ()
    if path[-1] in COMPOSE_WORDS and "command" in known:
        return COMPOSE_WORDS[path[-1]]
    for name in known:
        section = section_at(model, (*path[:-1], name))
        if section is not None and path[-1] in section.model_fields:
            return f"{name}.{path[-1]}"
    return None


def _not_one_of(expected: str, value: object) -> str:
    names = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
    words = f"{', '.join(names[:-1])} or {names[-1]}"
    hint = suggest(value, names) if isinstance(value, str) else ""
    if isinstance(value, str) and " | " in value:
        return f"must be {words}; found the list of choices from a manual, write one of them"
    return f"must be {words}; found {found(value)}" + (hint if "did you mean" in hint else "")


def _example(model: type[BaseModel], path: Path) -> str:
    """`, for example ...` from the schema."""
    section = section_at(model, path[:-1])
    field = section.model_fields.get(path[-1]) if section is not None and path else None
    if field is not None and field.examples:
        return f", for example {flow(field.examples[0])}"
    below = section_at(model, path)
    if below is not None and below.model_fields:
        return f" with keys such as {', '.join(list(below.model_fields)[:3])}"
    return ""


def flow(value: object) -> str:
    """Plain data in YAML's flow form, short."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
