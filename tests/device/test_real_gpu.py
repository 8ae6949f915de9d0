"""Inventory, pins, gates, health and loops against a real driver, in under five minutes; see conftest.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from device.machine import FAKE, report
from system.harness import Box, marked

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")
ROUNDS = 4 if FAKE else 20
MIB = 2**20


class GpuBox(Box):
    """A daemon on the machine's GPUs with services of the CUDA worker."""

    def __init__(self, directory: Path, driver: dict[str, str]) -> None:
        super().__init__(directory, **driver)
        self._driver = driver

    def services(self, **services: dict[str, Any]) -> None:
        """`arguments` of a service go to its worker."""
        made = {}
        for name, keys in services.items():
            arguments = keys.pop("arguments", [])
            made[name] = {
                "command": [sys.executable, str(WORKER), "--port", "{port}", *arguments],
                "probes": {"startup": {"http": "/", "timeout": "60s"}},
                "inherit_env": [*self._driver],
                "restart": {"backoff": "0.2s"},
                **keys,
            }
        self.write(json.dumps({"services": made}))

    def devices(self) -> list[dict[str, Any]]:
        """The devices document."""
        found: list[dict[str, Any]] = json.loads(self.run("gpus", "-o", "json").stdout)["devices"]
        return found

    def on_device(self, replica: str) -> list[tuple[str, int]]:
        """Where the driver shows the processes of a replica: UUID and bytes."""
        return [
            (device["uuid"], process["memory"] or 0)
            for device in self.devices()
            for process in device["processes"]
            if process["owner"] == replica
        ]

    def nvml_process(self) -> int | None:
        """The pid of the process that holds NVML."""
        assert self.daemon is not None
        for child in psutil.Process(self.daemon.pid).children():
            if "stoker_nvidia.child" in child.cmdline():
                return child.pid
        return None


def smi(*fields: str) -> list[list[str]]:
    """What nvidia-smi says; nothing where it is not installed."""
    if FAKE or shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]


def test_the_inventory_is_what_nvidia_smi_shows(driver, record):
    began = time.monotonic()
    found = report(driver)
    record["first_report_s"] = round(time.monotonic() - began, 3)
    record["report"] = found
    assert found["events"] == []
    for gpu in found["gpus"]:
        assert gpu["uuid"].startswith("GPU-")
        assert gpu["memory_total"] > 0
        assert gpu["bus_id"]
    theirs = {uuid: (name, int(mib)) for uuid, name, mib in smi("uuid", "name", "memory.total")}
    ours = {gpu["uuid"]: (gpu["name"], gpu["memory_total"] // MIB) for gpu in found["gpus"]}
    assert not theirs or ours == theirs


@pytest.mark.parametrize("pin", ["uuid", "index"])
def test_a_worker_sees_its_own_gpu_and_no_other(pin, driver, record, tmp_path):
    with GpuBox(tmp_path, driver) as box:
        box.services(infer={"resources": {"gpu": 1}, "pin": pin})
        box.up()
        (replica,) = box.ready("infer", 1, seconds=60)
        seen = json.loads(box.get("infer"))
        assert [seen["uuid"]] == replica["devices"]
        assert seen["count"] == 1
        box.until(lambda: box.on_device(replica["id"]), "the driver shows the worker", seconds=30)
        ((uuid, used),) = box.on_device(replica["id"])
        assert uuid == seen["uuid"]
        record[f"pin_{pin}"] = {"own_pid_shown": True, "context_mib": used // MIB - 64}


def test_a_worker_on_a_gpu_that_is_not_its_own_is_told_and_with_strict_pinning_stopped(driver, tmp_path):
    with GpuBox(tmp_path, driver) as box:
        box.services(
            told={"arguments": ["--astray"]},
            stopped={"arguments": ["--astray"], "strict_pinning": True},
        )
        box.up()
        box.until(lambda: "which is not its own" in box.run("events").stdout, "it is told", seconds=40)
        box.until(lambda: box.replicas("stopped")[0]["restarts"] >= 1, "it was stopped", seconds=60)
        (told,) = box.replicas("told")
        assert told["restarts"] == 0


def test_a_fault_of_the_program_restarts_it_and_leaves_the_gpu_healthy(driver, record, tmp_path):
    with GpuBox(tmp_path, driver) as box:
        box.services(infer={"resources": {"gpu": 1}})
        box.up()
        (replica,) = box.ready("infer", 1, seconds=60)
        box.until(lambda: box.on_device(replica["id"]), "the driver shows the worker", seconds=30)
        began = time.monotonic()
        with pytest.raises(OSError, match="500"):
            box.get("infer", "/misbehave")
        box.until(lambda: box.replicas("infer")[0]["restarts"] >= 1, "the worker is replaced", seconds=60)
        took = round(time.monotonic() - began, 1)
        box.ready("infer", 1, seconds=60)
        assert {device["health"] for device in box.devices()} == {"healthy"}
        told = [line for line in box.run("story", replica["id"]).stdout.splitlines() if "Xid" in line]
        record["xid"] = {"told": told[:1], "replaced_after_s": took}
        assert told, box.run("events").stdout


def test_a_sharer_beyond_its_promise_is_replaced_and_its_neighbour_stays(driver, record, tmp_path):
    with GpuBox(tmp_path, driver) as box:
        share = {"resources": {"gpu": 0.25, "gpu_memory": "1Gi"}}
        box.services(greedy=dict(share), modest=dict(share))
        box.up()
        (greedy,) = box.ready("greedy", 1, seconds=60)
        (modest,) = box.ready("modest", 1, seconds=60)
        assert greedy["devices"] == modest["devices"]
        box.get("greedy", "/take?3072")
        box.until(lambda: "was promised to it" in box.run("events").stdout, "the warning", seconds=30)
        box.until(lambda: box.replicas("greedy")[0]["restarts"] >= 1, "it was replaced", seconds=60)
        assert [r["pid"] for r in box.replicas("modest", "ready")] == [modest["pid"]]
        record["memory_promise"] = "held by watching"


def test_many_starts_and_stops_leave_nothing_behind(driver, record, tmp_path):
    with GpuBox(tmp_path, driver) as box:
        box.services(infer={"resources": {"gpu": 1}, "arguments": ["--mib", "1024"]})
        box.up()
        (replica,) = box.ready("infer", 1, seconds=60)
        (uuid,) = replica["devices"]
        before = memory_used(driver, uuid) - 1024 * MIB
        rounds = []
        for number in range(1, ROUNDS + 1):
            (old,) = box.replicas("infer", "ready")
            began = time.monotonic()
            os.kill(old["pid"], signal.SIGKILL)
            box.until(
                lambda n=number: box.replicas("infer", "ready") and box.replicas("infer")[0]["restarts"] >= n,
                f"start {number}",
                seconds=40,
            )
            rounds.append(time.monotonic() - began)
        box.run("stop", "infer")
        box.until(lambda: not box.replicas("infer"), "it has left", seconds=40)
        box.until(lambda: not box.on_device(replica["id"]), "no process is left on it")
        after = memory_used(driver, uuid)
        record["kill_to_ready_s"] = {
            "median": round(statistics.median(rounds), 2), "worst": round(max(rounds), 2), "rounds": ROUNDS,
        }  # fmt: skip
        record["memory_left_behind_mib"] = (after - before) // MIB
        assert after <= before + 64 * MIB
        assert "given on all the same" not in box.run("events").stdout


def memory_used(driver: dict[str, str], uuid: str) -> int:
    used: int = next(gpu["memory_used"] for gpu in report(driver)["gpus"] if gpu["uuid"] == uuid)
    return used


def test_the_nvml_process_may_die_or_let_go_and_no_worker_notices(driver, record, tmp_path):
    with GpuBox(tmp_path, driver) as box:
        box.services(infer={"resources": {"gpu": 1}})
        box.up()
        (replica,) = box.ready("infer", 1, seconds=60)
        child = box.nvml_process()
        assert child is not None
        process = psutil.Process(child)
        record["nvml_process"] = {
            "rss_mib": round(process.memory_info().rss / MIB, 1),
            "threads": process.num_threads(),
        }
        os.kill(child, signal.SIGKILL)
        box.until(lambda: box.nvml_process() not in (None, child), "a new one is there", seconds=40)
        assert [r["pid"] for r in box.replicas("infer", "ready")] == [replica["pid"]]
        box.run("gpus", "release", replica["devices"][0])
        box.until(lambda: "the driver is let go" in box.run("events").stdout, "nobody is on it", seconds=60)
        box.until(lambda: box.nvml_process() is None, "NVML is closed")
        ours = [pid for pid in [box.daemon.pid, *box.pids(), *marked(str(tmp_path))] if holds_driver(pid)]
        assert ours == [], "a GPU could not be reset while somebody has it open"


def holds_driver(pid: int) -> bool:
    try:
        return any("/dev/nvidia" in os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
