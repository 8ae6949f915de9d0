"""The conformance suite of worker drivers.

    # test_my_driver.py
    from stoker.plugin.testing.driver import DriverSuite

    class TestMyDriver(DriverSuite):
        factory = "my_package.driver:MyDriver"      # called with a PluginContext, also in other processes
        options = {"color": "blue"}

The tests start real workers (`/bin/sh` and the running Python) and look at them from outside, through
files and `/proc`. Every wait has a deadline of its own; nothing is left running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stoker.plugin.loop import OPTIONS
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver_bench import Bench
from stoker.plugin.testing.driver_ends import Ends
from stoker.plugin.testing.driver_heirs import Heirs
from stoker.plugin.testing.driver_starts import Starts


class DriverSuite(Starts, Ends, Heirs):
    """Subclass it with a name that pytest collects and set `factory`."""

    factory: ClassVar[str] = ""
    """"module:attribute" of the driver's factory."""
    options: ClassVar[Mapping[str, Any]] = {}
    """`PluginContext.options` for it."""
    environ: ClassVar[Mapping[str, str]] = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    """What every worker's environment holds besides its mark."""
    contained: ClassVar[bool] = False
    """Whether workers live in a process namespace of their own, where they have other ids."""
    lives: ClassVar[int] = 50
    """Workers that start and end in the test of what they use up."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        """The event loop the daemon uses."""
        return "asyncio", OPTIONS

    @pytest.fixture
    async def bench(self, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Bench]:
        """Ends whatever the test has left running."""
        bench = Bench(tmp_path, factory=self.factory, options=self.options, environ=self.environ)
        bench.contained = self.contained
        yield bench
        await bench.end_everything()

    @pytest.fixture
    async def driver(self, bench: Bench) -> AsyncIterator[WorkerDriver]:
        """The driver under test."""
        async with aclosing(bench.driver()) as driver:
            yield driver
