"""Workers beside their GPUs, with a real daemon: their cores and their memory are those of the GPU's node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakenvml.fixtures import fake_box
from system.harness import Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")
NODES = "/sys/devices/system/node"
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def through(tmp_path: Path) -> tuple[str, ...]:
    """A command that executes another one on a machine of two nodes: the first core of this machine is one,
    the others are the other. Only what the kernel tells of it is made up."""
    if len(CORES) < 2:
        pytest.skip("one core cannot be two NUMA nodes")
    for node, cores in enumerate((CORES[:1], CORES[1:])):
        place = tmp_path / "nodes" / f"node{node}"
        place.mkdir(parents=True)
        (place / "cpulist").write_text(",".join(map(str, cores)) + "\n")
    script = 'mount --bind "$0" ' + NODES + ' && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", script, str(tmp_path / "nodes"))
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mounts of our own here: {tried.stderr.strip()}")
    return command


def cores_of(pid: int) -> str:
    """What the kernel lets a process run on."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:"))


def memory_of(pid: int) -> str:
    """The kernel's word for where a process takes its memory from; a kernel without nodes has none."""
    maps = Path(f"/proc/{pid}/numa_maps")
    return maps.read_text().split()[1] if maps.exists() else "default"


def written(cores: list[int]) -> str:
    """As the kernel writes a set of neighbours."""
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]}-{cores[-1]}"


def test_a_gpu_worker_runs_on_the_cores_and_the_memory_of_its_gpus_node(tmp_path, through):
    gpus = fake_box("8xh100", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        box.through = through
        plain = {"command": [sys.executable, str(WORKER), "--port", "{port}"]}
        services = {
            "near": plain | {"resources": {"gpu": 1, "devices": ["0"]}},
            "far": plain | {"resources": {"gpu": 1, "devices": ["4"]}},
            "across": plain | {"resources": {"gpu": 2, "devices": ["1", "5"]}},
            "anywhere": plain | {"resources": {"gpu": 1, "devices": ["2"], "numa": "any"}},
            "cpu": plain,
        }
        box.write("services:\n" + "".join(f"  {k}: {json.dumps(v)}\n" for k, v in services.items()))
        box.up()
        pids = {name: box.ready(name, 1, seconds=40)[0]["pid"] for name in services}
        told = json.loads(box.run("gpus", "-o", "json").stdout)["devices"]
        assert [device["numa_node"] for device in told] == [0, 0, 0, 0, 1, 1, 1, 1]
        every = written(CORES)
        assert {name: cores_of(pid) for name, pid in pids.items()} == {
            "near": written(CORES[:1]),
            "far": written(CORES[1:]),
            "across": every,
            "anywhere": every,
            "cpu": every,
        }
        # Where a container forbids to choose, or the kernel knows no nodes, memory comes from anywhere.
        if memory_of(pids["near"]) == "default":
            pytest.skip("this machine does not let a process choose its memory")
        assert memory_of(pids["near"]) == "prefer:0"
        assert {memory_of(pids[name]) for name in ("across", "anywhere", "cpu")} == {"default"}
