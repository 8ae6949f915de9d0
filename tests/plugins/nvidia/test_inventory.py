"""From reports to inventories: what is kept, what is lost, what is worth saying."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.model.device import Device, DeviceProcess, Inventory
from stoker_nvidia.inventory import allowed, bounded_by_mps, differs, inventory_of, unreachable

GIB = 2**30


def gpu(index: int, **values) -> dict:
    report = {
        "index": index, "uuid": f"GPU-{index}", "name": "Tesla T4", "bus_id": "b", "numa_node": None,
        "memory_total": 15 * GIB, "memory_used": 0, "processes": [], "utilization": 0.0,
    }  # fmt: skip
    return {**report, **values}


def shut(index: int, code: int = 15, text: str = "GPU is lost", **values) -> dict:
    return {"index": index, "error": code, "text": text, **values}


def cut(index: int, *instances: str) -> dict:
    part = {"name": "X MIG 1g.5gb", "memory_total": 5 * GIB, "memory_used": 0, "processes": []}
    return gpu(index, instances=[{"uuid": uuid, **part} for uuid in instances])


def read(*gpus: dict, last: Inventory | None = None) -> Inventory:
    return inventory_of({"driver": "1", "gpus": list(gpus), "links": []}, last or Inventory())


def health(inventory: Inventory) -> dict[str, str]:
    return {device.uuid: f"{device.health} {device.health_reason}".strip() for device in inventory.devices}


def test_devices_are_taken_over():
    found = read(gpu(0, memory_used=GIB, processes=[[7, GIB], [8, None]], utilization=0.5, numa_node=1))
    assert found == Inventory(
        state="ok", reason="", driver="1",
        devices=(
            Device(
                uuid="GPU-0", name="Tesla T4", index=0, memory_total=15 * GIB, memory_used=GIB, bus_id="b",
                type_key="gpu.t4.16g", utilization=0.5, numa_node=1, ordinal=0,
                processes=(DeviceProcess(pid=7, memory=GIB), DeviceProcess(pid=8, memory=None)),
            ),
        ),
    )  # fmt: skip


def test_links_stand_at_both_ends():
    found = inventory_of({"gpus": [gpu(0), gpu(1)], "links": [("GPU-0", "GPU-1", 110)]}, Inventory())
    assert [device.links for device in found.devices] == [(("GPU-1", 110),), (("GPU-0", 110),)]


# --- the whole driver -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "words"), [(12, "libnvidia-ml.so.1"), (9, "not loaded")])
def test_no_driver_is_normal_on_a_box_that_never_showed_a_gpu(code, words):
    found = inventory_of({"error": code, "text": "?"}, Inventory())
    assert (found.state, found.devices) == ("none", ())
    assert words in found.reason


@pytest.mark.parametrize("code", [9, 12, 4, 18, 999, 77])
def test_a_driver_that_fails_after_it_showed_gpus_leaves_them_as_they_were(code):
    before = read(gpu(0), gpu(1))
    found = inventory_of({"error": code, "text": "odd"}, before)
    assert found.state == "unreachable"
    assert found.devices == before.devices
    assert found.reason


@pytest.mark.parametrize("code", [4, 18, 999])
def test_gpus_that_are_expected_but_cannot_be_reached_are_an_alarm_from_the_start(code):
    assert inventory_of({"error": code, "text": "?"}, Inventory()).state == "unreachable"


def test_unknown_errors_are_quoted():
    assert "odd (NVML error 77)" in inventory_of({"error": 77, "text": "odd"}, Inventory()).reason


def test_a_driver_without_gpus_is_none():
    assert read().state == "none"
    assert read().reason == "the NVIDIA driver shows no GPU"


def test_every_gpu_refusing_alike_is_the_driver_and_not_the_gpus():
    before = read(gpu(0), gpu(1))
    found = read(shut(0, 999, "Unknown Error"), shut(1, 999, "Unknown Error"), last=before)
    assert found.state == "unreachable"
    assert found.devices == before.devices


# --- single GPUs ------------------------------------------------------------------------------------------


def test_one_lost_gpu_costs_one_gpu():
    found = read(gpu(0), shut(1), gpu(2), last=read(gpu(0), gpu(1), gpu(2)))
    assert found.state == "ok"
    assert health(found) == {"GPU-0": "healthy", "GPU-1": "lost fell off the bus", "GPU-2": "healthy"}


def test_a_lost_gpu_stays_lost_and_can_come_back():
    lost = read(shut(0), gpu(1), last=read(gpu(0), gpu(1)))
    assert health(read(shut(0), gpu(1), last=lost))["GPU-0"] == "lost fell off the bus"
    assert health(read(gpu(0), gpu(1), last=lost))["GPU-0"] == "healthy"


def test_all_gpus_lost_is_not_no_gpus():
    found = read(shut(0), shut(1), last=read(gpu(0), gpu(1)))
    assert found.state == "ok"
    assert set(health(found).values()) == {"lost fell off the bus"}


def test_a_gpu_that_was_lost_before_we_came_is_mentioned():
    found = read(gpu(0), shut(1))
    assert health(found) == {"GPU-0": "healthy"}
    assert found.reason == "GPU 1 cannot be opened: fell off the bus"


def test_a_gpu_lost_before_we_came_is_listed_if_it_still_tells_its_uuid():
    found = read(gpu(0), shut(1, uuid="GPU-1", name="Tesla T4"))
    assert health(found)["GPU-1"] == "lost fell off the bus"
    assert found.reason == ""


def test_other_errors_of_a_gpu_are_quoted():
    found = read(shut(0, 16, "GPU requires reset"), gpu(1), last=read(gpu(0), gpu(1)))
    assert health(found)["GPU-0"] == "lost GPU requires reset (NVML error 16)"


def test_a_gpu_that_is_no_longer_listed_is_lost_although_indices_moved_up():
    before = read(gpu(0), gpu(1))
    found = read(gpu(0, uuid="GPU-1"), last=before)
    assert health(found) == {"GPU-0": "lost the driver no longer lists it", "GPU-1": "healthy"}


def test_what_was_known_survives_a_time_without_answers():
    away = unreachable("hangs", read(gpu(0), gpu(1)))
    assert health(read(gpu(0), shut(1), last=away))["GPU-1"] == "lost fell off the bus"


# --- MIG --------------------------------------------------------------------------------------------------


def test_instances_stand_in_place_of_their_gpu():
    found = read(cut(0, "MIG-a", "MIG-b"), gpu(1))
    assert [(device.uuid, device.parent) for device in found.devices] == [
        ("MIG-a", "GPU-0"), ("MIG-b", "GPU-0"), ("GPU-1", None),
    ]  # fmt: skip
    assert found.devices[0].type_key == "gpu.mig.1g.5gb"


def test_a_destroyed_instance_is_gone_not_lost():
    assert set(health(read(cut(0, "MIG-b"), last=read(cut(0, "MIG-a", "MIG-b"))))) == {"MIG-b"}


def test_switching_mig_on_and_off_loses_nothing():
    whole, parts = read(gpu(0)), read(cut(0, "MIG-a"))
    assert health(read(cut(0, "MIG-a"), last=whole)) == {"MIG-a": "healthy"}
    assert health(read(gpu(0), last=parts)) == {"GPU-0": "healthy"}


def test_instances_are_lost_with_their_gpu():
    found = read(shut(0), gpu(1), last=read(cut(0, "MIG-a"), gpu(1)))
    assert health(found)["MIG-a"] == "lost fell off the bus"


def test_mig_without_instances_is_said():
    assert read(cut(0), gpu(1)).reason == "GPU 0 is in MIG mode and has no instances"
    assert (read(cut(0)).state, read(cut(0)).reason) == ("none", "GPU 0 is in MIG mode and has no instances")


# --- the daemon's own CUDA_VISIBLE_DEVICES ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (None, {"GPU-0", "GPU-1", "MIG-a", "MIG-b"}),
        ("1,0", {"GPU-0", "GPU-1"}),
        ("GPU-1", {"GPU-1"}),
        (" GPU-0 , 1 ", {"GPU-0", "GPU-1"}),
        ("GPU-", {"GPU-0", "GPU-1", "MIG-a", "MIG-b"}),
        ("MIG-a", {"MIG-a"}),
        ("GPU-2", {"MIG-a", "MIG-b"}),
        ("0,-1,1", {"GPU-0"}),
    ],
)
def test_the_allow_list(wanted, left):
    found = allowed(read(gpu(0), gpu(1), cut(2, "MIG-a", "MIG-b")), wanted)
    assert {device.uuid for device in found.devices} == left
    assert found.state == "ok"


@pytest.mark.parametrize(
    ("wanted", "words"), [("", "hides every GPU"), ("-1", "hides"), ("9", "names no GPU")]
)
def test_an_allow_list_that_leaves_nothing_says_so(wanted, words):
    found = allowed(read(gpu(0)), wanted)
    assert (found.state, found.devices) == ("none", ())
    assert words in found.reason
    assert "CUDA_VISIBLE_DEVICES" in found.reason


def test_the_allow_list_does_not_hide_an_alarm():
    assert allowed(unreachable("hangs", Inventory()), "0").reason == "hangs"


# --- what is worth saying ---------------------------------------------------------------------------------


def test_the_first_inventory_is_always_said():
    assert differs(Inventory(), None)


@pytest.mark.parametrize(
    ("change", "worth"),
    [
        ({}, False),
        ({"memory_used": 60 * 2**20}, False),
        ({"memory_used": 65 * 2**20}, True),
        ({"utilization": 0.54}, False),
        ({"utilization": 0.56}, True),
        ({"utilization": None}, True),
        ({"processes": (DeviceProcess(pid=1, memory=5),)}, False),
        ({"processes": (DeviceProcess(pid=2, memory=0),)}, True),
        ({"health": "lost"}, True),
        ({"name": "other"}, True),
        ({"links": (("x", 1),)}, True),
    ],
)
def test_only_changes_that_matter_are_said(change, worth):
    device = Device(
        uuid="GPU-0",
        name="n",
        index=0,
        memory_total=GIB,
        utilization=0.5,
        processes=(DeviceProcess(pid=1, memory=0),),
    )
    before = Inventory(state="ok", reason="", devices=(device,))
    assert differs(replace(before, devices=(replace(device, **change),)), before) is worth


def test_a_new_reason_or_set_is_said():
    before = read(gpu(0))
    assert differs(replace(before, reason="new"), before)
    assert differs(read(gpu(0), gpu(1)), before)
    assert differs(read(gpu(0, uuid="GPU-x")), before)


def test_only_gpus_that_work_are_numbered_for_cuda():
    found = read(gpu(0), shut(1, uuid="GPU-1"), gpu(2))
    assert {device.uuid: device.ordinal for device in found.devices} == {
        "GPU-0": 0,
        "GPU-1": None,
        "GPU-2": 1,
    }
    gone = read(gpu(0), shut(1), gpu(2), last=read(gpu(0), gpu(1), gpu(2)))
    assert [device.ordinal for device in gone.devices] == [0, None, 1]


def test_beside_a_gpu_in_mig_mode_none_has_a_number_for_cuda():
    found = read(gpu(0), cut(1, "MIG-a"))
    assert [(device.ordinal, device.limits) for device in found.devices] == [(None, ""), (None, "mig")]


def test_mps_bounds_whole_gpus_only():
    found = bounded_by_mps(read(gpu(0), cut(1, "MIG-a")))
    assert [device.limits for device in found.devices] == ["mps", "mig"]
