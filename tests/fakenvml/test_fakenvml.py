"""The fake driver library keeps its promises to the unmodified nvidia-ml-py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakenvml.fakebox import FakeBox
from fakenvml.fixtures import fake_box, no_library
from fakenvml.presets import PRESETS
from fakenvml.scenarios import SCENARIOS

TESTS = str(Path(__file__).resolve().parents[1])

COUNT = """
import pynvml as n
try:
    n.nvmlInit()
    print(n.nvmlDeviceGetCount())
except n.NVMLError as error:
    print(-error.value)
"""


def run(*argv: str, environ: dict[str, str]) -> str:
    whole = {**os.environ, "PYTHONPATH": TESTS, **environ}
    command = [sys.executable, *argv]
    done = subprocess.run(command, env=whole, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name, tmp_path):
    preset, old, _ = SCENARIOS[name]
    box = fake_box(preset, tmp_path, old=old)
    run("-m", "fakenvml.scenarios", name, box.path, environ=box.environ)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_can_be_read(name, tmp_path):
    box = fake_box(name, tmp_path)
    expected = -9 if name == "nodriver" else len(box.uuids)
    assert int(run("-c", COUNT, environ=box.environ)) == expected


def test_no_library_is_no_library_even_beside_a_real_one(tmp_path):
    assert int(run("-c", COUNT, environ=no_library(tmp_path))) == -12


def test_the_call_log_tells_what_was_asked(tmp_path):
    box, log = fake_box("1xh100", tmp_path), tmp_path / "calls"
    code = "n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(0))"
    run("-c", f"{COUNT}\n{code}", environ={**box.environ, "FAKENVML_LOG": str(log)})
    assert [line.split()[2] for line in log.read_text().splitlines()] == [
        "nvmlInit", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName",
    ]  # fmt: skip


def test_many_editors_lose_no_change(tmp_path):
    box = FakeBox.preset("2xt4", tmp_path / "state.json")
    code = (
        "import sys; from fakenvml.fakebox import FakeBox; box = FakeBox(sys.argv[1])\n"
        "for i in range(20): box.proc(0, int(sys.argv[2]) * 100 + i, 1)"
    )
    editors = [
        subprocess.Popen(
            [sys.executable, "-c", code, box.path, str(k)], env={**os.environ, "PYTHONPATH": TESTS}
        )
        for k in range(4)
    ]
    assert [editor.wait(timeout=30) for editor in editors] == [0, 0, 0, 0]
    assert len(box.read()["devices"][0]["processes"]) == 80
