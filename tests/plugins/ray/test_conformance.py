"""The ray driver keeps its port's promises, on a real cluster whose only node is this machine."""

from typing import Any, ClassVar

import pytest

from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver import DriverSuite
from stoker.plugin.testing.driver_bench import Bench, refused

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


class TestActors(DriverSuite):
    factory = "stoker_ray.driver:RayDriver"
    options: ClassVar[dict[str, Any]] = {}
    lives = 4

    @pytest.fixture(autouse=True)
    def engine(self, ray_cluster) -> None:
        self.options |= {"address": ray_cluster.address, "environ": ray_cluster.environ, "finding": 120}

    async def test_a_worker_runs_as_its_user(self, driver: WorkerDriver, bench: Bench) -> None:
        """It cannot, and says so."""
        await refused(driver, bench.request("id", user="nobody", working_dir="/"), "user")

    async def test_an_unknown_user_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """As any other."""
        await refused(driver, bench.request("true", user="no-such-user"), "user")
