"""Why a value is what it is."""

from __future__ import annotations

import json

import pytest

from config.conftest import Box
from stoker.config.explain import explain
from stoker.config.load import EffectiveConfig
from stoker.errors import NotFoundError

FILE = """\
envs: {LEVEL: info, ONLY: here}
instance_types: {gpu.big: {gpu: 2, memory: 64Gi}}
services:
  infer:
    command: [run, "{port}"]
    instance_type: gpu.big
    scaling:
      min_replicas: 2
      policy: {target: 4}
    envs: {LEVEL: debug}
    standby: ${STANDBY:-1}
"""


@pytest.fixture
def config(box: Box) -> EffectiveConfig:
    box.write("rag.yaml", FILE)
    box.write("conf.d/10.yaml", "services: {infer: {priority: 5, traffic: {timeout: 9}}}")
    return box.load(
        "rag.yaml",
        environ={"STOKER__SERVICES__INFER__PRIORITY": "6"},
        sets=("services.infer.priority=7",),
        overrides={"services.infer.priority": 8},
    )


def rows(config: EffectiveConfig, path: str) -> list[tuple[str, str, object, bool]]:
    found = explain(config, path)
    json.dumps(found)
    return [(row["layer"], row["source"], row["value"], row["wins"]) for row in found["layers"]]


def test_every_layer_highest_first(config: EffectiveConfig) -> None:
    assert rows(config, "services.infer.priority") == [
        ("override", "override services.infer.priority", 8, True),
        ("set", "--set services.infer.priority", 7, False),
        ("environment", "STOKER__SERVICES__INFER__PRIORITY", 6, False),
        ("drop-in", "conf.d/10.yaml:1:20", 5, False),
        ("built-in default", "built-in default", 0, False),
    ]
    assert explain(config, "services.infer.priority")["value"] == 8


def test_the_default_wins_where_nobody_speaks(config: EffectiveConfig) -> None:
    assert rows(config, "services.infer.traffic.max_queue") == [
        ("built-in default", "built-in default", 1000, True)
    ]
    assert explain(config, "services.infer.user") == {
        "path": "services.infer.user",
        "value": None,
        "layers": [{"layer": "built-in default", "source": "built-in default", "value": None, "wins": True}],
    }


def test_a_variable_given_for_all_lies_under_the_services_own(config: EffectiveConfig) -> None:
    assert rows(config, "services.infer.envs.LEVEL") == [
        ("file", "rag.yaml:10:12", "debug", True),
        ("file", "rag.yaml:1:8", "info", False),
        ("built-in default", "built-in default", None, False),
    ]
    assert rows(config, "services.infer.envs.ONLY")[0] == ("file", "rag.yaml:1:21", "here", True)
    assert explain(config, "services.infer.envs")["value"] == {"LEVEL": "debug", "ONLY": "here"}


def test_values_that_follow_from_others(config: EffectiveConfig) -> None:
    assert rows(config, "services.infer.scaling.max_replicas")[0] == ("derived", "min_replicas", 2, True)
    assert rows(config, "services.infer.resources.gpu")[0] == (
        "instance type", "instance type gpu.big", 2.0, True,
    )  # fmt: skip
    assert rows(config, "name")[0] == ("derived", "the file's own name", "rag", True)
    assert rows(config, "instance_types.gpu.big.memory")[0] == ("file", "rag.yaml:2:36", "64Gi", True)
    assert explain(config, "instance_types.gpu.h100")["value"] == {"gpu": 1.0, "gpu_type": "h100"}


def test_a_probe_that_nobody_asked_for_is_nothing(config: EffectiveConfig) -> None:
    assert explain(config, "services.infer.probes.readiness")["value"] is None
    assert explain(config, "services.infer.scaling.policy.metric")["layers"][-1]["value"] == "concurrency"


def test_a_mapping_is_what_all_layers_make_of_it(config: EffectiveConfig) -> None:
    found = explain(config, "services.infer.traffic")
    assert found["value"]["timeout"] == 9
    assert found["value"]["max_queue"] == 1000
    assert [(row["layer"], row["wins"]) for row in found["layers"]] == [
        ("drop-in", True),
        ("built-in default", True),
    ]
    resources = explain(config, "services.infer.resources")["value"]
    assert resources == {**resources, "devices": [], "gpu": 2.0, "memory": 64 * 2**30}
    assert explain(config, "services.infer")["value"]["command"] == ["run", "{port}"]


def test_filled_references_show_what_they_became(config: EffectiveConfig) -> None:
    found = explain(config, "services.infer.standby")
    assert found["value"] == 1
    assert found["layers"][0]["value"] == "${STANDBY:-1}"


def test_paths_into_a_single_policy_and_lists(config: EffectiveConfig) -> None:
    assert explain(config, "rag/services.infer.scaling.policy.target")["value"] == 4
    assert explain(config, "services.infer.command.1")["value"] == "{port}"


MISSING = {
    "services.infr.priority": "there is no service infr; did you mean infer?",
    "services.infer.scalign.max": "there is no config path {}; did you mean services.infer.scaling?",
    "services.infer.envs.LEVL": "there is no config path {}; did you mean services.infer.envs.LEVEL?",
    "servces": "there is no config path {}; did you mean services?",
    "services.infer.priority.x": "there is no config path {}",
    "dag/services.infer": "there is no deployment dag; did you mean rag?",
    "a..b": '"{}" is no path; write for example services.infer.scaling.max_replicas',
    "": '"{}" is no path; write for example services.infer.scaling.max_replicas',
}


@pytest.mark.parametrize(("path", "message"), MISSING.items())
def test_unknown_paths_name_the_nearest(config: EffectiveConfig, path: str, message: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        explain(config, path)
    assert str(raised.value) == message.format(path)


def test_several_deployments(box: Box) -> None:
    box.write("a.yaml", "services: {web: {command: run}, one: {command: run}}")
    box.write("b.yaml", "services: {web: {command: go}}")
    config = box.load("a.yaml", "b.yaml")
    assert explain(config, "services.one.command")["value"] == "run"
    assert explain(config, "b/services.web.command")["value"] == "go"
    ambiguous = "several deployments have {0}; say which: a/{0}, b/{0}"
    for path, message in (
        ("services.web.command", ambiguous),
        ("box.idle", "say which deployment: a/{0}, b/{0}"),
        ("services.wob", "there is no service wob; did you mean web?"),
    ):
        with pytest.raises(NotFoundError) as raised:
            explain(config, path)
        assert str(raised.value) == message.format(path)


def test_what_another_way_to_run_replaced_does_not_win(box: Box) -> None:
    box.write("app.py", "app = None\n")
    box.write("stoker.yaml", "services: {web: {python: 'app:app'}}")
    config = box.load(sets=("services.web.command=run",))
    assert rows(config, "services.web.python") == [
        ("file", "stoker.yaml:1:18", "app:app", False),
        ("built-in default", "built-in default", None, True),
    ]


def test_a_policy_chosen_by_the_promised_wait_says_so(box: Box) -> None:
    box.write("a.yaml", "services: {web: {command: run, scaling: {max_replicas: 3}, slo: {wait: 2s}}}")
    ((layer, source, value, wins), *_) = rows(box.load("a.yaml"), "services.web.scaling.policy.metric")
    assert (layer, value, wins) == ("derived", "foresight", True)
    assert "slo.wait" in source
