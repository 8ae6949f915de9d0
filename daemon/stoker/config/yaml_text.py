"""YAML text to a tree with places. Pure.

Scalars follow the YAML 1.2 core schema: only true and false are booleans, `yes`, `on` and `12:30` stay
text, `010` is ten. Duplicate keys are errors. The limits hold against files that are no configuration:
nothing is expanded before it is counted, so an alias bomb costs as much as its text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from stoker.config.tree import Node, Scalar, Source, shorten
from stoker.errors import ConfigProblem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_PROBLEMS = 100

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_BASED = re.compile(r"0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_TAG = "tag:yaml.org,2002:"


def resolve_scalar(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar. A number of more than 18 digits stays text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if len(text) <= 40 and _FLOAT.fullmatch(text) and not text.lstrip("+-").isdecimal():
        return float(text)
    return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else text


def parse_yaml(text: str, source: Source) -> tuple[Node | None, list[ConfigProblem]]:
    """Return the tree of one document and all that is wrong with it. None: empty, or not readable."""
    try:
        _check_characters(text, source)
        composer = _Composer(text, source)
        return composer.document(), composer.problems
    except _StopError as stop:
        return None, [stop.problem]


def parse_value(text: str, source: Source) -> tuple[Node, list[ConfigProblem]]:
    """Return the value of an assignment on a command line or in a variable.

    A flow collection or a quoted text is read as YAML, all else is one plain scalar, whatever is in it.
    """
    stripped = text.strip()
    if stripped[:1] not in {"[", "{", '"', "'"}:
        return Node(resolve_scalar(stripped), source, text=stripped), []
    node, problems = parse_yaml(text, source)
    problems = [ConfigProblem(p.message, source.label, path=p.path) for p in problems]
    return _without_lines(node) if node else Node(None, source), problems


def _without_lines(node: Node) -> Node:
    value = node.value
    if isinstance(value, dict):
        return Node({key: _without_lines(below) for key, below in value.items()}, node.source)
    if isinstance(value, list):
        return Node([_without_lines(below) for below in value], node.source)
    return Node(value, node.source, text=node.text)


class _StopError(Exception):
    """Reading cannot go on."""

    def __init__(self, message: str, source: Source, line: int, column: int) -> None:
        self.problem = ConfigProblem(message, source.label, line, column)
        super().__init__(message)


class _Composer:
    """Builds nodes from the parser's events. One pass, no recursion deeper than MAX_DEPTH."""

    def __init__(self, text: str, source: Source) -> None:
        self._loader = _LOADER(text)
        self._next: Any = self._loader.get_event
        self._text = text
        self._source = source
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._path: list[str] = []
        self._count = self._depth = 0
        self.problems: list[ConfigProblem] = []

    def document(self) -> Node | None:
        """The only document. Raises _StopError for broken syntax, several documents, limits."""
        try:
            self._next()  # stream start
            if self._loader.check_event(yaml.StreamEndEvent):
                return None
            self._next()  # document start
            node = self._node(self._next())
            self._next()  # document end
            if not self._loader.check_event(yaml.StreamEndEvent):
                message = "a second document starts here; a configuration file holds one"
                raise self._stop(message, self._next().start_mark)
            return None if node.value is None and not node.text else node
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from None
        except yaml.YAMLError as error:
            reason = shorten(str(getattr(error, "reason", error)), 80)
            raise _StopError(f"not valid YAML: {reason}", self._source, 1, 1) from None
        finally:
            self._loader.dispose()

    def _node(self, event: Any, key: Any = None) -> Node:
        """The node that starts with `event`; `key` is the mark of its key."""
        self._count += 1
        if self._count > MAX_NODES:
            raise self._stop(f"too large: more than {MAX_NODES} values", event.start_mark)
        if type(event) is yaml.AliasEvent:
            node = self._alias(event)
            return node._replace(key_line=key.line + 1, key_column=key.column + 1) if key else node
        anchor, before = event.anchor, self._count
        if anchor is not None:
            self._anchors[anchor] = None
        mark, text = event.start_mark, ""
        value: Scalar | list[Node] | dict[str, Node]
        if type(event) is yaml.ScalarEvent:
            text = event.value
            plain = event.tag is None and event.implicit[0]
            value = resolve_scalar(text) if plain else self._tagged_scalar(event)
        else:
            value = self._collection(event)
        key_line, key_column = (key.line + 1, key.column + 1) if key else (0, 0)
        node = Node(value, self._source, mark.line + 1, mark.column + 1, key_line, key_column, text)
        if anchor is not None:
            self._anchors[anchor] = node, self._count - before + 1
        return node

    def _collection(self, event: Any) -> list[Node] | dict[str, Node]:
        if self._depth >= MAX_DEPTH:
            raise self._stop(f"too deep: more than {MAX_DEPTH} levels", event.start_mark)
        kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
        if event.tag is not None and event.tag not in {"!", _TAG + kind}:
            self._complain(_tag_message(event.tag), event.start_mark)
        self._depth += 1
        value = self._list() if kind == "seq" else self._mapping()
        self._depth -= 1
        return value

    def _list(self) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            self._path.append(str(len(items)))
            items.append(self._node(event))
            self._path.pop()
        return items

    def _mapping(self) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: list[Node] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            mark = event.start_mark
            key = str(event.value) if type(event) is yaml.ScalarEvent else self._odd_key(event)
            self._path.append(key or "")
            node = self._node(self._next(), mark)
            if key == "<<" and getattr(event, "implicit", (False,))[0]:
                merged += self._merged(node, mark)
            elif key in own:
                self._complain(f"duplicate key; it is already in line {own[key].key_line}", mark)
            elif key is not None:
                own[key] = node
            self._path.pop()
        for node in merged:
            own = {**node.mapping, **own}
        return own

    def _odd_key(self, event: Any) -> str | None:
        """The text of an alias as a key; None (and a problem) if the key is no plain text."""
        node = self._node(event)
        if isinstance(event, yaml.AliasEvent) and node.scalar:
            return node.text
        self._complain("a key must be one word of text, not a list or mapping", event.start_mark)
        return None

    def _merged(self, node: Node, mark: Any) -> list[Node]:
        """What `<<` brings in, strongest first."""
        nodes = node.items if isinstance(node.value, list) else [node]
        if all(isinstance(one.value, dict) for one in nodes):
            return nodes
        self._complain("`<<` takes a mapping or a list of mappings, for example <<: *base", mark)
        return []

    def _alias(self, event: Any) -> Node:
        name, mark = event.anchor, event.start_mark
        if name not in self._anchors:
            raise self._stop(f"*{name} refers to nothing; there is no &{name} above", mark)
        anchored = self._anchors[name]
        if anchored is None:
            raise self._stop(f"*{name} stands inside &{name} itself", mark)
        node, size = anchored
        self._count += size - 1
        if self._count > MAX_NODES:
            raise self._stop(f"too large: *{name} makes it more than {MAX_NODES} values", mark)
        if self._depth + _depth(node) > MAX_DEPTH:
            raise self._stop(f"too deep: more than {MAX_DEPTH} levels", mark)
        return node

    def _tagged_scalar(self, event: Any) -> Scalar:
        """The value of a quoted or tagged scalar."""
        if event.tag is None or event.tag == "!":
            return str(event.value)
        kind = event.tag.removeprefix(_TAG)
        value = resolve_scalar(event.value)
        if kind == "str":
            return str(event.value)
        types = {"int": int, "float": int | float, "bool": bool, "null": type(None)}
        if kind not in types:
            self._complain(_tag_message(event.tag), event.start_mark)
        elif not isinstance(value, types[kind]):
            self._complain(f"!!{kind} does not fit this value", event.start_mark)
        return float(value) if kind == "float" and isinstance(value, int) else value

    def _complain(self, message: str, mark: Any) -> None:
        where = (self._source.label, mark.line + 1, mark.column + 1)
        self.problems.append(ConfigProblem(message, *where, ".".join(self._path)))
        if len(self.problems) >= MAX_PROBLEMS:
            raise self._stop(f"too many faults; {MAX_PROBLEMS} up to here", mark)

    def _stop(self, message: str, mark: Any) -> _StopError:
        return _StopError(message, self._source, mark.line + 1, mark.column + 1)

    def _syntax(self, error: yaml.MarkedYAMLError) -> _StopError:
        mark = error.problem_mark or error.context_mark
        if mark and "nesting depth" in str(error.problem):  # libyaml 0.2.6 has a limit too, and reads ahead
            return self._stop(f"too deep: more than {MAX_DEPTH} levels", mark)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        rows = self._text.splitlines()
        if line > len(rows) > 0:  # what is missing at the end is told at the end
            line, column = len(rows), len(rows[-1]) + 1
        return _StopError(_syntax_message(error, self._text, line, column), self._source, line, column)


def _depth(node: Node) -> int:
    """Levels below a node. Bounded: no anchored node is deeper than MAX_DEPTH, and its size was counted."""
    value = node.value
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _tag_message(tag: str) -> str:
    name = tag.replace(_TAG, "!!")
    return f"the tag {shorten(name)} is not supported; write plain values"


def _syntax_message(error: yaml.MarkedYAMLError, text: str, line: int, column: int) -> str:
    message = f"not valid YAML: {error.problem or error.context}"
    rows = text.splitlines()
    row = rows[line - 1] if line <= len(rows) else ""
    if row[column - 1 : column] == "\t":
        return message.replace("character ", "a tab ", 1) + "; indent with spaces"
    if error.context and error.context_mark and error.context_mark.line + 1 < line:
        message += f" ({error.context} that starts in line {error.context_mark.line + 1})"
    if "${" in row[: column + 1]:
        return message + "; inside {} and [] put a text with ${...} in quotes"
    if row[column - 1 : column] in {"@", "`", "%", "{", "}", "[", "]", "*", "&", ":"}:
        message += "; put the value in quotes if it is text"
    return message


def _check_characters(text: str, source: Source) -> None:
    """Raise _StopError at the first character that no YAML may hold."""
    if len(text) > MAX_BYTES:
        size = f"{len(text) / MAX_BYTES:.1f}"
        raise _StopError(f"too large: {size} MiB, a configuration may have 1", source, 1, 1)
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        before = text[: bad.start()]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        code = f"U+{ord(bad[0]):04X}"
        raise _StopError(f"not valid YAML: it holds the unprintable character {code}", source, line, column)
