"""The child process by itself: what it says about each kind of box, and when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from fakenvml.child import COMMAND, ask, once, serving
from fakenvml.fakebox import GIB
from fakenvml.fixtures import fake_box, no_library

pytestmark = pytest.mark.system

LOST = 15


def until(condition, within: float = 20.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("8xh100", ["NVIDIA H100 80GB HBM3"] * 8),
        ("2xt4", ["Tesla T4"] * 2),
        ("a100-mig7", ["NVIDIA A100-SXM4-40GB"]),
        (
            "mixed4",
            ["NVIDIA GeForce GTX 1660 SUPER", *["NVIDIA GeForce RTX 3090"] * 2, "NVIDIA GeForce RTX 4090"],
        ),
        ("none", []),
    ],
)
def test_boxes(preset, names, tmp_path):
    box = fake_box(preset, tmp_path)
    report = once(box.environ)
    assert [gpu["name"] for gpu in report["gpus"]] == names
    assert [gpu["uuid"] for gpu in report["gpus"]] == box.uuids
    assert report["driver"] == box.read().get("driver_version", "580.159.04")


def test_no_driver_and_no_library_are_answers(tmp_path):
    assert once(fake_box("nodriver", tmp_path).environ)["error"] == 9
    assert once(no_library(tmp_path))["error"] == 12


def test_mig_instances(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    box.proc(0, 5, GIB, gi=10, ci=0)
    (gpu,) = once(box.environ)["gpus"]
    assert [part["name"] for part in gpu["instances"]] == ["NVIDIA A100-SXM4-40GB MIG 1g.5gb"] * 7
    assert len({part["uuid"] for part in gpu["instances"]}) == 7
    assert [part["processes"] for part in gpu["instances"]].count([[5, GIB]]) == 1
    assert gpu["instances"][3]["memory_used"] == GIB + (13 << 20)


def test_holes_between_mig_instances(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    with box.edit() as state:
        del state["devices"][0]["mig"]["instances"][2:5]
    assert len(once(box.environ)["gpus"][0]["instances"]) == 4


def test_links_tell_nvlink_from_sockets(tmp_path):
    report = once(fake_box("8xh100", tmp_path).environ)
    uuids = [gpu["uuid"] for gpu in report["gpus"]]
    scores = {(a, b): score for a, b, score in report["links"]}
    assert len(scores) == 28
    assert scores[uuids[0], uuids[1]] == 110
    assert scores[uuids[0], uuids[7]] == 100
    (tmp_path / "b").mkdir()
    report = once(fake_box("mixed4", tmp_path / "b").environ)
    best = max(report["links"], key=lambda joint: joint[2])
    assert best == [report["gpus"][1]["uuid"], report["gpus"][2]["uuid"], 140]


def test_processes_of_both_kinds_once_each(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.proc(0, 41, 3 * GIB)
    box.proc(0, 42, GIB, kind="G")
    box.proc(0, 43, GIB, kind="CG")
    box.proc(0, 44, None)
    first, second = once(box.environ)["gpus"]
    assert first["processes"] == [[41, 3 * GIB], [42, GIB], [43, GIB], [44, None]]
    assert first["memory_used"] == 5 * GIB
    assert second["processes"] == []


def test_what_a_gpu_does_not_tell_is_left_open(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.set(0, util_gpu=None)
    for function in ("nvmlDeviceGetMigMode", "nvmlDeviceGetP2PStatus", "nvmlDeviceGetTopologyCommonAncestor"):
        box.error(function, "UNKNOWN")
    box.error("nvmlDeviceGet*RunningProcesses*", "NO_PERMISSION", dev=1)
    report = once(box.environ)
    first, second = report["gpus"]
    assert first["utilization"] is None
    assert second["utilization"] == 0.0
    assert second["processes"] == []
    assert [score for _, _, score in report["links"]] == [0]


def test_a_470_series_driver(tmp_path):
    box = fake_box("2xt4", tmp_path, old=True)
    box.proc(0, 41, 3 * GIB)
    first = once(box.environ)["gpus"][0]
    assert first["processes"] == [[41, 3 * GIB]]
    assert first["memory_total"] == 15360 << 20
    assert 3 * GIB < first["memory_used"] < 4 * GIB, "the old call counts the driver's own part as used"


def test_one_lost_gpu_is_one_entry(tmp_path):
    box = fake_box("8xh100", tmp_path)
    box.lose(3)
    gpus = once(box.environ)["gpus"]
    assert [gpu.get("error") for gpu in gpus] == [None] * 3 + [LOST] + [None] * 4


def test_a_gpu_lost_in_the_middle_of_reading_is_one_entry_too(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.error("nvmlDeviceGetMemoryInfo*", "GPU_IS_LOST", dev=0)
    first, second = once(box.environ)["gpus"]
    assert (first["error"], first["uuid"]) == (LOST, box.uuids[0])
    assert "error" not in second


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo*",
        "nvmlDeviceGetComputeRunningProcesses*", "nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode", "*",
    ],
)  # fmt: skip
def test_a_gpu_that_hangs_costs_its_own_reading(function, tmp_path):
    box = fake_box("8xh100", tmp_path)
    with serving(box.environ) as child:
        assert all("error" not in gpu for gpu in ask(child)["gpus"])
        box.hang(function, 60_000, dev=3)
        box.proc(0, 41, GIB)
        box.proc(7, 42, GIB)
        gpus = ask(child, patience=1.0)["gpus"]
        assert [gpu["index"] for gpu in gpus if "hangs" in gpu] == [3]
        assert gpus[3]["uuid"] == box.uuids[3]
        assert gpus[0]["processes"], "read before it"
        assert gpus[7]["processes"] == [[42, GIB]], "read after it"
        box.xid(5, 31)
        began = time.monotonic()
        report = ask(child, patience=10.0)
        assert time.monotonic() - began < 5, "it is not waited for again"
        assert report["gpus"][3]["hangs"] >= gpus[3]["hangs"]
        assert [event["uuid"] for event in report["events"]] == [box.uuids[5]]
        box.hang(function, None, dev=3)
        until(lambda: "hangs" not in ask(child)["gpus"][3])
        box.xid(3, 31)
        assert [event["uuid"] for event in ask(child)["events"]] == [box.uuids[3]], "told once"


def test_gpus_that_hang_at_the_start_are_told_from_those_that_are_gone(tmp_path):
    box = fake_box("4xa100", tmp_path)
    for number in (1, 2):
        box.hang("*", 60_000, dev=number)
    with serving(box.environ) as child:
        gpus = ask(child, patience=1.0)["gpus"]
        assert ["hangs" in gpu for gpu in gpus] == [False, True, True, False]
        assert [gpu.get("uuid") for gpu in gpus] == [box.uuids[0], None, None, box.uuids[3]]
        assert psutil.Process(child.pid).num_threads() <= 4
        box.hang("*", None, dev=1)
        box.hang("*", None, dev=2)
        until(lambda: all("hangs" not in gpu for gpu in ask(child)["gpus"]))
        until(lambda: psutil.Process(child.pid).num_threads() == 2)


def test_links_that_cannot_be_asked_now_cost_nothing_else(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.hang("nvmlDeviceGetP2PStatus", 60_000)
    with serving(box.environ) as child:
        report = ask(child, patience=0.3)
        assert (len(report["gpus"]), report["links"]) == (2, [])
        box.hang("nvmlDeviceGetP2PStatus", None)
        until(lambda: len(ask(child)["links"]) == 1)


def test_it_ends_with_its_input_while_a_gpu_hangs(tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.hang("*", 60_000, dev=0)
    with serving(box.environ) as child:
        assert "hangs" in ask(child, patience=0.2)["gpus"][0]
        child.stdin.close()
        assert child.wait(timeout=10) == 0


def test_it_follows_changes_and_a_driver_that_goes_and_comes(tmp_path):
    box = fake_box("2xt4", tmp_path)
    with serving(box.environ) as child:
        assert len(ask(child)["gpus"]) == 2
        box.remove(0)
        assert [gpu["uuid"] for gpu in ask(child)["gpus"]] == box.uuids[1:]
        box.driver(loaded=False)
        assert ask(child)["error"] == 9
        box.driver(loaded=True)
        assert len(ask(child)["gpus"]) == 1
        box.driver(loaded=False, code="LIB_RM_VERSION_MISMATCH")
        assert ask(child)["error"] == 18


@pytest.mark.parametrize("forgetful", [False, True], ids=["", "forgetful driver"])
def test_xids_are_told_once_also_of_a_gpu_that_is_lost_and_of_one_that_came_back(forgetful, tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.set(loss_ends_events=forgetful)
    with serving(box.environ) as child:
        box.xid(0, 13)
        assert ask(child)["events"] == [], "what was before is not known"
        box.xid(0, 31)
        box.xid(1, 79)
        box.lose(1)
        told = [(event["uuid"], event["xid"], event["part"]) for event in ask(child)["events"]]
        assert told == [(box.uuids[0], 31, [None, None]), (box.uuids[1], 79, [None, None])]
        assert ask(child)["events"] == []
        box.lose(1, lost=False)
        ask(child)
        box.xid(1, 45)
        assert [event["xid"] for event in ask(child)["events"]] == [45]
        box.driver(loaded=False)
        assert ask(child)["error"] == 9
        box.driver(loaded=True)
        ask(child)
        box.xid(0, 94)
        assert [event["xid"] for event in ask(child)["events"]] == [94]


def test_an_xid_names_its_mig_instance(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    with serving(box.environ) as child:
        parts = [instance["part"] for instance in ask(child)["gpus"][0]["instances"]]
        assert parts == [[7 + k, 0] for k in range(7)]
        box.xid(0, 31, gi=9, ci=0)
        assert [event["part"] for event in ask(child)["events"]] == [[9, 0]]


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlEventSetCreate", "NOT_SUPPORTED"),
        ("nvmlDeviceRegisterEvents", "NOT_SUPPORTED"),
        ("nvmlDeviceGetSupportedEventTypes", "UNKNOWN"),
        ("nvmlEventSetWait_v2", "UNKNOWN"),
    ],
)
def test_a_driver_without_events_tells_all_else(function, code, tmp_path):
    box = fake_box("2xt4", tmp_path)
    box.error(function, code)
    with serving(box.environ) as child:
        ask(child)
        box.xid(0, 31)
        report = ask(child)
        assert (len(report["gpus"]), report["events"]) == (2, [])


def test_vitals_as_far_as_they_are_told(tmp_path):
    box = fake_box("8xh100", tmp_path)
    box.set(0, recovery_action=1, ecc_errors={"uncorrected": 2}, remapped_rows={"pending": 1, "failure": 1})
    for function in ("GetFieldValues", "GetTotalEccErrors", "GetRemappedRows"):
        box.error(f"nvmlDevice{function}", "NOT_SUPPORTED", dev=1)
    box.set(2, fields={"230": None})
    first, second, third, *_ = once(box.environ)["gpus"]
    assert first["vitals"] == {
        "recovery": 1, "ecc": 2, "rows_pending": True, "rows_failed": True, "pages_pending": False,
    }  # fmt: skip
    assert second["vitals"] == {
        "recovery": None, "ecc": None, "rows_pending": False, "rows_failed": False, "pages_pending": False,
    }  # fmt: skip
    assert third["vitals"]["recovery"] is None
    (tmp_path / "b").mkdir()
    old = fake_box("2xt4", tmp_path / "b")
    old.set(0, retired_pages={"pending": 1})
    assert [gpu["vitals"]["pages_pending"] for gpu in once(old.environ)["gpus"]] == [True, False]


def test_links_are_asked_once_per_set_of_gpus(tmp_path):
    box, log = fake_box("2xt4", tmp_path), tmp_path / "calls"
    with serving({**box.environ, "FAKENVML_LOG": str(log)}) as child:
        for _ in range(3):
            ask(child)
        assert log.read_text().count("nvmlDeviceGetP2PStatus") == 1
        assert log.read_text().count("nvmlInit") == 1


def test_it_is_small(tmp_path):
    with serving(fake_box("8xh100", tmp_path).environ) as child:
        for _ in range(20):
            ask(child)
        process = psutil.Process(child.pid)
        assert process.memory_info().rss < 40 * 2**20
        assert process.num_threads() == 2, "one waits, one asks"


def test_it_ends_with_its_input(tmp_path):
    with serving(fake_box("2xt4", tmp_path).environ) as child:
        ask(child)
        child.stdin.close()
        assert child.wait(timeout=10) == 0


def test_it_dies_with_its_parent_even_inside_a_call_that_hangs(tmp_path):
    box, log = fake_box("2xt4", tmp_path), tmp_path / "calls"
    box.hang("nvmlDeviceGetUtilizationRates", 60_000)
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({COMMAND!r}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "child.stdin.write(b'\\n'); child.stdin.flush()\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    environ = {**os.environ, **box.environ, "FAKENVML_LOG": str(log)}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        until(lambda: log.exists() and "GetMemoryInfo" in log.read_text())
        parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_it_refuses_arguments_it_does_not_know():
    done = subprocess.run([*COMMAND, "--twice"], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage" in done.stderr
