"""The systemd driver keeps its port's promises. Needs a systemd that runs; `tests/system` brings one."""

import os
from pathlib import Path
from typing import ClassVar

import pytest

from stoker.plugin.testing.driver import DriverSuite

pytest.importorskip("jeepney")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd does not run here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start units of the system"),
]


class TestUnits(DriverSuite):
    factory = "stoker_systemd.driver:SystemdDriver"
    options: ClassVar = {"dynamic_user": False}
