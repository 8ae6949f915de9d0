"""The podman driver keeps its port's promises, with a real podman and the files of this box."""

import os
import signal
from typing import Any, ClassVar

import pytest

from stoker.model.replica import ExitStatus
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver import DriverSuite
from stoker.plugin.testing.driver_bench import Bench

pytestmark = pytest.mark.system


class TestContainers(DriverSuite):
    factory = "stoker_podman.driver:PodmanDriver"
    options: ClassVar[dict[str, Any]] = {}
    contained = True
    lives = 6

    @pytest.fixture(autouse=True)
    def engine(self, podman) -> None:
        self.options |= {"socket": podman.socket, "nproc": 16384}

    async def test_a_worker_sees_its_environment_and_nothing_else(
        self, driver: WorkerDriver, bench: Bench
    ) -> None:
        """As the suite has it, but for the two variables that every container has."""
        odd = {"EMPTY": "", "SPACES": " a  b ", "LINES": "a\nb", "ÜMLAUT": "größe", "lower.dotted": "x=y"}
        request = bench.request("env", "-0", environ=odd)
        status, output = await bench.run(driver, request)
        seen = dict(entry.split("=", 1) for entry in output.split("\0") if entry)
        assert status == ExitStatus(code=0)
        assert seen.keys() - request.environ.keys() <= {"HOME", "HOSTNAME"}
        assert {name: seen[name] for name in request.environ} == dict(request.environ)

    async def test_a_worker_starts_with_default_signals(self, driver: WorkerDriver, bench: Bench) -> None:
        """Nothing is ignored, and nothing blocked but what catatonit leaves so: the signals of terminals."""
        _, output = await bench.run(driver, bench.request("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"))
        blocked, ignored = (int(line.split()[1], 16) for line in output.splitlines())
        of_terminals = sum(1 << (number - 1) for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
        assert (blocked & ~of_terminals, ignored) == (0, 0)

    async def test_a_worker_leads_a_session_of_its_own(self, driver: WorkerDriver, bench: Bench) -> None:
        """The container's init leads it; no process of it is in the daemon's."""
        handle = await driver.start(bench.request("sleep", "600"))
        assert os.getsid(handle.pid) not in (0, os.getsid(0))
