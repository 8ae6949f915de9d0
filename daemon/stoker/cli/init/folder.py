"""Looks at a folder for what can be taken over; reads files, runs none."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stoker.cli.init import code, compose, ini, procfile
from stoker.cli.init.draft import Draft
from stoker.errors import StokerError

COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
SUPERVISORD = ("supervisord.conf", "supervisor.conf", "supervisord.ini")
CIRCUS = ("circus.ini", "circusd.ini")
MODULES = ("service", "main", "app", "server", "api", "asgi")
"""Where an application is looked for first; then in every other module of the folder."""
LARGEST = 1_000_000


def look(folder: Path) -> Draft:
    """The first kind of project that is found: a bento, compose, supervisord, circus, a Procfile, an ASGI
    application; else an example. Raises StokerError for a file that cannot be read."""
    for kind in (_bento, _compose, _ini_files, _procfile, _applications):
        draft = kind(folder)
        if draft is not None and (draft.services or draft.top):
            return draft
    return code.example_draft()


def _bento(folder: Path) -> Draft | None:
    for name in ("bentofile.yaml", "bentofile.yml"):
        if target := _declared(_yaml(folder / name)):
            return code.bento_draft(target, name)
    if text := _read(folder / "pyproject.toml"):
        try:
            tool = tomllib.loads(text).get("tool", {})
        except tomllib.TOMLDecodeError:
            tool = {}
        if target := _declared(tool.get("bentoml", {}).get("build", tool.get("bentoml", {}))):
            return code.bento_draft(target, "pyproject.toml")
    for module, text in _modules(folder):
        if "bentoml" in text and (target := code.bento(text, module)):
            return code.bento_draft(target, f"{module}.py")
    return None


def _declared(values: Any) -> str | None:
    target = values.get("service") if isinstance(values, Mapping) else None
    return target if isinstance(target, str) and ":" in target else None


def _compose(folder: Path) -> Draft | None:
    for name in COMPOSE:
        document = _yaml(folder / name)
        if isinstance(document, Mapping):
            return compose.draft_of(document, name)
    return None


def _ini_files(folder: Path) -> Draft | None:
    kinds: tuple[tuple[tuple[str, ...], Callable[[str, str], Draft]], ...] = (
        (SUPERVISORD, ini.supervisord),
        (CIRCUS, ini.circus),
    )
    for names, read in kinds:
        for name in names:
            if text := _read(folder / name):
                try:
                    return read(text, name)
                except Exception as error:
                    raise StokerError(f"{name} cannot be read: {error}") from error
    return None


def _procfile(folder: Path) -> Draft | None:
    text = _read(folder / "Procfile")
    return procfile.draft_of(text) if text else None


def _applications(folder: Path) -> Draft | None:
    found: dict[str, str] = {}
    for module, text in _modules(folder):
        if target := code.application(text, module):
            found[module] = target
    return code.applications_draft(found, ", ".join(f"{name}.py" for name in found)) if found else None


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    names = [path.stem for path in sorted(folder.glob("*.py")) if path.stem.isidentifier()]
    first = [name for name in MODULES if name in names]
    for name in [*first, *(name for name in names if name not in first and not name.startswith("test"))]:
        if text := _read(folder / f"{name}.py"):
            yield name, text


def _yaml(path: Path) -> Any:
    import yaml

    text = _read(path)
    try:
        return yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise StokerError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from error


def _read(path: Path) -> str:
    """The text of a file that is there and no monster, else nothing."""
    try:
        return path.read_text(errors="replace") if path.stat().st_size <= LARGEST else ""
    except OSError:
        return ""
