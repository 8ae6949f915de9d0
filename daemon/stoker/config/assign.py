"""Single values given by the operator: variables, `--set`, live overrides. Pure.

Each is a path into the file and a value. A service is never made this way: one that does not exist is a
misspelling.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from stoker.config.layers import merge
from stoker.config.tree import LayerName, Node, Path, Source, from_data, suggest
from stoker.config.yaml_text import parse_value
from stoker.errors import ConfigProblem

PREFIX = "STOKER__"
TYPE_FIELDS = ("gpu", "gpu_type", "gpu_memory", "cpu", "memory")
TOP_KEYS = (
    "name", "envs", "env_file", "include", "secrets", "instance_types", "bento", "services", "box",
    "ingress",
)  # fmt: skip
_SEGMENT = re.compile(r'"([^"]*)"|([^."]+)')


@dataclass(frozen=True, slots=True)
class Assignment:
    """`path` to be `value`, in one deployment or (None) in every one that has it."""

    path: Path
    value: Node
    deployment: str | None = None

    @property
    def service(self) -> str | None:
        """The service it is about, if it is about one."""
        return self.path[1] if len(self.path) > 1 and self.path[0] == "services" else None

    def problem(self, message: str) -> ConfigProblem:
        """A problem with this assignment."""
        return ConfigProblem(message, self.value.source.label, path=".".join(self.path))


def split_path(text: str) -> Path:
    """Return the keys of a dotted path; a key with a dot in it may stand in double quotes.

    Names of variables and instance types may hold dots unquoted. Raises ValueError for an empty key.
    """
    keys: list[str] = []
    at = 0
    while at <= len(text):
        match = _SEGMENT.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != "."):
            raise ValueError(f'"{text}" is no path; write for example services.infer.scaling.max_replicas')
        keys.append(match[1] if match[2] is None else match[2])
        at = match.end() + 1
    return _join_dotted(keys)


def split_deployment(text: str) -> tuple[str | None, str]:
    """Split `rag/services.infer` into deployment and path; without the prefix the deployment is None."""
    name, slash, rest = text.partition("/")
    if slash and rest.split(".")[0] in TOP_KEYS:
        return name, rest
    return None, text


def from_set(text: str) -> tuple[list[Assignment], list[ConfigProblem]]:
    """Read one `--set` of the form PATH=VALUE."""
    path, equals, value = text.partition("=")
    source = Source("set", f"--set {path.strip()}")
    if not equals:
        return [], [ConfigProblem("has no value; write PATH=VALUE, for example name=rag", source.label)]
    node, problems = parse_value(value, source)
    return _assignment(path.strip(), node, problems)


def from_override(path: str, value: object) -> tuple[list[Assignment], list[ConfigProblem]]:
    """Read one live override."""
    return _assignment(path, from_data(value, Source("override", f"override {path}")), [])


def from_variables(
    environ: Mapping[str, str], services: Iterable[Collection[str]]
) -> tuple[list[Assignment], list[ConfigProblem]]:
    """Read the `STOKER__...` variables. `services` holds the names of each deployment's services."""
    names = sorted({name for group in services for name in group}, key=lambda name: (-len(name), name))
    assignments: list[Assignment] = []
    problems: list[ConfigProblem] = []
    for variable in sorted(environ):
        if not variable.upper().startswith(PREFIX):
            continue
        node, faults = parse_value(environ[variable], Source("environment", variable))
        paths = list(_variable_paths(variable[len(PREFIX) :], names))
        problems += faults
        if not all(all(path) and path for path in paths):
            example = f"{PREFIX}SERVICES__INFER__SCALING__MAX_REPLICAS"
            problems.append(ConfigProblem(f"is no path into the file; write for example {example}", variable))
            continue
        assignments += [Assignment(path, _empty_text(path, node)) for path in paths]
    return assignments, problems


def known_services(
    assignment: Assignment, deployments: Mapping[str, Collection[str]]
) -> tuple[list[str], str | None]:
    """Return the deployments an assignment applies to, or what is wrong with its aim."""
    wanted, service = assignment.deployment, assignment.service
    if wanted is not None and wanted not in deployments:
        return [], f"there is no deployment {wanted}" + suggest(wanted, deployments)
    among = [wanted] if wanted is not None else list(deployments)
    if service is None:
        return among, None
    having = [name for name in among if service in deployments[name]]
    if having:
        return having, None
    names = sorted({name for each in among for name in deployments[each]})
    return [], f"there is no service {service}" + suggest(service, names)


def to_tree(assignments: Iterable[Assignment], layer: LayerName) -> Node:
    """Return the assignments as one layer's tree, later ones over earlier ones."""
    tree = Node({}, Source(layer, ""))
    for assignment in assignments:
        node = assignment.value
        for key in reversed(assignment.path):
            node = Node({key: node}, assignment.value.source)
        tree = merge(tree, node, ())
    return tree


def _assignment(
    text: str, node: Node, problems: list[ConfigProblem]
) -> tuple[list[Assignment], list[ConfigProblem]]:
    deployment, rest = split_deployment(text)
    try:
        path = split_path(rest)
    except ValueError as error:
        return [], [*problems, ConfigProblem(str(error), node.source.label)]
    return [Assignment(path, _empty_text(path, node), deployment)], problems


def _empty_text(path: Path, node: Node) -> Node:
    """A variable set to nothing is an empty text; anywhere else nothing means null."""
    return node._replace(value="") if node.value is None and not node.text and _variable_at(path) else node


def _variable_at(path: Path) -> bool:
    return path[:-1] == ("envs",) or (len(path) == 4 and path[0] == "services" and path[2] == "envs")


def _join_dotted(keys: list[str]) -> Path:
    match keys:
        case ["envs", _, *_]:
            return "envs", ".".join(keys[1:])
        case ["services", name, "envs", _, *_]:
            return "services", name, "envs", ".".join(keys[3:])
        case ["instance_types", *parts, field] if parts and field in TYPE_FIELDS:
            return "instance_types", ".".join(parts), field
        case ["instance_types", _, *_]:
            return "instance_types", ".".join(keys[1:])
        case _:
            return tuple(keys)


def _variable_paths(rest: str, services: Iterable[str]) -> Iterator[Path]:
    """The path a variable's name means: one, or several if it fits several services' names."""
    head, _, tail = rest.partition("__")
    if head.lower() == "envs":
        yield "envs", tail
    elif head.lower() == "services":
        folded = [name for name in services if f"{tail}__".lower().startswith(f"{_fold(name)}__")]
        longest = max((len(name) for name in folded), default=0)
        for name in (name for name in folded if len(name) == longest):
            yield "services", name, *_keys(tail[longest + 2 :])
        if not folded:
            name, _, keys = tail.partition("__")
            yield "services", name.lower(), *_keys(keys)
    else:
        yield _join_dotted(rest.lower().split("__"))


def _keys(text: str) -> Path:
    head, _, tail = text.partition("__")
    if head.lower() == "envs" and tail:
        return "envs", tail
    return tuple(text.lower().split("__")) if text else ()


def _fold(name: str) -> str:
    return re.sub(r"[-.]", "_", name.lower())
