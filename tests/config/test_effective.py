"""The effective file: everything that was said, once, with who said it, and readable again."""

from __future__ import annotations

from typing import Any

from config.conftest import Box
from stoker.cli.yaml_out import yaml_lines
from stoker.config.effective import effective_document
from stoker.config.load import load

FILE = """\
envs: {ALL: "1"}
instance_types: {gpu.big: {gpu: 2, memory: 64Gi}}
services:
  web:
    command: [run, --port, "{port}"]
    instance_type: gpu.big
    scaling: {max_replicas: "${MAX:-4}"}
    envs: {PRICE: "$${x}", "Y": "yes", N: 010, T: "true"}
    secrets: [hf-token]
  idle: {command: "echo 'a: b' # c", scaling: {min_replicas: 2}}
"""


def one(box: Box, name: str = "stoker.yaml", **more: Any) -> dict[str, Any]:
    (found,) = effective_document(load(box.request(name, **more)))["deployments"]
    return dict(found)


def test_all_layers_make_one_file(box: Box) -> None:
    box.write("stoker.yaml", FILE)
    found = one(box, sets=["services.web.priority=3"], environ={"MAX": "9"})
    web = found["config"]["services"]["web"]
    assert (web["scaling"], web["priority"]) == ({"max_replicas": 9}, 3)
    assert web["envs"] == {"ALL": "1", "PRICE": "${x}", "Y": "yes", "N": "010", "T": "true"}
    assert web["resources"] == {"gpu": 2.0, "memory": 64 * 2**30}
    assert found["config"]["services"]["idle"]["scaling"]["max_replicas"] == 2
    assert found["instance_types"]["gpu.big"]["gpu"] == 2.0


def test_each_value_has_a_source(box: Box) -> None:
    box.write("stoker.yaml", FILE)
    sources = one(box, sets=["services.web.priority=3"])["sources"]
    assert sources["services.web.priority"] == {"layer": "set", "source": "--set services.web.priority"}
    assert sources["services.web.scaling.max_replicas"] == {"layer": "file", "source": "stoker.yaml:7:15"}
    assert sources["services.web.resources.gpu"]["layer"] == "instance type"
    assert sources["services.idle.scaling.max_replicas"] == {"layer": "derived", "source": "min_replicas"}


def test_it_reads_again_as_the_same(box: Box) -> None:
    box.write("stoker.yaml", FILE)
    before = load(box.request())
    box.write("again.yaml", "\n".join(yaml_lines(one(box)["config"], {})) + "\n")
    assert load(box.request("again.yaml")).desired == before.desired


def test_notes_stand_behind_their_values() -> None:
    lines = yaml_lines({"a": {"b": 1, "c": {}}, "d e": [1, {"x": "y z"}]}, {("a", "b"): "here"})
    assert lines == ["a:", "  b: 1  # here", "  c: {}", '"d e": [1, {x: "y z"}]']
