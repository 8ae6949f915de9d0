"""The conformance suite of routers.

    # test_my_router.py
    from stoker.plugin.testing.router import RouterSuite

    class TestMyRouter(RouterSuite):
        factory = "my_package.plugin:make"          # called with a PluginContext, also in other processes

Every test starts the router's own program or programs, with workers and clients inside the test, on loopback
and free ports. What a router cannot do it says itself: an attribute `shortfalls` of it, from points in
`stoker.plugin.testing.router_points` to words for people. A test of such a point shows as expected to fail,
with those words; nothing else is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stoker.plugin.loop import OPTIONS
from stoker.plugin.ports import router_shortfalls
from stoker.plugin.testing.router_bench import Bench, Link, make_router
from stoker.plugin.testing.router_flow import Flow
from stoker.plugin.testing.router_life import Life
from stoker.plugin.testing.router_limits import Limits
from stoker.plugin.testing.router_load import Loads
from stoker.plugin.testing.router_points import POINTS
from stoker.plugin.testing.router_unix import UnixWorkers


class RouterSuite(Flow, Limits, Life, Loads, UnixWorkers):
    """Subclass it with a name that pytest collects and set `factory`."""

    factory: ClassVar[str] = ""
    """"module:attribute" of the router's factory."""
    options: ClassVar[Mapping[str, Any]] = {}
    """`PluginContext.options` for it."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        """The event loop the daemon uses."""
        return "asyncio", OPTIONS

    @pytest.fixture
    async def bench(self, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Bench]:
        """Ends whatever the test has left running."""
        bench = Bench(tmp_path, self.factory, self.options)
        yield bench
        await bench.end_everything()

    @pytest.fixture
    def short(self) -> Iterator[Path]:
        """A directory whose name is short enough for unix sockets."""
        with tempfile.TemporaryDirectory(prefix="stoker-") as path:
            yield Path(path)

    @pytest.fixture
    async def link(self, bench: Bench) -> AsyncIterator[Link]:
        """The router under test, running, with an empty table."""
        async with bench.linked() as link:
            yield link

    def test_it_declares_points_that_there_are(self, tmp_path: Path) -> None:
        """A shortfall that nobody can look up helps nobody."""
        context = Bench(tmp_path, self.factory, self.options).context
        declared = router_shortfalls(make_router(self.factory, context))
        assert set(declared) <= set(POINTS), f"known points: {', '.join(POINTS)}"
        assert all(words.strip() for words in declared.values())
