"""One program per test module; each test links to it anew, as a restarted daemon would."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from plugins.router.harness import Router, context, end_program, linked, no_mishap, program
from stoker.plugin.ports import PluginContext


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginContext]:
    """The state of the module's program, which reports ten times as often as usual to save time."""
    made = context(tmp_path_factory.mktemp("router"))
    with program(made, "--sample-every", "0.1"):
        yield made


@pytest.fixture
async def router(anyio_backend: str, shared: PluginContext) -> AsyncIterator[Router]:
    """A link to the module's program, with an empty table."""
    async with linked(shared) as made:
        await made.apply()
        yield made


@pytest.fixture
async def fresh(anyio_backend: str, tmp_path: Path) -> AsyncIterator[PluginContext]:
    """The state of a program of the test's own, killed at the end."""
    made = context(tmp_path)
    yield made
    await end_program(made)
    no_mishap(made)
