"""The driver of the machine, as Stoker's NVML process tells of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

FAKE = os.environ.get("STOKER_DEVICE_FAKE")
"""Preset of a fake box to try the tests themselves on."""


def report(environ: dict[str, str]) -> dict[str, Any]:
    """What Stoker's NVML process tells."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stoker_nvidia.child", "--once"],
        env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found
