"""Layers, lowest first: defaults < code < file < drop-ins < profile < environment < --set < overrides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from config.conftest import Box
from stoker.model.service import Command, PythonTarget, ServiceSpec

FILE = "name: app\nservices:\n  web:\n    python: app:app\n"
PATH = "services.web.priority"


class Stack:
    """Every layer gives the service's priority its own number, the given ones only."""

    NAMES = ("code", "file", "drop-in", "profile", "environment", "set", "override")

    def __init__(self, box: Box) -> None:
        self.box = box
        self.apply: dict[str, Callable[[int], dict[str, Any]]] = {
            "code": self._code,
            "file": lambda value: self._written("stoker.yaml", f"{FILE}    priority: {value}\n"),
            "drop-in": lambda value: self._written("conf.d/10.yaml", _priority(value)),
            "profile": lambda value: self._written("stoker.big.yaml", _priority(value), profile="big"),
            "environment": lambda value: {"environ": {"STOKER__SERVICES__WEB__PRIORITY": str(value)}},
            "set": lambda value: {"sets": (f"{PATH}={value}",)},
            "override": lambda value: {"overrides": {PATH: value}},
        }

    def priority(self, **layers: int) -> int:
        self.box.write("stoker.yaml", FILE)
        self._code(None)
        arguments: dict[str, Any] = {}
        for name, value in layers.items():
            arguments |= self.apply[name.replace("_", "-")](value)
        return self.box.load(**arguments).desired.services["app/web"].priority

    def _code(self, value: int | None) -> dict[str, Any]:
        keys = "" if value is None else f"priority={value}"
        text = f"from stoker import service\n@service({keys})\nasync def app(scope, receive, send): ...\n"
        return self._written("app.py", text)

    def _written(self, name: str, text: str, **arguments: Any) -> dict[str, Any]:
        self.box.write(name, text)
        return arguments


def _priority(value: int) -> str:
    return f"services:\n  web:\n    priority: {value}\n"


@pytest.mark.parametrize(("lower", "upper"), list(zip(Stack.NAMES, Stack.NAMES[1:], strict=False)))
def test_the_upper_of_two_neighbours_wins(box: Box, lower: str, upper: str) -> None:
    layers = {lower.replace("-", "_"): 1, upper.replace("-", "_"): 2}
    assert Stack(box).priority(**layers) == 2


def test_code_beats_the_built_in_default_and_override_beats_all(box: Box) -> None:
    stack = Stack(box)
    assert stack.priority() == 0
    assert stack.priority(code=7) == 7
    everything = {name.replace("-", "_"): number for number, name in enumerate(stack.NAMES, 1)}
    assert stack.priority(**everything) == 7


def test_later_drop_ins_win_and_mappings_merge_deeply(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: run, traffic: {concurrency: 1, timeout: 5}}}")
    box.write("conf.d/10-a.yaml", "services: {web: {traffic: {concurrency: 2, max_queue: 7}}}")
    box.write("conf.d/20-b.yml", "services: {web: {traffic: {concurrency: 3}}}")
    box.write("conf.d/.hidden.yaml", "services: {web: {traffic: {concurrency: 99}}}")
    box.write("conf.d/notes.txt", "not: [yaml")
    traffic = box.load().desired.services["stoker/web"].traffic
    assert (traffic.concurrency, traffic.max_queue, traffic.timeout) == (3, 7, 5.0)


def test_lists_replace(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: [run, a, b], inherit_env: [A, B]}}")
    box.write("conf.d/a.yaml", "services: {web: {command: [go], inherit_env: [C]}}")
    spec = box.load().desired.services["stoker/web"]
    assert spec.launch == Command(("go",))
    assert spec.inherit_env == ("C",)


def test_null_leaves_what_is_under_it(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: run, priority: 5, scaling: {max_replicas: 3}}}")
    box.write("conf.d/a.yaml", "services: {web: {priority: 6, scaling: {max_replicas: 4}}}")
    nulls = {"sets": ("services.web.priority=null",), "overrides": {"services.web.scaling": None}}
    spec = box.load(**nulls).desired.services["stoker/web"]
    assert (spec.priority, spec.scaling.max_replicas) == (6, 4)
    box.write("stoker.yaml", "services: {web: {command: run, priority: null, scaling: }}")
    box.write("conf.d/a.yaml", "")
    spec = box.load().desired.services["stoker/web"]
    assert (spec.priority, spec.scaling.max_replicas) == (0, 1)


def test_null_in_the_file_uncovers_the_code(box: Box) -> None:
    stack = Stack(box)
    stack.priority(code=4)
    box.write("stoker.yaml", FILE + "    priority: ~\n")
    assert box.load().desired.services["app/web"].priority == 4


ENVS = """\
envs: {A: file-all, B: file-all, C: file-all}
services:
  web: {command: run, envs: [{name: B, value: file-own}, {name: C, value: file-own}]}
"""


def test_own_variables_beat_general_ones_within_a_layer_and_layers_beat_both(box: Box) -> None:
    box.write("stoker.yaml", ENVS)
    box.write(
        "conf.d/a.yaml", "envs: {C: drop-in-all, D: drop-in-all}\nservices: {web: {envs: {E: drop-in-own}}}"
    )
    assert dict(box.load().desired.services["stoker/web"].envs) == {
        "A": "file-all",
        "B": "file-own",
        "C": "drop-in-all",
        "D": "drop-in-all",
        "E": "drop-in-own",
    }


def test_environment_reaches_variables_by_name(box: Box) -> None:
    box.write("stoker.yaml", ENVS)
    environ = {
        "STOKER__ENVS__A": "general",
        "STOKER__SERVICES__WEB__ENVS__New__Name": "own",
        "STOKER__SERVICES__WEB__ENVS__B": "",
        "STOKER_STATE_DIR": "no config",
    }
    envs = dict(box.load(environ=environ).desired.services["stoker/web"].envs)
    assert (envs["A"], envs["B"], envs["New__Name"]) == ("general", "", "own")


def test_variables_are_kept_as_they_were_written(web: Callable[..., ServiceSpec]) -> None:
    spec = web("envs: {VERSION: 1.10, DEBUG: true, N: 007, EMPTY: '', S: 'a b', GONE: null}")
    assert dict(spec.envs) == {"VERSION": "1.10", "DEBUG": "true", "N": "007", "EMPTY": "", "S": "a b"}


@pytest.mark.parametrize(
    "variable",
    [
        "STOKER__SERVICES__BIG_MODEL__SCALING__MAX_REPLICAS",
        "stoker__services__big_model__scaling__max_replicas",
        "STOKER__SERVICES__Big-Model__SCALING__MAX_REPLICAS",
    ],
)
def test_names_of_services_in_variables(box: Box, variable: str) -> None:
    box.write("stoker.yaml", "services: {big-model: {command: run}, big: {command: run}}")
    services = box.load(environ={variable: "4"}).desired.services
    assert services["stoker/big-model"].scaling.max_replicas == 4
    assert services["stoker/big"].scaling.max_replicas == 1


def test_values_of_assignments_are_scalars_or_flow(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: run}}")
    spec = box.load(
        environ={"STOKER__SERVICES__WEB__TRAFFIC": "{concurrency: 2, timeout: 5s}"},
        sets=(
            "services.web.command=[run, '{port}']",
            "services.web.envs.TEXT=a: b, [c",
            "services.web.envs.EQUALS=a=b",
            'services.web.envs.QUOTED="12"',
            "services.web.scaling.max_replicas=0x10",
        ),
    ).desired.services["stoker/web"]
    assert spec.launch == Command(("run", "{port}"))
    assert (spec.traffic.concurrency, spec.traffic.timeout, spec.scaling.max_replicas) == (2, 5.0, 16)
    assert dict(spec.envs) == {"TEXT": "a: b, [c", "EQUALS": "a=b", "QUOTED": "12"}


def test_assignments_reach_one_deployment_or_all(box: Box) -> None:
    box.write("a.yaml", "services: {web: {command: run}}")
    box.write("b.yaml", "services: {web: {command: run}, other: {command: run}}")
    services = box.load(
        "a.yaml",
        "b.yaml",
        sets=("services.web.priority=1", "services.other.priority=3"),
        overrides={"b/services.web.standby": 2},
    ).desired.services
    assert {key: (spec.priority, spec.standby) for key, spec in services.items()} == {
        "a/web": (1, 0),
        "b/web": (1, 2),
        "b/other": (3, 0),
    }


def test_an_override_of_a_service_that_is_gone_is_idle_not_wrong(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: run}}")
    config = box.load(overrides={"services.gone.priority": 1, "services.web.priority": 2})
    assert config.desired.services["stoker/web"].priority == 2
    assert config.idle_overrides == ("services.gone.priority",)
    assert config.notices == ("override services.gone.priority has no effect: its service does not exist",)


def test_a_higher_layer_may_choose_another_way_to_run(box: Box) -> None:
    box.write("app.py", "app = None\n")
    box.write("stoker.yaml", "services: {web: {command: run}}")
    box.write("conf.d/a.yaml", "services: {web: {python: app:app}}")
    assert box.load().desired.services["stoker/web"].launch == PythonTarget("app:app")


def test_a_higher_layer_may_choose_another_probe(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: run, probes: {startup: {http: /a, timeout: 9s}}}}")
    box.write("conf.d/a.yaml", "services: {web: {probes: {startup: {notify: true}}}}")
    probes = box.load().desired.services["stoker/web"].probes
    assert probes.startup is not None
    assert (probes.startup.http, probes.startup.notify, probes.startup_timeout) == (None, True, 9.0)


def test_a_target_does_not_outlive_its_metric(box: Box) -> None:
    box.write("stoker.yaml", "services: {web: {command: run, scaling: {policy: {target: 4}}}}")
    box.write("conf.d/a.yaml", "services: {web: {scaling: {policy: {scale_down_stabilization_window: 9}}}}")
    (policy,) = box.load().desired.services["stoker/web"].scaling.policies
    assert (policy.target, policy.scale_down_stabilization_window) == (4.0, 9.0)
    box.write("conf.d/a.yaml", "services: {web: {scaling: {policy: {metric: utilization}}}}")
    (policy,) = box.load().desired.services["stoker/web"].scaling.policies
    assert (policy.metric, policy.target) == ("utilization", None)
