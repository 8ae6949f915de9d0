"""The screen of `stoker gpus`, from documents."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.api.advice import advice_on
from stoker.cli.gpu_rows import device_notes, device_table, sick_notes
from stoker.cli.table import render
from stoker.model.device import Device

GIB = 2**30


def device(index: int = 0, **values: Any) -> dict[str, Any]:
    shown = {
        "uuid": f"GPU-{index}", "name": "Tesla T4", "index": index, "health": "healthy", "reserved_by": [],
        "health_reason": "", "memory_used": 0, "memory_total": 16 * GIB, "utilization": 0.5, **values,
    }  # fmt: skip
    fields = {
        name: shown.get(name) for name in ("uuid", "name", "index", "health", "health_reason", "parent")
    }
    return {**shown, "advice": advice_on(Device(memory_total=16 * GIB, **fields))}


def owner(replica: str, share: float = 1.0) -> dict[str, Any]:
    return {"replica": replica, "share": share, "memory": None}


def cell(title: str, *devices: dict[str, Any], row: int = 0) -> str:
    table = device_table(devices)
    place = next(i for i, column in enumerate(table.columns) if column.title == title)
    return table.rows[row][place].text


def notes(*devices: dict[str, Any]) -> list[str]:
    return [line for line, _ in device_notes(devices)]


def test_a_quiet_box_is_a_short_table_without_notes() -> None:
    lines = render(device_table([device(0), device(1)]), columns=None, colour=False)
    assert lines == [
        "GPU  NAME      UUID   MEMORY  BUSY  HEALTH   FREE  HELD BY",
        "  0  Tesla T4  GPU-0  0/16Gi   50%  healthy   all  -",
        "  1  Tesla T4  GPU-1  0/16Gi   50%  healthy   all  -",
    ]
    assert notes(device(0), device(1)) == []
    assert list(sick_notes([device(0)])) == []


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, "all"),
        ({"reservations": [owner("a")]}, "-"),
        ({"reservations": [owner("a", 0.25), owner("b", 0.25)]}, "0.5"),
        ({"reservations": [owner("a", 0.5), owner("b", 0.5)]}, "-"),
        ({"health": "suspect"}, "-"),
        ({"withheld": "a has just ended"}, "-"),
    ],
)
def test_what_is_free(changes: dict[str, Any], free: str) -> None:
    assert cell("FREE", device(**changes)) == free


def test_nvlinks_name_the_other_ends_and_faulty_ones_are_said() -> None:
    links = [{"uuid": f"GPU-{i}", "score": 110} for i in (1, 2, 4)] + [{"uuid": "GPU-3", "score": 10}]
    box = [device(0, links=links), *(device(i) for i in range(1, 5))]
    assert cell("NVLINK", *box) == "1-2,4"
    faulty = device(0, links=links, unlinked="Xid 74, NVLink error")
    assert cell("NVLINK", faulty) == "faulty"
    assert notes(faulty) == ["GPU 0: not given together with others: Xid 74, NVLink error"]


def test_who_holds_it_and_what_bounds_them() -> None:
    held = device(reservations=[owner("a", 0.25), owner("b", 0.5)], limits="mps")
    assert (cell("HELD BY", held), cell("BOUND BY", held)) == ("a (0.25), b (0.5)", "MPS")
    assert cell("BOUND BY", device(reservations=[owner("a", 0.25)])) == "watching"
    assert cell("BOUND BY", device(reservations=[owner("a", 1.0)])) == ""
    kept = [{**owner(name, 0.5), "confined": True} for name in "ab"]
    assert cell("BOUND BY", device(reservations=kept)) == "watching, device filter"
    assert cell("BOUND BY", device(reservations=kept, limits="mps")) == "MPS, device filter"
    assert cell("BOUND BY", device(reservations=[*kept, owner("c", 0.25)])) == "watching"


@pytest.mark.parametrize(
    ("health", "reason", "hint"),
    [
        ("quarantined", "Xid 95", "stoker gpus release GPU-0"),
        ("quarantined", "released by the operator", "stoker gpus uncordon GPU-0"),
        ("cordoned", "cordoned by the operator", "stoker gpus uncordon GPU-0"),
        ("probation", "released by the operator (was: Xid 95)", "is watched"),
        ("suspect", "faults in a, b", "stoker gpus uncordon GPU-0"),
        ("draining", "Xid 95", "move elsewhere"),
        ("lost", "fell off the bus", "dmesg"),
    ],
)
def test_a_device_that_is_not_given_says_why_and_what_to_do(health: str, reason: str, hint: str) -> None:
    sick = device(health=health, health_reason=reason, health_since_s=125.7)
    assert cell("HEALTH", sick) == f"{health} 2m5s"
    why, what = notes(sick)
    assert why == (f"GPU 0: {reason}" if reason.startswith(health) else f"GPU 0: {health}: {reason}")
    assert hint in what
    assert [line for line, _ in sick_notes([sick])] == ["", why, what]


def test_what_is_the_same_of_mig_instances_is_said_once() -> None:
    parts = [
        device(0, health="quarantined", health_reason="Xid 95", uuid=f"MIG-{tag}", parent="GPU-cut")
        for tag in "ab"
    ]
    assert notes(*parts) == [
        "MIG-a, MIG-b: quarantined: Xid 95",
        "MIG-a, MIG-b: reset it, or `stoker gpus release GPU-cut` if it is well; then it is on probation",
    ]


def test_strangers_are_named_and_own_workers_are_not() -> None:
    processes = [
        {"pid": 1, "memory": GIB, "owner": "infer-a", "name": ""},
        {"pid": 2, "memory": 2 * GIB, "owner": "", "name": "Xorg"},
        {"pid": 3, "memory": None, "owner": "", "name": ""},
        *({"pid": pid, "memory": GIB, "owner": "", "name": ""} for pid in (4, 5, 6)),
    ]
    assert notes(device(processes=processes)) == [
        "GPU 0: in use by processes that are not Stoker's: 2 Xorg (2Gi), 3, 4 (1Gi), 5 (1Gi) and 1 more"
    ]


def test_advice_and_the_gate_are_notes_of_a_healthy_device() -> None:
    assert notes(device(health_reason="reset it when it suits", withheld="a has just ended")) == [
        "GPU 0: reset it when it suits", "GPU 0: not free yet: a has just ended",
    ]  # fmt: skip
