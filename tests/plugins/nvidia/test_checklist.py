"""The checklist of NVML (checklist.md): each row has its test; rows without one elsewhere have it here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fakenvml.child import ask, once, serving
from fakenvml.fakebox import GIB
from fakenvml.fixtures import fake_box

pytestmark = pytest.mark.system

HERE = Path(__file__).parent

ROWS = re.findall(r"^\| (.+) \| `(\S+)::(\S+)` \|$", (HERE / "checklist.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_each_row_of_the_checklist_has_its_test(file, name):
    functions = ast.parse((HERE / file).read_text()).body
    assert name in {f.name for f in functions if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(
    ("code", "number"), [("NO_PERMISSION", 4), ("LIB_RM_VERSION_MISMATCH", 18), ("UNKNOWN", 999)]
)
def test_a_driver_that_cannot_be_reached_is_one_answer(code, number, tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.driver(loaded=False, code=code)
    assert once(box.environ)["error"] == number


@pytest.mark.parametrize(
    "code", ["NO_PERMISSION", "INSUFFICIENT_POWER", "IRQ_ISSUE", "GPU_IS_LOST", "UNKNOWN"]
)
def test_each_error_of_one_gpu_costs_that_gpu(code, tmp_path):
    box = fake_box("8xh100", tmp_path)
    box.error("*", code, dev=3)
    gpus = once(box.environ)["gpus"]
    assert ["error" in gpu for gpu in gpus] == [number == 3 for number in range(8)]


def test_no_call_is_used_that_another_gpu_can_spoil(tmp_path):
    box, log = fake_box("8xh100", tmp_path), tmp_path / "calls"
    box.set(uuid_lookup_fails_if_any_lost=True)
    box.lose(0)
    gpus = once({**box.environ, "FAKENVML_LOG": str(log)})["gpus"]
    assert ["error" in gpu for gpu in gpus] == [True] + [False] * 7
    calls = log.read_text()
    for spoilt in ("HandleByUUID", "TopologyNearestGpus", "RunningProcessDetailList"):
        assert spoilt not in calls


def test_an_instance_that_vanishes_while_it_is_read_is_left_out(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    with serving(box.environ) as child:
        assert len(ask(child)["gpus"][0]["instances"]) == 7
        gone = box.read()["devices"][0]["mig"]["instances"][2]["uuid"]
        with box.edit() as state:
            state["devices"][0]["mig"]["instances"][2]["errors"] = {"*": "INVALID_ARGUMENT"}
        (gpu,) = ask(child)["gpus"]
        assert gone not in [instance["uuid"] for instance in gpu["instances"]]
        assert len(gpu["instances"]) == 6


def test_a_mig_mode_that_waits_for_a_reset_changes_nothing(tmp_path):
    box = fake_box("4xa100", tmp_path)
    box.set(0, mig={"mode": 0, "pending": 1, "instances": []})
    assert "instances" not in once(box.environ)["gpus"][0]


def test_what_mig_does_not_tell_is_left_open(tmp_path):
    (gpu,) = once(fake_box("a100-mig7", tmp_path).environ)["gpus"]
    assert "utilization" not in gpu
    assert gpu["vitals"]["rows_failed"] is False
    assert all("utilization" not in instance for instance in gpu["instances"])


def test_what_the_driver_keeps_for_itself_is_not_in_use(tmp_path):
    box = fake_box("1xh100", tmp_path)
    box.proc(0, 41, GIB)
    (gpu,) = once(box.environ)["gpus"]
    assert gpu["memory_used"] == GIB
    assert gpu["memory_total"] > 79 * GIB


def test_numa_nodes_by_the_driver_where_the_kernel_has_none(tmp_path):
    box = fake_box("8xh100", tmp_path)
    box.error("nvmlDeviceGetMemoryAffinity", "NOT_SUPPORTED", dev=7)
    assert [gpu["numa_node"] for gpu in once(box.environ)["gpus"]] == [0, 0, 0, 0, 1, 1, 1, None]


def test_plain_cards_lack_much_and_are_healthy(tmp_path):
    box = fake_box("mixed4", tmp_path)
    for gpu in once(box.environ)["gpus"]:
        assert gpu["vitals"]["ecc"] is None
        assert gpu["vitals"]["rows_failed"] is False
        assert "error" not in gpu


def test_pins_by_index_count_as_cuda_does(tmp_path):
    from fakenvml.cuda import visible
    from stoker.model.device import Inventory
    from stoker_nvidia.inventory import inventory_of

    box = fake_box("8xh100", tmp_path)
    box.lose(2)
    for device in inventory_of(once(box.environ), Inventory()).devices:
        if device.ordinal is not None:
            ((found, _),) = visible(box.read(), str(device.ordinal))
            assert found["uuid"] == device.uuid
