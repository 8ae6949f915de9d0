"""`stoker config` and `stoker instance-types`: of the daemon, and of files without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.fakes import Served
from cli.conftest import Stoker

FILE = """\
instance_types: {cpu.huge: {cpu: 100000}, share: {gpu: 0.5}}
services:
  web: {command: sleep 60, scaling: {max_replicas: 3}, secrets: [hf-token]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stoker.yaml").write_text(FILE)
    return tmp_path


def rows(stoker: Stoker, *args: str) -> dict[str, dict[str, object]]:
    result = stoker("instance-types", "-o", "json", *args)
    assert result.code == 0
    return {row["name"]: row for row in json.loads(result.out)["instance_types"]}


def test_config_of_the_file_beside_us(stoker: Stoker, folder: Path) -> None:
    result = stoker("config")
    assert result.code == 0
    assert result.out.splitlines()[:2] == ["# stoker: stoker.yaml", "name: stoker"]
    assert "      max_replicas: 3\n" in result.out
    (folder / "again.yaml").write_text(result.out)
    assert stoker("check", "again.yaml").code == 0


def test_config_says_where_each_value_comes_from(stoker: Stoker, folder: Path) -> None:
    out = stoker("config", "--sources", "--set", "services.web.priority=7", "stoker.yaml").out
    assert "max_replicas: 3  # file stoker.yaml:3:38" in out
    assert "priority: 7  # --set services.web.priority" in out
    document = json.loads(stoker("config", "--sources", "-o", "json").out)["deployments"][0]
    assert document["sources"]["services.web.scaling.max_replicas"]["source"] == "stoker.yaml:3:38"
    assert "sources" not in json.loads(stoker("config", "-o", "json").out)["deployments"][0]


def test_config_of_a_bad_file(stoker: Stoker, folder: Path) -> None:
    (folder / "bad.yaml").write_text("services: {web: {comand: x}}")
    result = stoker("config", "bad.yaml")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("bad.yaml:1:18: services.web.comand: unknown key")


def test_config_of_the_daemon(stoker: Stoker, live: Served) -> None:
    out = stoker("config", "--sources").out
    assert "# rag: /etc/stoker/rag.yaml" in out
    assert "max_replicas: 8  # override services.infer" in out
    assert 'A: "$$$${B}"' in out
    assert 'N: "1"  # file /etc/stoker/rag.yaml:9:7' in out


def test_instance_types_without_a_daemon(stoker: Stoker, folder: Path) -> None:
    found = rows(stoker)
    assert found["cpu.1"]["from"] == "built-in"
    assert found["cpu.huge"]["from"] == "stoker"
    assert not found["cpu.huge"]["fits"]
    assert str(found["cpu.huge"]["reason"]).startswith("needs 100000 cores; the box has ")


def test_instance_types_against_the_devices_of_the_daemon(stoker: Stoker, live: Served) -> None:
    found = rows(stoker)
    assert found["gpu.any"]["fits"]
    assert (found["gpu.big"]["from"], found["gpu.big"]["fits"]) == ("rag", False)
    assert "quarantined" in str(found["gpu.big"]["reason"]) or "type h100" in str(found["gpu.big"]["reason"])
    text = stoker("instance-types").out
    assert "WHY NOT" in text
    assert "fit this box" in text


def test_instance_types_where_there_is_no_file_either(stoker: Stoker, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert {row["from"] for row in rows(stoker).values()} == {"built-in"}


def test_a_box_without_a_gpu_is_told_once(stoker: Stoker, folder: Path) -> None:
    if any(each["fits"] for each in rows(stoker).values() if each["gpu"]):
        pytest.skip("this box has a GPU")
    out = stoker("instance-types").out
    assert out.count("no GPU here: ") == 1
    assert "no GPU" in next(line for line in out.splitlines() if line.startswith("gpu.l4 "))
