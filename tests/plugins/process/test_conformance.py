"""The process driver keeps its port's promises, with cgroups and without."""

from typing import ClassVar

import pytest

from stoker.plugin.testing.driver import DriverSuite
from stoker_process.cgroups import CgroupTrees

CGROUPS = CgroupTrees.open("test-probe", print)
OLD_CGROUPS = CgroupTrees.open("test-probe", print, only_v1=True)


@pytest.mark.system
@pytest.mark.skipif(isinstance(CGROUPS, str), reason=f"no cgroups here: {CGROUPS}")
class TestWithCgroups(DriverSuite):
    factory = "stoker_process.driver:ProcessDriver"


@pytest.mark.system
@pytest.mark.skipif(isinstance(OLD_CGROUPS, str), reason=f"no cgroups of v1 here: {OLD_CGROUPS}")
class TestWithOldCgroups(DriverSuite):
    factory = "stoker_process.driver:ProcessDriver"
    options: ClassVar = {"cgroup": "v1"}


@pytest.mark.system
class TestWithoutCgroups(DriverSuite):
    factory = "stoker_process.driver:ProcessDriver"
    options: ClassVar = {"cgroup": False}
