"""The slurm driver keeps its port's promises, on a real cluster whose two nodes are this machine."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver import DriverSuite
from stoker.plugin.testing.driver_bench import Bench, refused

from .cluster import Cluster

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


class TestJobs(DriverSuite):
    factory = "stoker_slurm.driver:SlurmDriver"
    options: ClassVar[dict[str, Any]] = {}
    lives = 4

    @pytest.fixture(autouse=True)
    def engine(self, slurm: Cluster) -> None:
        self.options |= {"environ": slurm.environ}

    async def test_a_worker_runs_as_its_user(self, driver: WorkerDriver, bench: Bench) -> None:
        """It cannot, and says so."""
        await refused(driver, bench.request("id", user="nobody", working_dir="/"), "user")

    async def test_an_unknown_user_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """As any other."""
        await refused(driver, bench.request("true", user="no-such-user"), "user")
