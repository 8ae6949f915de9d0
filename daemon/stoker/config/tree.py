"""Config values that remember where they were written. Pure.

A `Node` is one value of one layer, or of several merged ones: every leaf keeps the source, line and
column it came from, so that any later complaint or explanation can point there.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from stoker.errors import ConfigProblem

LayerName = Literal[
    "built-in default",
    "instance type",
    "code",
    "include",
    "env file",
    "file",
    "drop-in",
    "profile",
    "environment",
    "set",
    "override",
]
Scalar = str | int | float | bool | None
Path = tuple[str, ...]

MAX_CANDIDATES = 100
"""So many names are compared to find the nearest one; a misspelt key must not cost seconds."""
MAX_LISTED = 16
"""A longer list of the names there are is no help on one line."""
MAX_HINTS = 100
"""So many problems of one tree get the nearest name; nobody reads more."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a layer comes from. `label` is what people read (a file as it was named, a variable, a
    command); `folder` is the absolute directory that its relative paths are relative to."""

    layer: LayerName
    label: str
    folder: str = ""


class Filled(str):
    """Text in which `${VAR}` was filled from the environment. It has no YAML type of its own: a number
    field reads it as the number it spells, a text field as it is."""

    __slots__ = ()


class Node(NamedTuple):
    """A value and its place. Lines and columns count from 1; 0 means the source has none.

    `text` is a scalar as it was written ("1.10", not 1.1). Mappings are never changed once built.
    """

    value: Scalar | dict[str, Node] | list[Node]
    source: Source
    line: int = 0
    column: int = 0
    key_line: int = 0
    key_column: int = 0
    text: str = ""

    @property
    def mapping(self) -> dict[str, Node]:
        """Its keys and values; empty if it is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """Its elements; empty if it is no list."""
        return self.value if isinstance(self.value, list) else []

    @property
    def scalar(self) -> bool:
        """Whether it is neither a mapping nor a list."""
        return not isinstance(self.value, dict | list)


def from_data(value: Any, source: Source, line: int = 0, column: int = 0) -> Node:
    """Return plain data as a tree whose every node has the same place."""
    where = (source, line, column, line, column)
    if isinstance(value, dict):
        return Node({str(key): from_data(child, *where[:3]) for key, child in value.items()}, *where)
    if isinstance(value, list | tuple):
        return Node([from_data(child, *where[:3]) for child in value], *where)
    return Node(value, *where, text=scalar_text(value))


def scalar_text(value: object) -> str:
    """A scalar as YAML writes it: true, not True."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_data(node: Node) -> Any:
    """Return the values of a tree as plain data; places are lost."""
    value = node.value
    if isinstance(value, dict):
        return {key: to_data(child) for key, child in value.items()}
    if isinstance(value, list):
        return [to_data(child) for child in value]
    return value


def child(node: Node, key: str) -> Node | None:
    """The value under a key of a mapping, or at an index of a list; None if there is none."""
    if isinstance(node.value, list):
        return node.value[int(key)] if key.isdecimal() and int(key) < len(node.value) else None
    return node.mapping.get(key)


def find(tree: Node | None, path: Iterable[str]) -> Node | None:
    """The node at a path; None if there is none."""
    node = tree
    for key in path:
        node = child(node, key) if node is not None else None
    return node


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """All values that are no mappings, with their paths; nulls (which set nothing) are left out."""
    if isinstance(node.value, dict):
        for key, value in node.value.items():
            yield from leaves(value, (*path, key))
    elif node.value is not None:
        yield path, node


def place(source: Source, line: int, column: int) -> str:
    """`file:line:column`, or the label alone where there are no lines."""
    return f"{source.label}:{line}:{column}" if line else source.label


def problem_at(node: Node, path: Sequence[str], message: str, *, key: bool = False) -> ConfigProblem:
    """A problem with the place of the node's value; of its key if asked for, or if the value is no word."""
    at_key = (key or not node.scalar or node.value is None) and node.key_line
    line, column = (node.key_line, node.key_column) if at_key else (node.line, node.column)
    return ConfigProblem(message, node.source.label, line, column, ".".join(path))


class Report:
    """Collects problems of one tree; finds the place of each by its path."""

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self.problems: list[ConfigProblem] = []

    def hint(self, word: str, names: Iterable[str]) -> str:
        """`suggest`, as long as there are not too many problems for it to be read."""
        return suggest(word, names) if len(self.problems) < MAX_HINTS else ""

    def add(self, path: Sequence[str], message: str, *, key: bool = False) -> None:
        """Note a problem at that path; if nothing stands there, at the nearest key above it."""
        self.problems.append(self._problem(path, message, key=key))

    def note(self, path: Sequence[str], message: str, *, key: bool = False) -> str:
        """The words of a problem at that path that is none: something to be told."""
        return str(self._problem(path, message, key=key))

    def _problem(self, path: Sequence[str], message: str, *, key: bool) -> ConfigProblem:
        node = self.tree
        for name in path:
            below = child(node, name)
            if below is None:
                key = True
                break
            node = below
        return problem_at(node, path, message, key=key)


def found(value: object) -> str:
    """What stands there, in words, for "must be ...; found ..."."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f'the text "{shorten(value)}"'
    return scalar_text(value)


def shorten(text: str, limit: int = 40) -> str:
    """Text cut to a length that fits in a message, on one line."""
    line = " ".join(text[: limit * 2].split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like `word`; None if none is alike."""
    wanted = word.lower()[:80]
    lowered = {name.lower(): name for name in names}
    likely: Iterable[str] = lowered
    if len(lowered) > MAX_CANDIDATES:
        likely = heapq.nsmallest(MAX_CANDIDATES, lowered, key=lambda name: _unlike(wanted, name))
    close = difflib.get_close_matches(wanted, likely, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def _unlike(word: str, name: str) -> tuple[int, int]:
    """A cheap measure: a short common beginning first, then a different length."""
    same = next((i for i, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), len(word))
    return -same, abs(len(word) - len(name))


def suggest(word: str, names: Iterable[str]) -> str:
    """`; did you mean NAME?`, or the names there are if none is alike and they are few."""
    known = list(names)
    close = nearest(word, known)
    if close is not None:
        return f"; did you mean {close}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= MAX_LISTED else ""
