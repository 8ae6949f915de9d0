"""Files of variables, as `docker compose` and shells read them, to nodes with places. Pure.

One `NAME=VALUE` a line, `export` in front allowed, `#` begins a comment at the beginning of a line or after
a blank. In double quotes a value may go over several lines, `\\n \\t \\" \\\\ \\$` mean what they mean
elsewhere; single quotes keep everything as it is. `${VAR}` is filled like in the deployment file, except
in single quotes.
"""

from __future__ import annotations

import re

from stoker.config.tree import Node, Source, shorten
from stoker.errors import ConfigProblem

MAX_PROBLEMS = 20
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
_EMPTY = re.compile(r"[ \t]*(?:#[^\n]*)?(?=\n|\Z)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'")
_BARE = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_MEANING = {"n": "\n", "r": "\r", "t": "\t", "$": "$$", "\n": ""}


def parse_env_file(text: str, source: Source) -> tuple[dict[str, Node], list[ConfigProblem]]:
    """Return the variables and all that is wrong. Of a name that stands twice the later value counts."""
    text = text.replace("\r\n", "\n")
    found: dict[str, Node] = {}
    problems: list[ConfigProblem] = []
    at, line = 0, 1
    while at < len(text) and len(problems) < MAX_PROBLEMS:
        end = _EMPTY.match(text, at)
        if end is None:
            start = text.rfind("\n", 0, at) + 1
            name = _NAME.match(text, at)
            value, stop, fault = _value(text, name.end()) if name else ("", at, _no_name(text, at))
            column = (name.end() if name else at) - start + 1
            if fault:
                problems.append(ConfigProblem(fault, source.label, line, column, name[1] if name else ""))
                stop = _end_of_line(text, at)
            elif name is not None:
                found.pop(name[1], None)
                found[name[1]] = Node(value, source, line, column, line, name.start(1) - start + 1, value)
        else:
            stop = end.end()
        line += text.count("\n", at, stop + 1)
        at = stop + 1
    return found, problems


def _value(text: str, at: int) -> tuple[str, int, str]:
    """The value that begins there, where its line ends, and what is wrong with it."""
    quote = text[at : at + 1]
    if quote not in ('"', "'"):
        bare = _BARE.match(text, at)
        end = bare.end() if bare else at
        value = _COMMENT.sub("", text[at:end]).strip()
        return value, end, "must not hold a NUL character" if "\0" in value else ""
    match = (_DOUBLE if quote == '"' else _SINGLE).match(text, at)
    if match is None:
        return "", at, f"the quote {quote} that begins here is not closed"
    rest = _EMPTY.match(text, match.end())
    if rest is None:
        return "", at, "something follows the closing quote; put all of the value in quotes"
    if "\0" in match[1]:
        return "", at, "must not hold a NUL character"
    value = _ESCAPE.sub(_unescaped, match[1]) if quote == '"' else match[1].replace("$", "$$")
    return value, rest.end(), ""


def _unescaped(match: re.Match[str]) -> str:
    known = match[1] in _MEANING or match[1] in ('"', "\\")
    return _MEANING.get(match[1], match[1]) if known else match[0]


def _no_name(text: str, at: int) -> str:
    row = text[at : _end_of_line(text, at)].strip()
    word = row.removeprefix("export ").strip()
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", word):
        return f"{word} has no value; write {word}=VALUE, or list it in `inherit_env`"
    name = shorten(row.partition("=")[0]) if "=" in row else ""  # never the value: it may be a password
    return f"must be NAME=VALUE, for example LOG_LEVEL=info{f'; found the name {name}' if name else ''}"


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
