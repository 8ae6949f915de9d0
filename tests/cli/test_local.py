"""Commands that need no daemon: check, plan on an empty box, schema, and starting one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Stoker

GOOD = "services:\n  web: {command: sleep 60}\n  more: {command: sleep 60, scaling: {max_replicas: 3}}\n"
BAD = "services:\n  web:\n    comand: sleep 60\n    scaling: {min_replicas: 5, max_replicas: 2}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_of_a_good_file(stoker: Stoker, folder: Path) -> None:
    (folder / "stoker.yaml").write_text(GOOD)
    assert stoker("check").out == "ok: 2 services in 1 deployment\n"
    document = json.loads(stoker("check", "-o", "json").out)
    assert (document["ok"], document["services"], document["errors"]) == (True, 2, [])


def test_check_tells_every_fault_with_its_place(stoker: Stoker, folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)
    result = stoker("check", "bad.yaml")
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert any(line.startswith("bad.yaml:3:5: services.web") for line in lines)
    assert any("min_replicas" in line for line in lines)
    document = json.loads(stoker("check", "bad.yaml", "-o", "json").out)
    assert not document["ok"]
    assert (3, 5) in {(error["line"], error["column"]) for error in document["errors"]}


def test_check_takes_set_into_account(stoker: Stoker, folder: Path) -> None:
    (folder / "stoker.yaml").write_text(GOOD)
    assert stoker("check", "--set", "services.web.scaling.max_replicas=2").code == 0
    assert stoker("check", "--set", "services.web.scaling.max_replica=2").code == 2


@pytest.mark.parametrize("command", ["check", "up", "plan"])
def test_no_file_is_said_in_one_line(stoker: Stoker, folder: Path, command: str) -> None:
    result = stoker(command)
    assert result.code == (1 if command == "plan" else 2)
    assert "stoker.yaml" in result.err
    assert len(result.err.splitlines()) == 1


def test_plan_without_a_daemon_is_against_nothing(stoker: Stoker, folder: Path) -> None:
    (folder / "stoker.yaml").write_text(GOOD)
    result = stoker("plan")
    assert result.code == 2
    assert "+ stoker/web: new, 1 replica" in result.out
    document = json.loads(stoker("plan", "-o", "json").out)
    assert {service["change"] for service in document["services"]} == {"add"}


def test_plan_of_a_bad_file_without_a_daemon(stoker: Stoker, folder: Path) -> None:
    (folder / "stoker.yaml").write_text(BAD)
    assert stoker("plan").code == 1


def test_schema_is_a_json_schema(stoker: Stoker) -> None:
    document = json.loads(stoker("schema").out)
    assert "services" in document["properties"]


def test_plugins_without_a_daemon_are_those_that_are_installed(stoker: Stoker) -> None:
    document = json.loads(stoker("plugins", "-o", "json").out)
    assert "process" in {plugin["name"] for plugin in document["plugins"]}


def test_a_daemon_without_its_directory(stoker: Stoker, folder: Path) -> None:
    result = stoker("daemon", "--config", str(folder / "nowhere"))
    assert result.code == 2
    assert "nowhere" in result.err
