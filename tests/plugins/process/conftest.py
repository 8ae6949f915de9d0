"""A real driver and workers to start with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from stoker.plugin.testing.driver_bench import Bench
from stoker_process.cgroups import CgroupTrees
from stoker_process.driver import ProcessDriver

PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture
async def bench(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, factory="stoker_process.driver:ProcessDriver", options={}, environ=PATH)
    yield bench
    await bench.end_everything()


@pytest.fixture
async def sessions(bench: Bench) -> AsyncIterator[ProcessDriver]:
    """A driver that does without cgroups."""
    bench.options = {"cgroup": False}
    async with aclosing(bench.driver()) as driver:
        yield driver


@pytest.fixture(params=[True, "v1"], ids=["v2", "v1"])
async def cgroups(bench: Bench, request: pytest.FixtureRequest) -> AsyncIterator[ProcessDriver]:
    """A driver with cgroups; skips where there are none to be had."""
    bench.options = {"cgroup": request.param}
    async with aclosing(bench.driver()) as driver:
        if not driver.description.startswith("cgroup"):
            pytest.skip(driver.description)
        yield driver


@pytest.fixture
async def trees(bench: Bench) -> CgroupTrees:
    """Cgroup directories of the test's instance."""
    made = CgroupTrees.open(bench.instance, print)
    if isinstance(made, str):
        pytest.skip(made)
    return made


@pytest.fixture
def said() -> list[str]:
    """What was logged."""
    return []


@pytest.fixture
def log(said: list[str]) -> Callable[[str], None]:
    return said.append
