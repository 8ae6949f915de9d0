"""Xids and recovery actions: what each asks for, and on which device it is booked."""

from __future__ import annotations

from collections import Counter

import pytest

from stoker.model.device import DeviceFault
from stoker_nvidia.chart import KEPT, FaultChart
from stoker_nvidia.faults import KINDS, advice, ailment, kind_of, link_ailment, words_of
from stoker_nvidia.inventory import inventory_of
from worlds import box


@pytest.mark.parametrize(
    ("xid", "recovery", "kind"),
    [
        (13, 0, "app"),
        (31, None, "app"),
        (94, 0, "app"),
        (43, 0, "note"),
        (63, 1, "note"),
        (48, 0, "note"),
        (95, 0, "device"),
        (109, 0, "device"),
        (119, None, "device"),
        (79, None, "fatal"),
        (74, 0, "link"),
        (145, 0, "link"),
        (154, 0, "note"),
        (154, 1, "device"),
        (154, 3, "link"),
        (999, None, "app"),
        (999, 2, "device"),
    ],
)
def test_each_xid_has_its_class_and_unknown_ones_follow_the_recovery_action(xid, recovery, kind) -> None:
    assert kind_of(xid, recovery) == kind


def test_each_class_has_its_xids_and_all_have_words() -> None:
    assert Counter(KINDS.values()) == {"app": 49, "note": 22, "device": 14, "fatal": 2, "link": 8}
    assert words_of(31) == "Xid 31, GPU memory page fault"
    assert words_of(12345) == "Xid 12345"


def test_what_a_gpu_needs_in_words() -> None:
    assert ailment(0, rows_failed=False) == ailment(None, rows_failed=False) == ""
    assert ailment(3, rows_failed=False) == ""
    assert "reset of the GPU" in ailment(1, rows_failed=False)
    assert "recovery action 99" in ailment(99, rows_failed=False)
    assert "has to be replaced" in ailment(0, rows_failed=True)
    assert "to be left by programs" in link_ailment(3)
    assert link_ailment(1) == ""
    assert "reset the GPU" in advice(rows_pending=True, pages_pending=False)
    assert "pages" in advice(rows_pending=False, pages_pending=True)
    assert advice(rows_pending=False, pages_pending=False) == ""


def gpu(uuid: str = "GPU-0", ecc: int | None = 0, **more) -> dict:
    return {"index": 0, "uuid": uuid, "vitals": {"recovery": 0, "ecc": ecc}, **more}


def cut(uuid: str = "GPU-0") -> dict:
    return gpu(uuid, instances=[{"uuid": "MIG-a", "part": [7, 0]}, {"uuid": "MIG-b", "part": [8, 0]}])


def xid(code: int, uuid: str = "GPU-0", part=(None, None)) -> dict:
    return {"uuid": uuid, "xid": code, "part": list(part)}


def faults(chart: FaultChart, *uuids: str) -> dict[str, list[str]]:
    return {uuid: [fault.what for fault in chart.of(uuid)] for uuid in uuids}


def test_faults_are_numbered_and_the_oldest_are_forgotten() -> None:
    chart = FaultChart()
    for code in range(100, 100 + KEPT + 3):
        chart.read({"gpus": [gpu()], "events": [xid(code)]})
    found = chart.of("GPU-0")
    assert len(found) == KEPT
    assert [fault.serial for fault in found] == list(range(4, KEPT + 4))
    assert chart.over(box(0)).devices[0].faults == found


def test_an_xid_of_an_instance_is_booked_on_it_alone_if_it_stays_inside() -> None:
    chart = FaultChart()
    chart.read(
        {"gpus": [cut()], "events": [xid(31, part=(8, 0)), xid(43, part=(7, None)), xid(95, part=(8, 0))]}
    )
    assert faults(chart, "MIG-a", "MIG-b", "GPU-0") == {
        "MIG-a": [words_of(43), words_of(95)],
        "MIG-b": [words_of(31), words_of(95)],
        "GPU-0": [],
    }


def test_an_xid_of_the_whole_gpu_is_booked_on_all_its_instances() -> None:
    chart = FaultChart()
    chart.read({"gpus": [cut()], "events": [xid(31)]})
    assert faults(chart, "MIG-a", "MIG-b") == {"MIG-a": [words_of(31)], "MIG-b": [words_of(31)]}


def test_only_new_memory_errors_count_and_a_reset_counter_starts_again() -> None:
    chart = FaultChart()
    for count in (5, 5, 6, 9, 0, 1, None):
        chart.read({"gpus": [gpu(ecc=count)]})
    assert [fault.what for fault in chart.of("GPU-0")] == [
        "1 uncorrected memory error", "3 uncorrected memory errors", "1 uncorrected memory error",
    ]  # fmt: skip
    assert {fault.kind for fault in chart.of("GPU-0")} == {"memory"}


def test_the_last_word_of_a_lost_gpu_is_kept() -> None:
    chart = FaultChart()
    chart.read({"gpus": [{"index": 0, "error": 15, "text": "lost"}], "events": [xid(79)]})
    assert chart.of("GPU-0") == (DeviceFault(serial=1, kind="fatal", what=words_of(79)),)


def test_vitals_become_what_the_device_says() -> None:
    report = {
        "gpus": [
            {
                "index": 0, "uuid": "GPU-0", "name": "NVIDIA H100", "bus_id": "", "numa_node": None,
                "memory_total": 1, "memory_used": 0, "processes": [],
                "vitals": {"recovery": 4, "ecc": 0, "rows_pending": True, "rows_failed": True},
            },
            {
                "index": 1, "uuid": "GPU-1", "name": "Old", "bus_id": "", "numa_node": None,
                "memory_total": 1, "memory_used": 0, "processes": [], "vitals": {"recovery": 3},
            },
        ]
    }  # fmt: skip
    first, second = inventory_of(report, box()).devices
    assert "drained and reset" in first.ailing
    assert "has to be replaced" in first.ailing
    assert "when it suits" in first.health_reason
    assert (second.ailing, second.health_reason) == ("", "")
    assert "together with other GPUs" in second.unlinked
