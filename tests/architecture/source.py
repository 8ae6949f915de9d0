"""The project's own source, parsed once, for the tests that watch over its shape."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One file: its name as imported, its path from the root, its text and its tree."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@cache
def modules() -> tuple[Module, ...]:
    """All modules that are shipped."""
    found = [_module(path, base) for base in ("daemon", "plugins") for path in _python(base)]
    assert len(found) > 50, "the source was not found"
    return tuple(found)


@cache
def modules_of_tests() -> tuple[Module, ...]:
    """All modules of the tests."""
    return tuple(_module(path, "tests") for path in _python("tests"))


@cache
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the repository, from its root; outside a clone every file that is not hidden."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return tuple(str(path) for path in files if not any(part.startswith((".", "__")) for part in path.parts))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, FUNCTION))


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    """Every class."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def length(node: ast.stmt) -> int:
    """Lines without the docstring."""
    assert node.end_lineno is not None
    whole = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:  # type: ignore[arg-type]
        return whole
    first = node.body[0]  # type: ignore[attr-defined]
    return whole - (first.end_lineno - first.lineno + 1)


def _python(base: str) -> list[Path]:
    return sorted(path for path in (ROOT / base).rglob("*.py") if "build" not in path.parts)


def _module(path: Path, base: str) -> Module:
    parts = path.relative_to(ROOT / base).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    text = path.read_text()
    return Module(name, str(path.relative_to(ROOT)), text, ast.parse(text))
