"""What is installed is what is here: packages, entry points, commands, and a reason for every dependency."""

import importlib
import re

import pytest

from architecture.source import ROOT, project

PYPROJECT = (ROOT / "pyproject.toml").read_text()
PLUGINS = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))
ENTRY_POINTS = project()["project"]["entry-points"]["stoker"]


def test_every_plugin_is_in_the_wheel() -> None:
    wheel = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(wheel) == sorted(["daemon/stoker", *(f"plugins/{name}" for name in PLUGINS)])


def test_every_plugin_has_its_entry_point() -> None:
    assert sorted(ENTRY_POINTS.values()) == [f"{name}.plugin" for name in PLUGINS]
    assert {name: f"stoker_{name}.plugin" for name in ENTRY_POINTS} == ENTRY_POINTS


@pytest.mark.parametrize("module", sorted(ENTRY_POINTS.values()))
def test_every_plugin_declares_something(module: str) -> None:
    assert [name for name in vars(importlib.import_module(module)) if name.startswith("stoker_")]


def test_every_package_is_type_checked() -> None:
    assert sorted(project()["tool"]["mypy"]["packages"]) == ["stoker", *PLUGINS]
    assert project()["tool"]["mypy"]["strict"] is True


def test_the_daemon_directory_is_no_package() -> None:
    assert not (ROOT / "daemon/__init__.py").exists()
    assert not (ROOT / "plugins/__init__.py").exists()


def test_every_dependency_says_why() -> None:
    """One requirement a line, its reason behind it."""
    tables = re.findall(r"^(?:dependencies|\w+) = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    declared = [*project()["project"]["dependencies"]]
    for extra in project()["project"]["optional-dependencies"].values():
        declared += extra
    lines = [line.strip() for table in tables for line in table.splitlines()]
    for requirement in declared:
        mine = [line for line in lines if line.startswith(f'"{requirement}"')]
        assert mine, f"{requirement} does not stand on a line of its own"
        assert re.search(r"# \S+ \S+", mine[0]), f"{requirement} does not say why it is needed"


def test_the_licence_is_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert project()["project"]["license"] == "Apache-2.0"
