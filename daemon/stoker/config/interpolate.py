"""`${VAR}` and `${VAR:-default}` in texts, filled from the operator's environment. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stoker.config.tree import Filled, Node, Path, problem_at
from stoker.errors import ConfigProblem

_REFERENCE = re.compile(r"\$\$|\$\{([^}]*)\}?")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^$]|\$[^{])*))?")


def fill(tree: Node, environ: Mapping[str, str]) -> tuple[Node, list[ConfigProblem]]:
    """Return the tree with all references filled. `$$` is a plain dollar, `$VAR` is left as it is."""
    problems: list[ConfigProblem] = []
    return _fill(tree, environ, (), problems), problems


def _fill(node: Node, environ: Mapping[str, str], path: Path, problems: list[ConfigProblem]) -> Node:
    value = node.value
    if isinstance(value, dict):
        changed: dict[str, Node] = {}
        for key, below in value.items():
            filled = _fill(below, environ, (*path, key), problems)
            if filled is not below:
                changed[key] = filled
        return node._replace(value={**value, **changed}) if changed else node
    if isinstance(value, list):
        items = [_fill(below, environ, (*path, str(i)), problems) for i, below in enumerate(value)]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return node if same else node._replace(value=items)
    if not isinstance(value, str) or "$" not in value:
        return node
    text, faults = fill_text(value, environ)
    problems += [problem_at(node, path, fault) for fault in faults]
    return node if text == value else node._replace(value=Filled(text), text=text)


def fill_text(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return `text` with its references filled, and what is wrong with them."""
    faults: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        whole = match[0]
        if whole == "$$":
            return "$"
        inside = _INSIDE.fullmatch(match[1]) if whole.endswith("}") else None
        if inside is None:
            faults.append(f"{whole} is no reference; write ${{NAME}} or ${{NAME:-default}}, $$ for a plain $")
            return whole
        name, default = inside[1], inside[2]
        if default is None and name not in environ:
            faults.append(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
            return whole
        return environ.get(name) or (default or "")

    return _REFERENCE.sub(replacement, text), faults
