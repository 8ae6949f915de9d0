"""What Ray is asked for, what is refused before, and how processes are held: without a cluster."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.model.node import Node
from stoker.model.service import Command, Elsewhere, Limits, Probe, Probes, Resources, ServiceSpec
from stoker.plugin import guard
from stoker.plugin.ports import StartRequest
from stoker.plugin.testing.driver_bench import TREE, none_running, until
from stoker_ray.driver import needs, node_of
from stoker_ray.plugin import shortfalls

REQUEST = StartRequest(
    replica="web-1", service="shop/web", mark="abc:shop/web:web-1", argv=("serve",), environ={},
    working_dir="/", log_path="/log", endpoint="127.0.0.1:20001",
)  # fmt: skip
SPEC = ServiceSpec(deployment="shop", name="web", launch=Command(("serve",)), working_dir="/")


def test_what_a_replica_needs_is_asked_for_in_rays_words() -> None:
    wanted = Elsewhere(
        resources=Resources(gpu=0.5, cpu=2.0, memory=1 << 30, gpu_type="h100"),
        custom=(("vram_mib", 8000.0),),
        strategy="SPREAD",
        runtime_env='{"pip": ["torch"]}',
    )
    assert needs(replace(REQUEST, elsewhere=wanted)) == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "memory": 1 << 30,
        "resources": {"vram_mib": 8000.0},
        "scheduling_strategy": "SPREAD",
        "accelerator_type": "H100",
        "runtime_env": {"pip": ["torch"]},
    }
    assert needs(REQUEST) == {"num_cpus": 0, "num_gpus": 0, "resources": {}}


def test_a_node_is_told_without_what_ray_counts_for_itself() -> None:
    resources = {
        "CPU": 8.0, "GPU": 4.0, "memory": 1e9, "object_store_memory": 1e8, "node:10.0.0.1": 1.0,
        "node:__internal_head__": 1.0, "accelerator_type:H100": 1.0, "vram_mib": 80000.0,
    }  # fmt: skip
    told = {"address": "10.0.0.1", "alive": True, "resources": resources}
    assert node_of(told) == Node(
        address="10.0.0.1", gpus=4, cpu=8, memory=10**9, accelerator="H100", custom={"vram_mib": 80000}
    )


def test_what_it_cannot_do_is_declared() -> None:
    assert shortfalls(SPEC) == {}
    asking = replace(
        SPEC, user="svc", preload=("torch",), limits=Limits(memory=1, nofile=9),
        probes=Probes(startup=Probe(notify=True)),
        elsewhere=Elsewhere(resources=Resources(gpu_memory=1)),
    )  # fmt: skip
    assert set(shortfalls(asking)) == {
        "user", "preload", "limits.memory", "probes.startup.notify", "resources.gpu_memory",
    }  # fmt: skip


def told(line: socket.socket) -> object:
    """The next message of a guard: a line, which may come together with the next one."""
    heard = bytearray()
    while not heard.endswith(b"\n"):
        piece = line.recv(1)
        assert piece, f"the guard has hung up after {bytes(heard)!r}"
        heard += piece
    return json.loads(heard)


def guarded(tmp_path: Path, *argv: str) -> tuple[socket.socket, int]:
    """A worker below a guard; the line to it and the worker's pid."""
    ours, theirs = socket.socketpair()
    order = {
        "path": argv[0], "argv": argv, "environ": {"ONLY": "this"}, "directory": str(tmp_path),
        "log": str(tmp_path / "log"), "umask": 0o022, "nofile": None,
    }  # fmt: skip
    words = [sys.executable, "-I", "-S", "-c", Path(guard.__file__).read_text()]
    with theirs:
        subprocess.run(words, stdin=theirs.fileno(), env={}, check=True)
    ours.settimeout(20)
    ours.sendall(json.dumps(order).encode() + b"\n")
    begun = told(ours)
    assert isinstance(begun, dict)
    return ours, begun["pid"]


def test_the_end_is_told_once_nothing_is_left(tmp_path: Path) -> None:
    line, _ = guarded(tmp_path, "/bin/sh", "-c", "env; exit 7")
    with line:
        assert told(line) == {"status": {"code": 7, "signal": None}}
    assert "ONLY=this" in (tmp_path / "log").read_text()


def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    line, _ = guarded(tmp_path, "/bin/sleep", "600")
    with line:
        line.sendall(b'{"signal": 15}\n')
        assert told(line) == {"status": {"code": None, "signal": signal.SIGTERM}}


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["line", "kill", "main"])
async def test_the_whole_tree_ends_whoever_ends_it(tmp_path: Path, how: str) -> None:
    """The actor dies, the driver kills, the worker itself is killed: its daemons end with it."""
    line, pid = guarded(tmp_path, sys.executable, "-c", TREE, str(tmp_path), "stay")
    files = [tmp_path / f"{name}.pid" for name in ("main", "child", "session", "daemon")]
    await until(lambda: all(file.exists() for file in files), "the worker's family")
    family = [int(file.read_text()) for file in files]
    if how == "kill":
        line.sendall(b'{"signal": 9}\n')
    elif how == "main":
        os.kill(pid, signal.SIGKILL)
    else:
        line.close()
    await until(lambda: none_running(family), "the end of all of it")
    line.close()
