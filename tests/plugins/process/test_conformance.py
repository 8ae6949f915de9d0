"""The process driver keeps its port's promises, with cgroups and without."""

from typing import ClassVar

import pytest

from stoker.plugin.testing.driver import DriverSuite
from stoker_process.cgroups import CgroupTrees

CGROUPS = CgroupTrees.open("test-probe", print)


@pytest.mark.system
@pytest.mark.skipif(isinstance(CGROUPS, str), reason=f"no cgroups here: {CGROUPS}")
class TestWithCgroups(DriverSuite):
    factory = "stoker_process.driver:ProcessDriver"


@pytest.mark.system
class TestWithoutCgroups(DriverSuite):
    factory = "stoker_process.driver:ProcessDriver"
    options: ClassVar = {"cgroup": False}
