"""The plugins' parts: drivers are made once and closed at the end, whatever one of them does then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import anyio.lowlevel
import pytest

from stoker.plugin import impl
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext
from stoker.runtime.parts import Parts

pytestmark = pytest.mark.anyio


class Driver:
    """All that is asked of it here is to be closed."""

    def __init__(self, name: str, closed: list[str], fault: Exception | None = None) -> None:
        self._name, self._closed, self._fault = name, closed, fault

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._closed.append(self._name)
        if self._fault is not None:
            raise self._fault


class Plugin:
    """Two drivers, of which one fails at its end."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    @impl
    def stoker_worker_drivers(self) -> Mapping[str, Callable[[PluginContext], object]]:
        return {
            "good": lambda context: Driver("good", self.closed),
            "bad": lambda context: Driver("bad", self.closed, OSError("it is stuck")),
            "idle": lambda context: Driver("idle", self.closed),
        }


def parts_of(plugin: object, tmp_path: Path) -> Parts:
    registry = PluginRegistry()
    registry.register("these", plugin)
    context = PluginContext(instance="i", state_dir=str(tmp_path), runtime_dir=str(tmp_path))
    return Parts(registry, context, post=lambda event: None)


async def test_every_driver_that_was_made_is_closed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = Plugin()
    parts = parts_of(plugin, tmp_path)
    assert parts.driver("good") is parts.driver("good")
    parts.driver("bad")
    await parts.aclose()
    await parts.aclose()
    assert sorted(plugin.closed) == ["bad", "good"]
    assert capsys.readouterr().err == "stoker: driver bad was not closed: OSError: it is stuck\n"
