"""Pinning with real processes on a fake eight-GPU box."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fakenvml.cuda import visible
from fakenvml.fixtures import fake_box, no_library
from system.harness import Box, environment_of, marked

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


def deployment(count: int) -> str:
    spec = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "resources": {"gpu": 1},
        "scaling": {"min_replicas": count, "max_replicas": count},
    }
    cpu = {"command": spec["command"]}
    return f"services:\n  infer: {json.dumps(spec)}\n  cpu: {json.dumps(cpu)}\n"


def nvml_processes(state: str) -> list[int]:
    """The processes that read this fake box."""
    return [
        pid
        for pid in marked(f"FAKENVML_STATE={state}")
        if b"stoker_nvidia" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_eight_replicas_get_eight_devices_and_the_ninth_waits_with_a_reason(tmp_path):
    with Box(tmp_path, **fake_box("8xh100", tmp_path).environ) as box:
        box.write(deployment(9))
        box.up()
        box.until(lambda: len(box.replicas("infer", "ready")) == 8, "eight ready replicas")
        replicas = box.replicas("infer", "ready")
        devices = [tuple(replica["devices"]) for replica in replicas]
        assert len(set(devices)) == 8
        for replica in replicas:
            seen = environment_of(replica["pid"])
            assert seen["CUDA_VISIBLE_DEVICES"] == replica["devices"][0]
            assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        (waiting,) = box.replicas("infer", "pending")
        assert "needs 1 whole GPU" in waiting["reason"]
        owners = {device["uuid"]: device["reserved_by"] for device in box.status()["devices"]}
        assert owners == {replica["devices"][0]: [replica["id"]] for replica in replicas}


def test_without_a_gpu_gpu_services_wait_and_cpu_services_run(tmp_path):
    with Box(tmp_path, **no_library(tmp_path)) as box:
        box.write(deployment(1))
        box.up()
        box.ready("cpu", 1)
        (waiting,) = box.replicas("infer")
        assert waiting["phase"] == "pending"
        assert "GPU" in waiting["reason"]


def test_a_cordoned_gpu_keeps_its_worker_over_a_restart_and_a_released_one_loses_it(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        box.write(deployment(1))
        box.up()
        (first,) = box.ready("infer", 1)
        (mine,) = first["devices"]
        (other,) = [device["uuid"] for device in box.status()["devices"] if device["uuid"] != mine]

        def health(uuid):
            return next(device["health"] for device in box.status()["devices"] if device["uuid"] == uuid)

        assert f"{first['id']} stays" in box.run("gpus", "cordon", mine[:12]).stdout
        box.until(lambda: health(mine) == "cordoned", "the device is cordoned")
        assert [r["pid"] for r in box.replicas("infer")] == [first["pid"]]
        box.kill()
        box.up()
        box.until(lambda: any(d["health"] == "cordoned" for d in box.status()["devices"]), "still cordoned")
        assert [r["pid"] for r in box.ready("infer", 1)] == [first["pid"]]

        box.run("gpus", "release", mine)
        box.until(lambda: [r["devices"] for r in box.replicas("infer", "ready")] == [[other]], "it has moved")
        assert health(mine) == "quarantined"
        box.until(lambda: "the driver is let go for 20s" in box.run("events").stdout, "it can be reset")
        box.until(lambda: not nvml_processes(gpus.path), "nobody holds the driver open")
        box.run("gpus", "uncordon", mine)
        box.until(lambda: health(mine) == "healthy", "the device is back")
        refused = box.run("gpus", "cordon", "GPU-nix", check=False)
        assert refused.returncode == 1
        assert "no device 'GPU-nix'" in refused.stderr


def test_a_sick_gpu_loses_its_worker_stays_out_over_a_restart_and_comes_back_by_release(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        box.write(deployment(1))
        box.up()
        (first,) = box.ready("infer", 1)
        (mine,) = first["devices"]

        def device():
            return next(device for device in box.status()["devices"] if device["uuid"] == mine)

        gpus.xid(mine, 31)
        box.until(
            lambda: box.replicas("infer", "ready")[0:1] and box.replicas("infer")[0]["restarts"] == 1,
            "the worker is started again",
        )
        (again,) = box.replicas("infer")
        assert {d["health"] for d in box.status()["devices"]} == {"healthy"}, "it was the program's fault"
        assert f"Xid 31, GPU memory page fault, on {mine[:12]}" in box.run("story", again["id"]).stdout
        (mine,) = again["devices"]

        (other,) = {*gpus.uuids} - {mine}
        gpus.xid(mine, 95)
        box.until(lambda: [r["devices"] for r in box.replicas("infer", "ready")] == [[other]], "it has moved")
        box.until(lambda: device()["health"] == "quarantined", "nobody is on it")
        assert device()["health_reason"] == "Xid 95, uncontained memory error"
        assert device()["health_since_s"] >= 0
        box.kill()
        box.until(lambda: not nvml_processes(gpus.path), "the NVML process dies with the daemon")
        box.up()
        box.until(lambda: box.status()["devices"], "the devices are known")
        assert device()["health"] == "quarantined"
        assert "Xid 95" in box.run("gpus").stdout
        assert f"{mine}: on probation" in box.run("gpus", "release", mine).stdout
        box.until(lambda: device()["health"] == "probation", "it is watched")
        gpus.set(mine, recovery_action=1)
        box.until(lambda: device()["health"] == "quarantined", "the driver objects")
        refused = box.run("gpus", "release", mine, check=False)
        assert (refused.returncode, "asks for a reset" in refused.stderr) == (1, True)
    assert nvml_processes(gpus.path) == [], "nor does it outlive an orderly end"


def test_a_gpu_that_hangs_keeps_its_worker_and_the_others_are_watched_as_before(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        box.write(deployment(2))
        box.up()
        workers = {replica["devices"][0]: replica for replica in box.ready("infer", 2)}
        hung, well = gpus.uuids

        def health():
            return {device["uuid"]: device["health"] for device in box.status()["devices"]}

        gpus.hang("*", 600_000, dev=hung)
        box.until(lambda: health() == {hung: "unreachable", well: "healthy"}, "the GPU is unreachable")
        shown = box.run("gpus").stdout
        assert "GPU 0: unreachable: it does not answer" in shown
        assert "its workers stay" in shown
        box.write(deployment(3))
        box.until(lambda: box.replicas("infer", "pending"), "a third replica")
        assert "GPU 0 is unreachable (it does not answer)" in box.replicas("infer", "pending")[0]["reason"]

        gpus.xid(well, 31)
        box.until(
            lambda: any(
                r["devices"] == [well] and r["restarts"] == 1 for r in box.replicas("infer", "ready")
            ),
            "the other GPU is still listened to",
        )
        gpus.hang("*", None, dev=hung)
        box.until(lambda: health() == {hung: "healthy", well: "healthy"}, "it answers", seconds=40)
        assert workers[hung]["pid"] in [replica["pid"] for replica in box.replicas("infer", "ready")]


def test_a_gpu_is_given_on_only_when_its_last_worker_is_gone_from_it_and_strays_are_told(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        spec = {"command": [sys.executable, str(WORKER), "--port", "{port}"], "resources": {"gpu": 2}}
        later = {**spec, "scaling": {"min_replicas": 0, "max_replicas": 1}, "standby": 1}
        first, second = json.dumps({**spec, "priority": 1}), json.dumps(later)
        cpu = json.dumps({"command": spec["command"]})
        box.write(f"services:\n  first: {first}\n  second: {second}\n  cpu: {cpu}\n")
        box.up()
        (holder,) = box.ready("first", 1)
        (stray,) = box.ready("cpu", 1)
        gpus.proc(0, pid=stray["pid"], mem=2**20)
        said = f"{stray['id']} runs on {gpus.uuids[0][:12]}, which is not its own (it has none)"
        box.until(lambda: said in box.run("events").stdout, "the stray worker is told")
        gpus.proc(1, pid=holder["pid"], mem=2**30, reap=False)
        box.run("stop", "first")
        box.until(lambda: not box.replicas("first"), "the first service has left")
        box.until(
            lambda: f"pid {holder['pid']} is still on it" in box.replicas("second")[0]["reason"],
            "the gate holds",
        )
        gpus.set(1, memory_used=2**30)
        gpus.unproc(holder["pid"])
        box.until(
            lambda: "1Gi of its memory is not free again" in box.replicas("second")[0]["reason"],
            "the gate holds for memory too",
        )
        gpus.set(1, memory_used=0)
        box.ready("second", 1)
        assert "given on all the same" not in box.run("events").stdout


def test_the_sharer_that_takes_too_much_is_warned_and_replaced_and_its_neighbour_stays(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        spec = {"command": [sys.executable, str(WORKER), "--port", "{port}"]}
        half = json.dumps({**spec, "resources": {"gpu": 0.5, "gpu_memory": "4Gi"}})
        box.write(f"services:\n  greedy: {half}\n  modest: {half}\n")
        box.up()
        (greedy,), (modest,) = box.ready("greedy", 1), box.ready("modest", 1)
        assert greedy["devices"] == modest["devices"]
        gpus.proc(greedy["devices"][0], pid=modest["pid"], mem=4 * 2**30)
        gpus.proc(greedy["devices"][0], pid=greedy["pid"], mem=7 * 2**30)
        said = f"{greedy['id']} uses 7Gi of {greedy['devices'][0][:12]}, but 4Gi was promised to it"
        box.until(lambda: said in box.run("events").stdout, "the warning")
        box.until(
            lambda: box.replicas("greedy", "ready") and box.replicas("greedy")[0]["restarts"] == 1,
            "the offender is replaced",
            seconds=40,
        )
        assert [r["pid"] for r in box.replicas("modest", "ready")] == [modest["pid"]]


def test_strict_pinning_stops_a_stray_and_pins_by_index_count_as_cuda_does(tmp_path):
    gpus = fake_box("8xh100", tmp_path)
    gpus.lose(0)
    allow = ",".join(gpus.uuids[:3])
    with Box(tmp_path, **gpus.environ, CUDA_VISIBLE_DEVICES=allow) as box:
        spec = {"command": [sys.executable, str(WORKER), "--port", "{port}"], "resources": {"gpu": 1}}
        strict = json.dumps({**spec, "strict_pinning": True, "pin": "index"})
        box.write(f"services:\n  infer: {strict}\n")
        box.up()
        (worker,) = box.ready("infer", 1)
        assert {device["uuid"] for device in box.status()["devices"]} <= {*gpus.uuids[:3]}, "the allow-list"
        shown = environment_of(worker["pid"])["CUDA_VISIBLE_DEVICES"]
        assert shown.isdecimal()
        assert [device["uuid"] for device, _ in visible(gpus.read(), shown)] == worker["devices"]
        (other,) = {*gpus.uuids[1:3]} - {*worker["devices"]}
        gpus.proc(other, pid=worker["pid"], mem=2**20)
        box.until(
            lambda: box.replicas("infer", "ready") and box.replicas("infer")[0]["restarts"] == 1,
            "the stray was replaced",
        )
        assert f"runs on {other[:12]}, which is not its own" in box.run("story", worker["id"]).stdout
