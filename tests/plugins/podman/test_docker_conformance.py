"""The docker driver keeps its port's promises, with a real dockerd and the files of this box."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from plugins.podman.test_conformance import TestContainers as OfContainers
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver_bench import Bench, ended

pytestmark = pytest.mark.system


class TestDocker(OfContainers):
    factory = "stoker_podman.driver:DockerDriver"
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def engine(self, docker) -> None:
        self.options |= {"socket": docker.socket}

    async def test_the_log_is_appended_to(self, driver: WorkerDriver, bench: Bench) -> None:
        """As the suite has it; but docker reads the two streams apart: their lines may change places."""
        request = bench.request("sh", "-c", "echo out; echo err >&2")
        path = bench.directory / "deep" / "er" / "web.log"
        for _ in range(2):
            await ended(driver, await driver.start(replace(request, log_path=str(path))))
        lines = path.read_text().splitlines()
        assert (sorted(lines[:2]), sorted(lines[2:])) == (["err", "out"], ["err", "out"])
