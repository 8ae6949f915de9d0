"""A machine with a real NVIDIA GPU, or a reason to skip; the record of what was found there.

    pytest tests/device                             # on the real driver
    STOKER_DEVICE_FAKE=1xh100 pytest tests/device   # the tests themselves, tried on a fake box

The record is printed at the end, and written to $OUT/device.json where OUT is set.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device.machine import FAKE, report
from fakenvml.fakebox import FakeBox

RECORD: dict[str, Any] = {}


@pytest.fixture(scope="session")
def driver() -> Iterator[dict[str, str]]:
    """The environment in which a GPU is seen; skips where there is none."""
    if FAKE:
        with tempfile.TemporaryDirectory() as directory:
            box = FakeBox.preset(FAKE, Path(directory, "box.json"))
            yield {**box.environ, "CUDA_TEST_BOX": box.path}
        return
    environ = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    found = report(environ)
    if "error" in found:
        pytest.skip(f"no NVIDIA GPU: {found['text']} (NVML error {found['error']})")
    usable = [gpu for gpu in found["gpus"] if not {"error", "hangs", "instances"} & gpu.keys()]
    if not usable:
        pytest.skip("no NVIDIA GPU that can be opened and is not in MIG mode")
    yield environ


@pytest.fixture(scope="session")
def record() -> dict[str, Any]:
    """Findings by name."""
    return RECORD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and keep the record."""
    if not RECORD:
        return
    text = json.dumps(RECORD, indent=1, default=str)
    terminalreporter.section("what this machine says")
    terminalreporter.write_line(text)
    if "OUT" in os.environ:
        Path(os.environ["OUT"], "device.json").write_text(text)
