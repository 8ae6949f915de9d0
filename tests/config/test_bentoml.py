"""BentoML deployment files as they stand: accepted, understood as BentoCloud documents them, and strictly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config.conftest import Box, blocks
from stoker.config.bentoml import NEVER, gpu_model
from stoker.config.changes import changed_keys
from stoker.config.explain import ASIDE, explain
from stoker.config.launch import NO_TIMEOUT
from stoker.config.load import EffectiveConfig, load
from stoker.errors import ConfigError
from stoker.model.service import BentoService, Command, PolicySpec, Resources, ServiceSpec, Update, revision

DATA = Path(__file__).parent / "data" / "bentoml"
FILES = sorted(path for path in DATA.iterdir() if path.suffix != ".md" and ".expected" not in path.name)
FORMS = sorted((DATA.parent / "forms").iterdir())
"""Written here: forms that BentoML takes, or that its own tests and answers hold."""
EXPECTED = sorted(DATA.glob("*.expected.json"))
GI = 2**30
BASES = {
    "test": "bento: abc:abc\nenvs: [{name: env_key, value: env_value}]\nservices:\n  irisclassifier:\n"
    "    scaling: {min_replicas: 3, max_replicas: 5}\n    deployment_strategy: RollingUpdate\n",
    "test-distributed": "bento: abc:abc\nenvs: [{name: env_key, value: env_value}]\nservices:\n"
    "  irisclassifier: &one\n    instance_type: t3-small\n    scaling: {min_replicas: 1, max_replicas: 1}\n"
    "    deployment_strategy: RollingUpdate\n  preprocessing: *one\n",
}
"""The deployments that BentoML's own tests update, by name."""


def checked(box: Box, *files: str, **more: Any) -> EffectiveConfig:
    return load(box.request(*files, **more), to_run=False)


def faults(box: Box, text: str, **more: Any) -> list[str]:
    box.write("b.yaml", text)
    try:
        checked(box, "b.yaml", **more)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def service(box: Box, *lines: str, **more: Any) -> ServiceSpec:
    """The spec of the service S that has these lines, from line 4 on."""
    box.write(
        "b.yaml", "\n".join(["bento: service:S", "services:", "  S:", *(f"    {line}" for line in lines)])
    )
    return checked(box, "b.yaml", **more).desired.services["b/S"]


def document_of(config: EffectiveConfig) -> dict[str, Any]:
    """The services in the shape of BentoML's own answer, as far as both speak of a thing."""
    return {
        spec.name: {
            "scaling": {
                "min_replicas": spec.scaling.min_replicas,
                "max_replicas": spec.scaling.max_replicas,
            },
            "instance_type": spec.instance_type,
            "deployment_strategy": spec.update.strategy,
            "envs": dict(spec.envs),
        }
        for spec in config.desired.services.values()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files_are_accepted(box: Box, path: Path) -> None:
    config = checked(box, str(path))
    assert len(config.layers) == 1
    assert any("not read" in notice or "names no bento" in notice for notice in config.notices)
    assert all(isinstance(spec.launch, BentoService) for spec in config.desired.services.values())


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.name)
def test_real_files_mean_what_bentoml_makes_of_them(box: Box, path: Path) -> None:
    answer = json.loads(path.read_text())
    text, expected = path.with_name(path.name.replace(".expected.json", ".yaml")).read_text(), answer["ok"]
    if answer["operation"] == "update":
        box.write("d.yaml", BASES[expected["name"]])
        box.write("d.update.yaml", text)
        config = checked(box, "d.yaml", profile="update")
    else:
        box.write("d.yaml", text)
        config = checked(box, "d.yaml")
    ours = document_of(config)
    assert ours.keys() == expected.get("services", {}).keys()
    envs = {pair["name"]: pair["value"] for pair in expected.get("envs", [])}
    for name, theirs in expected.get("services", {}).items():
        own = {pair["name"]: pair["value"] for pair in theirs.get("envs", [])}
        for key, value in {**theirs, "envs": {**envs, **own}}.items():
            assert ours[name][key] == value


def test_it_is_refused_where_it_is_to_run(box: Box) -> None:
    box.write("b.yaml", "name: x\nbento: service:Root\nservices: {Root: {}}\n")
    assert box.problems("b.yaml") == [
        "b.yaml:2:8: bento: reading a bento takes the BentoML plugin, which is not loaded"
    ]
    box.write("b.yaml", "services: {Root: {cold_start_timeout: 5}}\n")
    assert box.problems("b.yaml") == ["b.yaml:1:1: bento: this BentoML file names no bento; add `bento:`"]


def test_a_file_of_stokers_own_without_a_command_stays_a_fault(box: Box) -> None:
    box.write("s.yaml", "services: {web: {scaling: {max_replicas: 3}}}")
    assert box.problems("s.yaml") == [
        "s.yaml:1:12: services.web: has nothing to run; add `command:`, `python:` or `image:`"
    ]
    assert faults(box, "services: {web: {priority: 3}}") == [
        "b.yaml:1:12: services.web: has nothing to run; add `command:`, `python:` or `image:`"
    ]


@pytest.mark.parametrize(("lines", "expected"), blocks("bentoml.txt"))
def test_faults_have_a_place_and_a_hint(box: Box, lines: str, expected: list[str]) -> None:
    indented = "\n".join(f"    {line}" for line in lines.splitlines())
    assert faults(box, f"bento: service:S\nservices:\n  S:\n{indented}\n") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bento: .\nclustre: x\n", "b.yaml:2:1: clustre: unknown key; did you mean cluster?"),
        ("bento: .\naccess_authorization: 'false'\n",
         'b.yaml:2:23: access_authorization: must be true, false, private or public; found the text "false"'),
        ("bento: .\ndev: 1\n", "b.yaml:2:6: dev: must be true or false; found 1"),
        ("bento: [a]\n", "b.yaml:1:1: bento: must be text; found a list"),
        ("bento: .\nenvs: [{name: A}]\n", "b.yaml:2:8: envs.0: A has no value; add value: TEXT"),
        ("bento: .\nservices: [A]\n",
         "b.yaml:2:1: services: must be a mapping; found a list"),
        ("bento: .\ncanary: {route_type: cookie}\n",
         'b.yaml:2:22: canary.route_type: must be random, header or query; found the text "cookie"'),
        ("bento: .\nservices: {A: {command: run, config_overrides: {threads: 2}}}\n",
         "b.yaml:2:30: services.A.config_overrides: is for services of a bento; this is none"),
    ],
)  # fmt: skip
def test_faults_at_the_top(box: Box, text: str, expected: str) -> None:
    assert faults(box, text) == [expected]


def test_what_means_nothing_here_is_named_once(box: Box) -> None:
    text = "name: x\nbento: .\ncluster: aws\naccess_authorization: true\nlabels: [{key: a, value: b}]\n"
    box.write("b.yaml", text + "services: {S: {extras: {bento_function_overrides: {}}}}\ncanary:\n")
    first, second = checked(box, "b.yaml").notices
    assert first == (
        "x: cluster, access_authorization, labels, services.S.extras mean nothing on a box of one's own "
        "and had no effect"
    )
    assert second.startswith("x: the bento . was not read, this file alone was checked")


def test_what_deployment_get_prints(box: Box) -> None:
    box.write(
        "get.yaml",
        "name: x\nbento: a:b\nstatus: {status: running}\nconfig:\n  envs: [{name: A, value: 1}]\n"
        "  services:\n    S: {scaling: {max_replicas: 1.9}}\n",
    )
    with pytest.raises(ConfigError, match=r"get.yaml:7:33: services.S.scaling.max_replicas: must be a whole"):
        checked(box, "get.yaml")
    config = checked(box, str(DATA / "manage-deployments-4450e642.yaml"))
    (spec,) = config.desired.services.values()
    assert (spec.key, spec.traffic.timeout) == ("summarization/Summarization", 10.0)
    assert "cluster, endpoint_urls, admin_console" in config.notices[0]


@pytest.mark.parametrize(
    ("lines", "up", "down"),
    [
        ([], 0, 600),
        (["scaling: {policy: {scale_up_behavior: stable, scale_down_behavior: fast}}"], 600, 0),
        (["scaling: {policy: {scale_down_behavior: disabled}}"], 0, NEVER),
        (["scaling: {policy: {scale_up_behavior: stable, scale_up_stabilization_window: 5}}"], 5, 600),
        (["scaling: {policy: {scale_down_stabilization_window: 180}}"], 0, 180),
        (["scaling: {policy: {scale_up_behavior: '${HOW:-stable}'}}"], 600, 600),
    ],
)
def test_windows_and_behaviours(box: Box, lines: list[str], up: float, down: float) -> None:
    (policy,) = service(box, *lines).scaling.policies
    assert (policy.scale_up_stabilization_window, policy.scale_down_stabilization_window) == (up, down)


def test_concurrency_is_the_target_and_with_a_queue_the_limit(box: Box) -> None:
    spec = service(box, "config_overrides: {traffic: {concurrency: 32}}")
    assert spec.scaling.policies == (PolicySpec(target=32.0, scale_down_stabilization_window=600.0),)
    assert spec.traffic.concurrency is None
    spec = service(box, "config_overrides: {traffic: {concurrency: 32, external_queue: true}}")
    assert (spec.scaling.policies[0].target, spec.traffic.concurrency) == (32.0, 32)
    queued = ["services.S.config_overrides.traffic.external_queue=true"]
    assert service(box, "config_overrides: {traffic: {concurrency: 7}}", sets=queued).traffic.concurrency == 7


def test_without_concurrency_it_scales_by_usage(box: Box) -> None:
    assert [policy.metric for policy in service(box).scaling.policies] == ["utilization"]
    (policy,) = service(box, "scaling: {policy: {metrics: [{type: gpu, value: 80}, {type: qps, value: 9}]}}"
                        ).scaling.policies  # fmt: skip
    assert (policy.metric, policy.target, policy.scale_down_stabilization_window) == ("gpu", 0.8, 600.0)


def test_max_concurrency_is_of_each_replica(box: Box) -> None:
    lines = ["scaling: {max_replicas: 3}", "config_overrides: {traffic: {max_concurrency: 20, timeout: 7.5}}"]
    traffic = service(box, *lines).traffic
    assert (traffic.max_concurrency, traffic.timeout) == (60, 7.5)
    more = ["config_overrides: {traffic: {max_concurrency: 20, concurrency: 5, external_queue: true}}"]
    assert service(box, *more).traffic.max_concurrency is None


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_every_form_that_bentoml_takes(box: Box, path: Path) -> None:
    assert faults(box, path.read_text()) == []


def test_amounts_that_bentoml_leaves_unread(box: Box) -> None:
    spec = service(box, "config_overrides: {resources: {cpu: 300m, memory: 500m}}")
    assert (spec.resources.cpu, spec.resources.memory) == (0.3, 500_000_000)
    assert "500m of memory is less than a byte; read as 500M" in checked(box, "b.yaml").notices[0]
    metrics = "scaling: {policy: {metrics: [{type: cpu, value: '80%'}]}}"
    assert [policy.target for policy in service(box, metrics).scaling.policies] == [0.8]
    assert service(box, "config_overrides: {resources: {memory: '16'}}").resources.memory == 16 * GI


def test_a_gpu_model_without_a_number_waits_for_the_decorator(box: Box) -> None:
    assert service(box, "config_overrides: {resources: {gpu_type: nvidia-l4}}").resources == Resources()
    assert "has no effect until a number of GPUs is said" in checked(box, "b.yaml").notices[0]


def test_resources_strategy_start_and_variables(box: Box) -> None:
    spec = service(
        box,
        "instance_type: gpu.l4.1",
        "deployment_strategy: BestEffortControlledRollout",
        "cold_start_timeout: 900",
        "scaling: {max_replicas: 10}",
        "envs: [{name: A, value: own}]",
        "config_overrides:",
        "  envs: [{name: A, value: under}, {name: B, value: 1}]",
        "  resources: {cpu: 400m, memory: 2, gpu: 2, gpu_type: nvidia-a100-80gb}",
        "  workers: 4",
    )
    assert spec.resources == Resources(gpu=2.0, gpu_type="a100.80g", cpu=0.4, memory=2 * GI)
    assert spec.update == Update(
        strategy="BestEffortControlledRollout", max_surge=0, max_unavailable=2, unavailable_share=20
    )
    assert (spec.probes.startup_timeout, spec.envs) == (900.0, (("A", "own"), ("B", "1")))
    assert isinstance(spec.launch, BentoService)
    assert json.loads(spec.launch.config)["workers"] == 4


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("nvidia-tesla-t4", "t4"), ("nvidia-l4", "l4"), ("nvidia-tesla-a100", "a100"),
        ("nvidia-h200-141gb", "h200.141g"), ("nvidia-rtx-pro-6000", "rtxpro6000blackwell"),
        ("amd-mi300x", "mi300x"), ("h100.80g", "h100.80g"),
    ],
)  # fmt: skip
def test_names_of_gpus(name: str, model: str) -> None:
    assert gpu_model(name) == model


def test_secrets_of_the_file_are_for_every_service(box: Box) -> None:
    box.write("b.yaml", "bento: .\nsecrets: [my-secret]\nservices: {A: {}, B: {secrets: []}}\n")
    specs = checked(box, "b.yaml").desired.services
    assert (specs["b/A"].secrets, specs["b/B"].secrets) == (("my-secret",), ())


def test_instance_types_of_another_cloud_are_no_fault_but_misspelt_ones_are(box: Box) -> None:
    box.write("b.yaml", "bento: .\nservices: {S: {instance_type: t3-large}}\n")
    assert "instance type t3-large is not known here" in checked(box, "b.yaml").notices[0]
    assert faults(box, "bento: .\nservices: {S: {instance_type: gpu.l5.1}}\n")[0].startswith("b.yaml:2:31:")


def test_values_are_explained_by_the_line_a_person_wrote(box: Box) -> None:
    box.write("b.yaml", "bento: .\nservices:\n  S:\n    config_overrides:\n      traffic: {timeout: 30}\n")
    config = checked(box, "b.yaml")
    answer = explain(config, "services.S.traffic.timeout")
    assert (answer["value"], answer["layers"][0]["source"]) == (30, "b.yaml:5:17")
    answer = explain(config, "services.S.scaling.policy.scale_down_stabilization_window")
    assert (answer["value"], answer["layers"][0]["source"]) == (600, "BentoCloud's default")


@pytest.mark.parametrize(
    ("asked", "path", "value"),
    [
        ("config_overrides.traffic.timeout", "traffic.timeout", 30),
        ("config_overrides.traffic.concurrency", "scaling.policy.target", 4),
        ("config_overrides.traffic.max_concurrency", "traffic.max_concurrency", None),
        ("config_overrides.resources.memory", "resources.memory", "2Gi"),
        ("config_overrides.envs.A", "envs.A", "1"),
        ("deployment_strategy", "update.strategy", "Recreate"),
        ("cold_start_timeout", "probes.startup.timeout", 120),
        ("scaling.policy.scale_up_behavior", "scaling.policy.scale_up_stabilization_window", 600),
    ],
)
def test_keys_that_moved_are_explained_by_bentomls_names(box: Box, asked: str, path: str, value: Any) -> None:
    box.write(
        "b.yaml",
        "bento: .\nservices:\n  S:\n    scaling: {policy: {scale_up_behavior: stable}}\n"
        "    config_overrides:\n"
        "      traffic: {timeout: 30, concurrency: 4}\n      resources: {memory: 2}\n      envs: {A: 1}\n",
    )
    answer = explain(checked(box, "b.yaml"), f"services.S.{asked}")
    assert (answer["asked"], answer["path"]) == (f"services.S.{asked}", f"services.S.{path}")
    assert answer["value"] == value
    assert answer["layers"][0]["wins"]


def test_keys_of_the_cloud_are_explained_as_what_they_are(box: Box) -> None:
    box.write("b.yaml", "bento: .\ncluster: aws\nservices: {S: {extras: {a: 1}}}\n")
    config = checked(box, "b.yaml")
    for path, value in (("cluster", "aws"), ("services.S.extras.a", 1)):
        answer = explain(config, path)
        assert (answer["value"], answer["note"]) == (value, ASIDE)
    box.write("own.yaml", "services: {web: {command: run}}\n")
    assert explain(checked(box, "b.yaml", "own.yaml"), "cluster")["value"] == "aws"


def test_other_keys_of_the_decorator_are_explained_in_their_place(box: Box) -> None:
    box.write("b.yaml", "bento: .\nservices: {S: {config_overrides: {threads: 4}}}\n")
    answer = explain(checked(box, "b.yaml", sets=["services.S.config_overrides.threads=8"]),
                     "services.S.config_overrides.threads")  # fmt: skip
    assert (answer["value"], [row["value"] for row in answer["layers"][:2]]) == (8, [8, 4])


def test_stokers_own_keys_stand_beside_bentomls(box: Box) -> None:
    text = (
        "bento: .\nservices:\n  S: {priority: 5, deployment_strategy: RollingUpdate}\n  w: {command: run}\n"
    )
    box.write("b.yaml", text)
    specs = checked(box, "b.yaml").desired.services
    assert (specs["b/S"].priority, specs["b/w"].launch) == (5, Command(("run",)))
    assert specs["b/w"].update == Update()
    twice = "bento: .\nservices: {S: {deployment_strategy: Recreate, update: {strategy: RollingUpdate}}}\n"
    (fault,) = faults(box, twice)
    assert fault.startswith("b.yaml:2:37: services.S.deployment_strategy: is said twice: here and as update.")


WHOLE: dict[str, Any] = {
    "name": "x", "bento": ".", "cluster": "c", "secrets": ["a"], "labels": [{"key": "a", "value": "b"}],
    "envs": [{"name": "G", "value": 1}],
    "canary": {"route_type": "random", "versions": {"v": {"bento": "b", "weight": 1, "services": {"S": {}}}}},
    "services": {"S": {
        "instance_type": "gpu.l4.1", "deployment_strategy": "Recreate", "extras": {"a": 1},
        "scaling": {"min_replicas": 0, "max_replicas": 2, "policy": {
            "scale_up_behavior": "fast", "scale_down_stabilization_window": 5,
            "metrics": [{"type": "cpu", "value": 80}]}},
        "envs": [{"name": "A", "value": 1}], "cold_start_timeout": 5,
        "config_overrides": {
            "traffic": {"timeout": 1, "concurrency": 2, "external_queue": True, "max_concurrency": 3},
            "resources": {"gpu": 1, "memory": 2, "cpu": "1", "gpu_type": "nvidia-l4"},
            "workers": [{"gpu": 1}],
            "envs": [{"name": "A", "value": "2"}]}}},
}  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in _places(value[key], (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize(
    "junk", [None, -1, 1.5, "x", "${A}", "${A:-fast}", True, [], {}, [1], {"a": 1}, [{"name": "A"}], 10**30],
    ids=repr,
)  # fmt: skip
def test_whatever_stands_anywhere_is_understood_or_told_with_its_place(box: Box, junk: Any) -> None:
    assert faults(box, json.dumps(WHOLE)) == []
    for place in _places(WHOLE):
        told = faults(box, json.dumps(_with(WHOLE, place, junk), indent=1), environ={"A": "3"})
        assert [problem for problem in told if not re.match(r"b\.yaml:[1-9]\d*:[1-9]", problem)] == [], place


def test_faults_of_other_layers_name_them(box: Box) -> None:
    text = "bento: .\nservices: {S: {}}\n"
    bogus = "services.S.deployment_strategy=Bogus"
    (fault,) = faults(box, text, sets=[bogus])
    assert fault.startswith(
        "--set services.S.deployment_strategy: services.S.deployment_strategy: must be Roll"
    )
    box.write("conf.d/a.yaml", "services: {S: {config_overrides: {traffic: {timeout: 9}}}}")
    assert checked(box, "b.yaml").desired.services["b/S"].traffic.timeout == 9.0
    environ = {"STOKER__SERVICES__S__CONFIG_OVERRIDES__TRAFFIC__TIMEOUT": "8"}
    assert checked(box, "b.yaml", environ=environ).desired.services["b/S"].traffic.timeout == 8.0


def test_a_change_is_named_in_bentomls_words(box: Box) -> None:
    before = service(box, "config_overrides: {workers: 1}")
    assert isinstance(before.launch, BentoService)
    old = checked(box, "b.yaml")
    service(box, "config_overrides: {workers: 2}")
    assert changed_keys(old, checked(box, "b.yaml")) == {"b/S": ["config_overrides.workers"]}
    box.write("b.yaml", "bento: other\nservices: {S: {config_overrides: {workers: 1}}}")
    assert changed_keys(old, checked(box, "b.yaml")) == {"b/S": ["bento"]}


def test_what_the_router_and_the_policy_follow_is_no_reason_to_start_anew(box: Box) -> None:
    def made(traffic: str) -> ServiceSpec:
        return service(box, f"config_overrides: {{threads: 2, traffic: {{{traffic}}}}}")

    before = made("timeout: 5, concurrency: 3, external_queue: true")
    after = made("timeout: 50, concurrency: 9, external_queue: true")
    assert (after.traffic.timeout, after.traffic.concurrency) == (50.0, 9)
    assert revision(before) == revision(after)
    assert revision(made("max_concurrency: 5")) != revision(after)
    assert isinstance(before.launch, BentoService)
    told = json.loads(before.launch.config)
    assert told == {"threads": 2, "traffic": {"timeout": NO_TIMEOUT}}
