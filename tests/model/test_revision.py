"""What makes new workers necessary, and what does not."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from stoker.model.service import (
    REVISION_FIELDS,
    Command,
    Container,
    Drain,
    Elsewhere,
    Endpoint,
    Limits,
    LogRules,
    PolicySpec,
    Probe,
    Probes,
    PythonTarget,
    Resources,
    Restart,
    Scaling,
    ServiceSpec,
    Traffic,
    Update,
    revision,
)

BASE = ServiceSpec(deployment="rag", name="infer", launch=Command(("run", "{port}")), working_dir="/srv")

NEW_WORKERS: dict[str, Any] = {
    "launch": Command(("run", "{port}", "--fast")),
    "working_dir": "/opt",
    "resources": Resources(gpu=1.0),
    "limits": Limits(nofile=1024),
    "envs": (("A", "1"),),
    "secrets": ("hf-token",),
    "secret_versions": (("hf-token", 1),),
    "inherit_env": ("http_proxy",),
    "user": "svc",
    "group": "crew",
    "umask": 0o027,
    "backend": "systemd",
    "preload": ("torch",),
    "depends": ("tokenize",),
    "restart_token": "1",
    "pin": "index",
    "container": Container(image="web:1"),
    "elsewhere": Elsewhere(custom=(("vram", 1.0),)),
    "listen": "unix",
}
SAME_WORKERS: dict[str, Any] = {
    "instance_type": "gpu.h100",
    "scaling": Scaling(min_replicas=0, max_replicas=9, policies=(PolicySpec(target=2.0),)),
    "traffic": Traffic(concurrency=2, timeout=1.0),
    "probes": Probes(startup=Probe(http="/up"), readiness=Probe(tcp=True), startup_timeout=5.0),
    "update": Update(strategy="Recreate"),
    "drain": Drain(timeout=1.0),
    "restart": Restart(backoff=2.0),
    "endpoint": Endpoint(port=8001),
    "logs": LogRules(max_size=1),
    "priority": 5,
    "preempt": True,
    "standby": 2,
    "slo_wait": 1.0,
    "held": True,
    "strict_pinning": True,
}


@pytest.mark.parametrize("field", NEW_WORKERS)
def test_needs_new_workers(field: str) -> None:
    assert revision(replace(BASE, **{field: NEW_WORKERS[field]})) != revision(BASE)


@pytest.mark.parametrize("field", SAME_WORKERS)
def test_leaves_workers_alone(field: str) -> None:
    changed = replace(BASE, **{field: SAME_WORKERS[field]})
    assert changed != BASE
    assert revision(changed) == revision(BASE)


def test_every_field_is_on_one_side() -> None:
    identity = {"deployment", "name"}
    assert set(NEW_WORKERS) == set(REVISION_FIELDS)
    assert {one.name for one in fields(ServiceSpec)} == identity | set(NEW_WORKERS) | set(SAME_WORKERS)


def test_every_part_of_what_a_replica_needs_counts() -> None:
    values: dict[str, Any] = {
        "gpu": 2.0, "gpu_type": "h100", "gpu_memory": 1, "cpu": 1.0, "memory": 1, "devices": ("GPU-a",),
        "exclude": ("1",), "numa": "any",
    }  # fmt: skip
    wishes = {"or_better", "spread"}
    assert {one.name for one in fields(Resources)} == set(values) | wishes
    for name in wishes:
        assert revision(replace(BASE, resources=Resources(**{name: True}))) == revision(BASE)
    changed = [replace(BASE, resources=Resources(**{name: value})) for name, value in values.items()]
    assert len({revision(spec) for spec in [BASE, *changed]}) == len(values) + 1


def test_a_command_and_a_python_target_differ_even_with_the_same_text() -> None:
    command = replace(BASE, launch=Command(("app:app",)))
    assert revision(command) != revision(replace(BASE, launch=PythonTarget("app:app")))


def test_notify_counts_because_it_is_in_the_workers_environment() -> None:
    notify = replace(BASE, probes=Probes(startup=Probe(notify=True)))
    assert revision(notify) != revision(BASE)


def test_it_is_eight_hex_digits_and_the_same_everywhere() -> None:
    assert revision(BASE) == revision(replace(BASE))
    assert len(revision(BASE)) == 8
    assert int(revision(BASE), 16) >= 0
