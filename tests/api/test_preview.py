"""A plan tells per service what happens and which key is behind it, down to the devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.fakes import GPU, preview, spec, specs
from stoker.api.facade import PlanPreview
from stoker.api.preview import plan_document
from stoker.model.action import Plan
from stoker.model.device import Device, Inventory
from stoker.model.service import BoxSpec, Command, DesiredState, Resources, Scaling
from stoker.model.state import ObservedState

BOX = Inventory(
    state="ok",
    devices=tuple(Device(uuid=f"GPU-{n}", name="H100", index=n, memory_total=80 * 2**30) for n in range(2)),
)
TAKEN = replace(BOX.devices[0], uuid=GPU, index=9)
LARGE = replace(BOX, devices=(*BOX.devices, replace(BOX.devices[0], uuid="GPU-2", index=2), TAKEN))


def planned(before: dict[str, Any], after: dict[str, Any], **observed: Any) -> dict[str, Any]:
    return plan_document(
        PlanPreview(
            before=DesiredState(services=before),
            after=DesiredState(services=after),
            observed=ObservedState(inventory=BOX, **observed),
            plan=Plan(),
        ),
        100.0,
    )


def only(document: dict[str, Any]) -> dict[str, Any]:
    [service] = document["services"]
    return service


def test_the_same_configuration_is_no_change_though_replicas_are_still_to_be_added() -> None:
    found = planned(specs(), specs())
    assert not found["changes"]
    assert (found["services"], found["actions"], found["summary"]) == ([], [], "no changes")


def test_an_empty_box_shows_which_replica_gets_which_device_and_which_waits() -> None:
    three = spec("infer", resources=Resources(gpu=1), scaling=Scaling(min_replicas=3, max_replicas=3))
    service = only(planned({}, {three.key: three}))
    assert service["change"] == "add"
    assert service["replicas"] == {"running": 0, "wanted": 3}
    assert sorted(start["devices"][0] for start in service["starts"]) == ["GPU-0", "GPU-1"]
    assert all(start["reason"] for start in service["starts"])
    [waits] = service["waits"]
    assert "GPU" in waits["reason"]


def test_a_service_that_depends_on_another_is_seen_to_start_after_it() -> None:
    first = spec("tokenize")
    second = spec("infer", depends=("tokenize",))
    found = planned({}, {second.key: second, first.key: first})
    starts = [action["service"] for action in found["actions"] if action["action"] == "StartReplica"]
    assert starts == ["rag/tokenize", "rag/infer"]
    assert found["summary"] == "2 to add"


@pytest.mark.parametrize(
    ("change", "causes"),
    [
        ({"envs": (("MODEL", "b"),)}, ["envs.MODEL"]),
        ({"resources": Resources(gpu=0.5)}, ["resources.gpu"]),
        ({"user": "svc"}, ["user"]),
        ({"restart_token": "2"}, ["restart"]),
    ],
)
def test_the_key_behind_a_restart_is_named_never_its_value(change: dict[str, Any], causes: list[str]) -> None:
    before = spec("infer", resources=Resources(gpu=1))
    service = only(planned({before.key: before}, {before.key: replace(before, **change)}))
    assert service["change"] == "restart"
    assert service["restart_causes"] == causes
    assert service["revision"]["before"] != service["revision"]["after"]


@pytest.mark.parametrize(
    ("keys", "causes"),
    [
        (["command", "traffic.timeout"], ["command"]),
        (["bento", "config_overrides.workers"], ["bento", "config_overrides.workers"]),
        ([], ["command"]),
    ],
)
def test_what_is_launched_is_named_in_the_words_of_the_file(keys: list[str], causes: list[str]) -> None:
    before = spec("infer")
    after = replace(before, launch=Command(("other",)))
    given = PlanPreview(
        before=DesiredState(services={before.key: before}),
        after=DesiredState(services={before.key: after}),
        observed=ObservedState(inventory=BOX),
        plan=Plan(),
        changed={before.key: keys},
    )
    assert only(plan_document(given, 100.0))["restart_causes"] == causes


def test_a_changed_secret_is_named() -> None:
    before = spec("infer", secrets=("token",))
    found = planned({before.key: before}, {before.key: replace(before, secret_versions=(("token", 1),))})
    assert only(found)["restart_causes"] == ["secrets.token"]


def test_devices_that_move_are_told() -> None:
    given = preview(observed=replace(preview().observed, inventory=LARGE))
    document = plan_document(given, 100.0)
    infer = next(service for service in document["services"] if service["name"] == "infer")
    assert infer["devices"]["before"] == [{"uuid": GPU, "index": 9}]
    assert [device["index"] for device in infer["devices"]["after"]] != [9]


def test_a_service_that_would_start_anyway_is_not_of_the_plan() -> None:
    idle, other = spec("idle"), spec("other")
    changed = replace(other, priority=3)
    found = planned({"rag/idle": idle, "rag/other": other}, {"rag/idle": idle, "rag/other": changed})
    assert [service["name"] for service in found["services"]] == ["other"]


def test_a_service_whose_place_another_takes_is_of_the_plan() -> None:
    low = spec("low", resources=Resources(gpu=2), priority=0)
    high = spec("high", resources=Resources(gpu=2), priority=5)
    found = planned({low.key: low}, {low.key: low, high.key: high})
    told = {service["name"]: service for service in found["services"]}
    assert told["high"]["change"] == "add"
    assert [waiting["replica"] for waiting in told["low"]["waits"]]


def test_bounds_change_in_place_or_scale() -> None:
    before = spec("infer", scaling=Scaling(min_replicas=0, max_replicas=2))
    wider = replace(before, scaling=Scaling(min_replicas=0, max_replicas=8))
    higher = replace(before, scaling=Scaling(min_replicas=2, max_replicas=8))
    assert only(planned({before.key: before}, {before.key: wider}))["change"] == "in-place"
    service = only(planned({before.key: before}, {before.key: higher}))
    assert (service["change"], service["replicas"]) == ("scale", {"running": 0, "wanted": 2})


def test_a_removed_service_stops() -> None:
    given = preview(after=DesiredState(services={"rag/tokenize": specs()["rag/tokenize"]}))
    infer = next(s for s in plan_document(given, 100.0)["services"] if s["name"] == "infer")
    assert infer["change"] == "remove"
    assert infer["stops"] == ["infer-k3x9"]
    assert infer["replicas"]["wanted"] == 0


def test_a_rolling_update_is_played_out_to_its_end() -> None:
    given = preview(observed=replace(preview().observed, inventory=LARGE))
    document = plan_document(given, 100.0)
    infer = next(service for service in document["services"] if service["name"] == "infer")
    assert infer["restart_causes"] == ["envs.MODEL"]
    assert infer["stops"] == ["infer-k3x9"]
    assert len(infer["starts"]) == 2
    assert GPU not in {device for start in infer["starts"] for device in start["devices"]}


def test_a_change_of_the_box_alone_is_a_change() -> None:
    given = preview(
        before=DesiredState(), after=DesiredState(box=BoxSpec(idle="fill")), observed=ObservedState()
    )
    found = plan_document(given, 100.0)
    assert found["changes"]
    assert found["box"]
    assert found["services"] == []
