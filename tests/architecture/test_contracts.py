"""The floors of the house: the import contracts of pyproject.toml hold, and cover every package."""

import subprocess
import sys
from pathlib import Path

from architecture.source import ROOT, project

PLUGINS = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))
CONTRACTS = {contract["name"]: contract for contract in project()["tool"]["importlinter"]["contracts"]}


def test_import_contracts_hold(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--cache-dir", tmp_path]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in checked.stdout


def test_contracts_know_every_package() -> None:
    assert sorted(project()["tool"]["importlinter"]["root_packages"]) == ["stoker", *PLUGINS]
    assert sorted(CONTRACTS["The daemon names no plugin"]["forbidden_modules"]) == PLUGINS
    assert sorted(CONTRACTS["Plugins are strangers to each other"]["modules"]) == PLUGINS
    seen = CONTRACTS["Plugins see the model, the door and the errors, nothing else"]
    assert sorted(seen["source_modules"]) == PLUGINS


def test_every_floor_is_in_the_contract() -> None:
    (floors_contract,) = (c for name, c in CONTRACTS.items() if name.startswith("Floors: "))
    named = " | ".join(floors_contract["layers"])
    floors = {path.parent.name for path in (ROOT / "daemon/stoker").glob("*/__init__.py")}
    assert floors == {layer.removeprefix("stoker.") for layer in named.split(" | ")} - {"errors"}


def test_plugins_import_only_the_three_things_they_may() -> None:
    """Stricter than the contract's list of what is forbidden: a new floor would be missing from that."""
    code = CONTRACTS["Plugins see the model, the door and the errors, nothing else"]
    floors = {path.parent.name for path in (ROOT / "daemon/stoker").glob("*/__init__.py")}
    assert {f"stoker.{floor}" for floor in floors - {"model", "plugin"}} == set(code["forbidden_modules"])
