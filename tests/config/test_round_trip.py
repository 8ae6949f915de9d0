"""`stoker config` prints a file that means the same: of every file that is taken, whoever wrote it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stoker.cli.yaml_out import yaml_lines
from stoker.config.effective import effective_document
from stoker.config.load import ConfigRequest, EffectiveConfig, load
from stoker.errors import ConfigError

DATA = Path(__file__).parent / "data"
FILES = sorted(
    path
    for folder in (DATA / "bentoml", DATA / "forms")
    for path in folder.iterdir()
    if path.suffix in {".yaml", ".json"} and ".expected" not in path.name
)
ENVIRON = {"NUMBER": "3", "WORD": "word", "ZEROS": "007", "DURATION": "5s", "EMPTY": ""}


def loaded(path: Path, environ: dict[str, str], **more: Any) -> EffectiveConfig:
    return load(ConfigRequest(files=(str(path),), environ=environ, **more), to_run=False)


def again(config: EffectiveConfig, folder: Path) -> EffectiveConfig:
    """What the printed file makes, read without the environment and without any other layer."""
    (one,) = effective_document(config)["deployments"]
    path = folder / "again.yaml"
    path.write_text("\n".join(yaml_lines(one["config"], {})) + "\n")
    return loaded(path, {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    config = loaded(copy, {})
    assert again(config, tmp_path).desired == config.desired


def test_what_two_layers_say_in_two_dialects_is_printed_once(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "bento: .\nservices: {S: {deployment_strategy: Recreate, scaling: {policy: {scale_down_behavior: "
        "disabled}}, config_overrides: {traffic: {timeout: 9}, resources: {memory: 2}}}}\n"
    )
    sets = ("services.S.update.strategy=RollingUpdate", "services.S.traffic.timeout=7")
    config = loaded(file, {}, sets=sets)
    assert config.desired.services["b/S"].update.strategy == "RollingUpdate"
    printed = again(config, tmp_path).desired.services["b/S"]
    assert printed == config.desired.services["b/S"]


def test_files_that_name_files_are_printed_as_one(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.yaml").write_text("services: {web: {working_dir: ., env_file: a.env}}")
    (tmp_path / "parts" / "a.env").write_text("A='${x} $$'\n")
    file = tmp_path / "s.yaml"
    file.write_text("include: parts/a.yaml\nservices: {web: {command: run, user: '${ZEROS}'}}")
    config = loaded(file, ENVIRON)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert again(config, elsewhere).desired.services == config.desired.services
    assert config.desired.services["s/web"].user == "007"


WORDS = st.one_of(
    st.integers(-1, 12), st.floats(0, 4), st.booleans(), st.none(), st.text(max_size=6),
    st.sampled_from(["5s", "2Gi", "500m", "25%", "cpu.2", "h100", "word", "/readyz", "SIGINT", "007"]),
    st.sampled_from(["${NUMBER}", "${WORD}", "${ZEROS}", "${MISSING:-4}", "$$x", "${EMPTY:-1}"]),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(1, 6), st.just("${NUMBER}"), st.none())
TIMES = st.sampled_from([1, 2.5, "5s", "1m30s", "${DURATION}"])


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with some of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


ENVS = st.one_of(
    st.dictionaries(st.sampled_from(["A", "B", "C"]), WORDS, max_size=3),
    st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["A", "B"]), "value": WORDS}), max_size=2,
        unique_by=lambda pair: pair["name"],
    ),
)  # fmt: skip
SERVICE = some(
    working_dir=st.sampled_from([".", "sub", "/tmp", "${WORD}"]),
    instance_type=st.sampled_from(["cpu.2", "gpu.l4.2", "gpu.any", "gpu.mig.1g.10gb", "own"]),
    resources=some(gpu=st.sampled_from([1, 0.5, 2]), cpu=st.sampled_from([1, "500m"]), memory=st.just("2Gi")),
    scaling=some(
        min_replicas=NUMBERS,
        max_replicas=st.integers(6, 9),
        policy=some(target=NUMBERS, scale_down_stabilization_window=TIMES),
    ),
    traffic=some(concurrency=NUMBERS, timeout=TIMES),
    envs=ENVS,
    secrets=st.lists(st.sampled_from(["a", "b-c"]), unique=True, max_size=2),
    probes=some(liveness=st.fixed_dictionaries({"http": st.just("/x")}), startup=some(timeout=TIMES)),
    update=some(strategy=st.sampled_from(["Recreate", "RampedSlowRollout"]), max_surge=st.just("25%")),
    drain=some(timeout=TIMES, signal=st.sampled_from(["INT", 9])),
    user=st.sampled_from(["svc", "${WORD}", "${ZEROS}"]),
    priority=NUMBERS,
)  # fmt: skip
OWN = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["web", "infer.x"]), SERVICE, min_size=1, max_size=2)},
    optional={"envs": ENVS, "instance_types": st.just({"own": {"gpu": 0.5, "memory": "3Gi"}}), "name": WORDS},
)
BENTO_SERVICE = some(
    instance_type=st.sampled_from(["cpu.2", "gpu.l4.2", "t3-small"]),
    deployment_strategy=st.sampled_from(["Recreate", "RollingUpdate", "BestEffortControlledRollout"]),
    cold_start_timeout=NUMBERS,
    envs=ENVS,
    scaling=some(
        min_replicas=st.integers(0, 2),
        max_replicas=st.integers(2, 4),
        policy=some(
            scale_up_behavior=st.sampled_from(["fast", "stable", "disabled"]),
            scale_down_behavior=st.sampled_from(["fast", "stable", "disabled"]),
            scale_down_stabilization_window=st.sampled_from([0, 600]),
            metrics=st.just([{"type": "gpu", "value": "70%"}]),
        ),
    ),
    config_overrides=some(
        workers=st.sampled_from([2, "cpu_count", None]),
        envs=ENVS,
        traffic=some(
            timeout=NUMBERS, concurrency=NUMBERS, max_concurrency=NUMBERS, external_queue=st.booleans()
        ),
        resources=some(
            gpu=st.sampled_from([1, 0.5]),
            cpu=st.sampled_from([1, "500m"]),
            memory=st.sampled_from([1.5, "2Gi", "500m"]),
            gpu_type=st.just("nvidia-a100-80gb"),
        ),
    ),
)
BENTO = st.fixed_dictionaries(
    {"bento": st.just("service:Root"), "services": st.dictionaries(st.just("Root"), BENTO_SERVICE)},
    optional={"envs": ENVS, "secrets": st.just(["a"]), "cluster": st.just("c"), "name": st.just("n")},
)


@pytest.mark.parametrize("files", [OWN, BENTO], ids=["own", "bento"])
def test_every_file_that_is_taken(files: st.SearchStrategy[dict[str, Any]]) -> None:
    taken = 0

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(files)
    def check(document: dict[str, Any]) -> None:
        nonlocal taken
        for body in document["services"].values() if "bento" not in document else ():
            body.setdefault("command", "run --port {port}")
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "stoker.yaml"
            file.write_text(json.dumps(document))
            try:
                config = loaded(file, ENVIRON)
            except ConfigError:
                assume(False)
            else:
                taken += 1
                assert again(config, Path(name)).desired == config.desired

    check()
    assert taken > 50
