"""The systemd driver keeps its port's promises. Needs a systemd that runs; `tests/system` brings one."""

import os
from pathlib import Path
from typing import ClassVar

import pytest

from stoker.plugin.testing.driver import DriverSuite

pytest.importorskip("jeepney")
if not Path("/run/systemd/system").is_dir():
    pytest.skip(
        "systemd does not run here; tests/system/test_systemd_driver.py runs these where it does",
        allow_module_level=True,
    )
if os.geteuid() != 0:
    pytest.skip("only root may start units of the system", allow_module_level=True)
pytestmark = pytest.mark.system


class TestUnits(DriverSuite):
    factory = "stoker_systemd.driver:SystemdDriver"
    options: ClassVar = {"dynamic_user": False}
