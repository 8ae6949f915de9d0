"""Sharers under the operator's MPS, with a real daemon: what they are promised is handed to MPS to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakenvml.fixtures import fake_box
from system.harness import Box, environment_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")
LIMIT, PIPES = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_MPS_PIPE_DIRECTORY"


@contextmanager
def running(name: str) -> Iterator[int]:
    """A process of that name, which does nothing; its pid."""
    script = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); sys.stdin.read()"
    process = subprocess.Popen([name, "-c", script, name], executable=sys.executable, stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(10)


def test_sharers_are_bounded_by_the_operators_mps_as_long_as_it_runs(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    pipes = tmp_path / "mps"
    pipes.mkdir()
    with (
        Box(tmp_path, **gpus.environ, **{PIPES: str(pipes)}) as box,
        running("nvidia-cuda-mps-server") as server,
    ):
        plain = {"command": [sys.executable, str(WORKER), "--port", "{port}"]}
        services = {
            "sharer": plain | {"resources": {"gpu": 0.5, "gpu_memory": "4Gi", "devices": [0]}},
            "whole": plain | {"resources": {"gpu": 1}},
        }

        def bounds() -> list[str]:
            return [
                device["limits"] for device in json.loads(box.run("gpus", "-o", "json").stdout)["devices"]
            ]

        def environment(name: str) -> dict[str, str]:
            return environment_of(box.ready(name, 1)[0]["pid"])

        with running("nvidia-cuda-mps-control") as control:
            (pipes / "nvidia-cuda-mps-control.pid").write_text(f"{control}\n")
            box.write("services:\n" + "".join(f"  {k}: {json.dumps(v)}\n" for k, v in services.items()))
            box.up()
            seen = environment("sharer")
            assert (seen[LIMIT], seen[PIPES]) == ("0=4096M", str(pipes))
            assert LIMIT not in environment("whole"), "it has all of its GPU"
            gpus.proc(0, server, 3 * 2**30)
            box.until(lambda: "MPS server" in box.run("gpus").stdout, "what runs there is known")
            told = box.run("gpus").stdout
            assert bounds() == ["mps", "mps"]
            assert "MPS" in told.splitlines()[1]
            assert f"GPU 0: its workers use it through the MPS server (pid {server}, 3Gi)" in told
            assert "not Stoker's" not in told
        box.until(lambda: bounds() == ["", ""], "MPS has ended")
        assert "watching" in box.run("gpus").stdout.splitlines()[1]
        box.run("restart", "sharer")
        box.until(lambda: LIMIT not in environment("sharer"), "a new sharer is not told to speak to it")
