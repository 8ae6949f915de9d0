"""The documents have the names and shapes of the outside contract."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from api.fakes import GPU, REASON, history, replicas, snapshot
from stoker.api import documents
from stoker.errors import ConfigProblem
from stoker.model.device import Reservation
from stoker.model.service import DesiredState
from stoker.model.state import ObservedState

CONTRACT: dict[str, Any] = {
    "daemon": {
        "pid": int, "version": str, "uptime_s": float,
        "config": {"state": str, "generation": int, "errors": list},
    },
    "services": [
        {
            "deployment": str, "name": str, "url": str, "min_replicas": int, "max_replicas": int,
            "target": int, "ready": int, "revision": str,
            "load": {"in_flight": int, "queued": int, "rps": float, "p50_ms": float, "p99_ms": float},
            "decision": {"target": int, "reason": str},
            "replicas": [
                {
                    "id": str, "phase": str, "reason": str, "pid": int, "devices": list, "endpoint": str,
                    "restarts": int, "since_s": float, "revision": str,
                }
            ],
        }
    ],
    "devices": [{"uuid": str, "name": str, "index": int, "health": str, "reserved_by": list}],
}  # fmt: skip


def assert_shape(value: Any, shape: Any, where: str = "") -> None:
    if isinstance(shape, dict):
        for name, inner in shape.items():
            assert name in value, f"{where}.{name} is missing"
            assert_shape(value[name], inner, f"{where}.{name}")
    elif isinstance(shape, list):
        assert value, f"{where} is empty"
        assert_shape(value[0], shape[0], f"{where}[0]")
    else:
        assert type(value) is shape, f"{where} is {value!r}"


def status(only: str | None = "rag/infer", **changes: Any) -> dict[str, Any]:
    return documents.status_document(snapshot(**changes), only)


def test_status_has_the_shape_of_the_contract() -> None:
    assert_shape(status(), CONTRACT)


def test_status_is_plain_json() -> None:
    json.dumps(status(None), allow_nan=False)


def test_status_values() -> None:
    found = status()
    assert found["daemon"]["uptime_s"] == 3.2
    assert found["daemon"]["config"]["generation"] == 4
    [infer] = found["services"]
    assert (infer["target"], infer["ready"], infer["min_replicas"], infer["max_replicas"]) == (2, 1, 0, 8)
    assert infer["decision"] == {"target": 2, "reason": REASON}
    assert infer["load"] == {"in_flight": 7, "queued": 3, "rps": 41.0, "p50_ms": 20.1, "p99_ms": 80.0}
    ready, pending = infer["replicas"]
    assert (ready["id"], ready["pid"], ready["since_s"], ready["devices"]) == (
        "infer-k3x9",
        4242,
        12.5,
        [GPU],
    )
    assert (pending["phase"], pending["pid"], pending["endpoint"]) == ("pending", None, "")
    assert pending["reason"] == "needs 1 GPU; 0 of 2 free"
    assert [device["reserved_by"] for device in found["devices"]] == [["infer-k3x9"], []]


def test_a_service_without_measured_load_is_wanted_at_its_minimum_and_says_so() -> None:
    [tokenize] = status("rag/tokenize")["services"]
    assert tokenize["target"] == 1
    assert "no load measured" in tokenize["decision"]["reason"]
    assert tokenize["load"]["p99_ms"] is None


def test_a_rejected_configuration_lists_its_errors() -> None:
    fault = ConfigProblem("unknown key", file="a.yaml", line=3, column=5, path="services.x")
    config = status(config_state="rejected", problems=(fault,))["daemon"]["config"]
    assert config["state"] == "rejected"
    assert config["errors"] == [
        {"file": "a.yaml", "line": 3, "column": 5, "path": "services.x", "message": "unknown key"}
    ]


def test_what_is_left_of_a_removed_service_still_shows() -> None:
    [infer] = status(desired=DesiredState())["services"]
    assert infer["removed"]
    assert (infer["target"], infer["max_replicas"], len(infer["replicas"])) == (0, 0, 2)


@pytest.mark.parametrize("way", ["held", "stopping"])
def test_nothing_is_wanted_of_a_held_service_or_a_daemon_that_ends(way: str) -> None:
    base = snapshot()
    if way == "held":
        infer = replace(base.desired.services["rag/infer"], held=True)
        [found] = status(desired=DesiredState(services={"rag/infer": infer}))["services"]
    else:
        [found] = status(observed=replace(base.observed, stopping=True))["services"]
    assert found["target"] == 0
    assert found["decision"]["target"] == 0


def test_explaining_a_service_shows_the_decision_and_its_samples() -> None:
    found = documents.explain_service(snapshot(), "rag/infer")
    assert found["decision"]["reason"] == REASON
    assert found["decision"]["facts"] == {"in_flight": 7.1}
    assert found["window"]["seconds"] == 60.0
    assert found["rules"]["policies"][0]["metric"] == "concurrency"
    json.dumps(found, allow_nan=False)


def test_explaining_a_service_without_data_says_that_there_is_none() -> None:
    found = documents.explain_service(snapshot(), "rag/tokenize")
    assert found["window"] is None
    assert not found["decision"]["valid"]


def test_explaining_a_replica_shows_where_it_is_and_how_it_came_there() -> None:
    found = documents.explain_replica(snapshot(), replicas()["infer-k3x9"], history())
    assert found["placement"]["reason"] == "the only healthy GPU with 40Gi free"
    assert found["placement"]["devices"][0]["index"] == 0
    assert [event["type"] for event in found["chain"]][-1] == "ReplicaBecameReady"
    assert (found["deployment"], found["service"]) == ("rag", "infer")


def test_a_replica_on_a_device_that_is_gone_still_has_a_document() -> None:
    lost = replace(replicas()["infer-k3x9"], reservations=(Reservation(uuid="GPU-gone"),))
    found = documents.explain_replica(snapshot(observed=ObservedState()), lost, [])
    assert found["placement"]["devices"][0]["index"] is None
