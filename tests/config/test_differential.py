"""BentoML and Stoker asked the same: where both define the answer it is the same; Stoker is only stricter."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.config.load import ConfigRequest, EffectiveConfig, load
from stoker.errors import ConfigError
from stoker.model.service import ServiceSpec

ORACLE = Path(__file__).with_name("bentoml_oracle.py")
PYTHON = os.environ.get("STOKER_TEST_BENTOML_PYTHON") or (
    sys.executable if importlib.util.find_spec("bentoml") else ""
)
pytestmark = pytest.mark.skipif(not PYTHON, reason="BentoML is not installed, and no "
                                "STOKER_TEST_BENTOML_PYTHON names a Python that has it")  # fmt: skip

VALUES: dict[str, list[Any]] = {
    "instance_type": ["cpu.1", "gpu.l4.1", "t3-small", None],
    "deployment_strategy": ["Recreate", "RollingUpdate", "RampedSlowRollout", None],
    "cold_start_timeout": [60, None],
    "scaling": [
        None, {}, {"min_replicas": 3}, {"max_replicas": 3}, {"min_replicas": 0},
        {"min_replicas": 2, "max_replicas": 4},
        {"min_replicas": 0, "max_replicas": 1}, {"min_replicas": None, "max_replicas": 2},
        {"min_replicas": 1, "max_replicas": 2, "policy": {"scale_up_stabilization_window": 180}},
        {"max_replicas": 2, "policy": {"scale_down_behavior": "fast"}},
        {"max_replicas": 2, "policy": {"metrics": [{"type": "cpu", "value": 80}]}},
    ],
    "envs": [
        None, [], [{"name": "A", "value": "own"}], [{"name": "N", "value": "1"}, {"name": "B", "value": ""}],
    ],
    "config_overrides": [
        {}, {"traffic": {"timeout": 30}}, {"traffic": {"timeout": 7.5, "max_concurrency": 20}},
        {"traffic": {"concurrency": 4, "external_queue": True}}, {"workers": 2}, {"workers": "cpu_count"},
        {"threads": 4, "resources": {"cpu": "400m", "memory": "1Gi"}}, {"resources": {"gpu": 1}},
        {"resources": {"gpu": 0.5, "gpu_type": "nvidia-l4"}}, {"backlog": 2048, "extra_ports": [8001]},
        {"runner_probe": {"enabled": True, "timeout": 1, "period": 10}}, {"max_runner_connections": 4},
        {"logging": {"access": {"enabled": False}}}, {"metrics": {"enabled": True, "namespace": "n"}},
    ],
}  # fmt: skip
TOPS: list[dict[str, Any]] = [
    {},
    {"envs": [{"name": "A", "value": "all"}, {"name": "C", "value": "x y"}]},
    {"secrets": ["my-secret"], "cluster": "c", "labels": [{"key": "a", "value": "b"}]},
]
REFUSED: list[dict[str, Any]] = [
    {"scaling": {"min_replicas": 3, "max_replicas": 2}}, {"scaling": {"min_replicas": -1}},
    {"scaling": {"max_replicas": 0}}, {"scaling": {"min_replicas": "two"}}, {"envs": [{"name": "A"}]},
    {"envs": {"A": 1}}, {"cold_start_timeout": "long"},
    {"config_overrides": {"traffic": {"timeout": -1}}}, {"config_overrides": {"traffic": {"timeout": "5"}}},
    {"config_overrides": {"traffic": {"max_concurrency": 0}}}, {"config_overrides": {"workers": 0}},
    {"config_overrides": {"workers": [{"gpu": 1}]}}, {"config_overrides": {"threads": 0}},
    {"config_overrides": {"resources": {"gpu": 0}}}, {"config_overrides": {"resources": {"gpu": "1"}}},
    {"config_overrides": {"resources": {"fpga": 1}}}, {"config_overrides": {"backlog": 64}},
    {"config_overrides": {"traffic": {"external_queue": "yes"}}},
    {"config_overrides": {"extra_ports": ["a"]}},
]  # fmt: skip
"""Services that BentoML refuses, at the deployment or at the start."""
STANDS = ({"envs": {"A": 1}}, {"config_overrides": {"workers": [{"gpu": 1}]}},
          {"config_overrides": {"resources": {"gpu": 0}}})  # fmt: skip
"""What Stoker takes all the same: Stoker's own form, a form of BentoML's documentation, no GPU at all."""


def asked(deployments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [PYTHON, ORACLE], input=json.dumps(deployments), capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "BENTOML_DO_NOT_TRACK": "True"}, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout))


def ours(folder: Path, deployment: dict[str, Any]) -> EffectiveConfig | None:
    file = folder / "d.yaml"
    file.write_text(json.dumps(deployment))
    try:
        return load(ConfigRequest(files=(str(file),)), to_run=False)
    except ConfigError:
        return None


def generated() -> list[dict[str, Any]]:
    """Every value once, and random mixtures of all."""
    single = [{key: value} for key, values in VALUES.items() for value in values]
    chance = random.Random(7)
    mixed = [{key: chance.choice(values) for key, values in VALUES.items()} for _ in range(60)]
    tops = itertools.cycle(TOPS)
    return [{"bento": "a:1", **next(tops), "services": {"S": service}} for service in [*single, *mixed]]


def test_both_make_the_same_of_it(tmp_path: Path) -> None:
    deployments = generated()
    for deployment, theirs in zip(deployments, asked(deployments), strict=True):
        config = ours(tmp_path, deployment)
        assert config is not None, deployment
        assert "error" not in theirs, (deployment, theirs)
        assert theirs["refused"] == [], deployment
        (spec,) = config.desired.services.values()
        told = theirs["services"]["S"]
        assert differences(spec, told) == {}, deployment


def differences(spec: ServiceSpec, told: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What BentoML defines and Stoker has otherwise; null is what BentoML leaves to its server."""
    traffic = told["traffic"]
    pairs = {
        "instance_type": (spec.instance_type, told["instance_type"]),
        "strategy": (spec.update.strategy, told["strategy"]),
        "cold_start_timeout": (spec.probes.startup_timeout, told["cold_start_timeout"]),
        "min_replicas": (spec.scaling.min_replicas, told["min_replicas"]),
        "max_replicas": (spec.scaling.max_replicas, told["max_replicas"]),
        "envs": (dict(spec.envs), told["envs"]),
        "secrets": (list(spec.secrets), told["secrets"]),
        "timeout": (spec.traffic.timeout, traffic["timeout"]),
    }
    return {key: pair for key, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}


def test_what_bentoml_refuses_is_refused(tmp_path: Path) -> None:
    deployments = [{"bento": "a:1", "services": {"S": service}} for service in REFUSED]
    for deployment, theirs in zip(deployments, asked(deployments), strict=True):
        service = deployment["services"]["S"]
        assert theirs.get("error") or theirs["refused"], (service, "BentoML takes it now")
        assert (ours(tmp_path, deployment) is None) == (service not in STANDS), service
