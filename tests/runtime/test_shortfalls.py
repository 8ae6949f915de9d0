"""What drivers cannot do is said at the line that asks for it."""

from collections.abc import Mapping
from pathlib import Path

from stoker.config.load import load
from stoker.config.sources import ConfigRequest
from stoker.model.service import ServiceSpec
from stoker.plugin import impl
from stoker.plugin.manager import PluginRegistry
from stoker.runtime.shortfalls import remarks

FILE = """services:
  web:
    command: sleep 600
    backend: modest
    probes:
      startup: {tcp: true}
  other:
    command: sleep 600
    backend: sick
"""


class Modest:
    """A plugin whose drivers lack something."""

    @impl
    def stoker_driver_shortfalls(self):
        return {"modest": self.lacks, "sick": self.fails}

    def lacks(self, spec: ServiceSpec) -> Mapping[str, str]:
        lacking = {"drain.signal": "knows one signal only"}
        if spec.probes.startup is not None and spec.probes.startup.tcp:
            lacking["probes.startup.tcp"] = "has no ports; use exec"
        return lacking

    def fails(self, spec: ServiceSpec) -> Mapping[str, str]:
        raise RuntimeError("out of order")


def test_each_stands_at_its_line(tmp_path: Path) -> None:
    """At the key itself, or at the nearest one above that somebody wrote."""
    (tmp_path / "app.yaml").write_text(FILE)
    registry = PluginRegistry()
    registry.register("modest", Modest())
    effective = load(ConfigRequest(files=(str(tmp_path / "app.yaml"),)))
    first, second, third = remarks(effective, registry)
    assert first.endswith("app.yaml:2:3: services.web.drain.signal: backend modest knows one signal only")
    assert second.endswith(
        "app.yaml:6:17: services.web.probes.startup.tcp: backend modest has no ports; use exec"
    )
    assert third == "driver sick cannot say what it lacks for app/other: out of order"


def test_a_driver_that_declares_nothing_lacks_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(FILE)
    effective = load(ConfigRequest(files=(str(tmp_path / "app.yaml"),)))
    assert list(remarks(effective, PluginRegistry())) == []
