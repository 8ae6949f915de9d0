"""What the plugin tells the daemon: how to read a bento, how to start its services."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import stoker_bentoml.plugin
from stoker.errors import WorkerError
from stoker.model.service import BentoService, ServiceSpec
from stoker.plugin import impl
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import (
    Application,
    ApplicationCommand,
    ApplicationFactory,
    ApplicationStart,
    PluginContext,
)
from stoker_bentoml.application import BentoApplication

START = ApplicationStart(replica="mid-1", port=4321, urls={"Low": "http://127.0.0.1:99"})


def context(folder: Path) -> PluginContext:
    return PluginContext(instance="box", state_dir=str(folder), runtime_dir=str(folder))


def spec(deployment: str = "d", python: str = "") -> ServiceSpec:
    launch = BentoService("service:Root", "Mid", '{"workers":2}', python=python, calls=("Low",))
    return ServiceSpec(deployment=deployment, name="Mid", launch=launch, working_dir="/")


def plan(command: ApplicationCommand) -> dict[str, object]:
    return json.loads(command.environ["STOKER_BENTO"])


def test_the_plugin_brings_it() -> None:
    registry = PluginRegistry()
    registry.register("bentoml", stoker_bentoml.plugin)
    assert registry.names("application") == ["bento"]


def test_any_plugin_can_bring_applications(tmp_path: Path) -> None:
    class Own:
        def inspection(self, target: str, python: str) -> Sequence[str]:
            return (python, target)

        def command(self, spec: ServiceSpec, start: ApplicationStart) -> ApplicationCommand:
            return ApplicationCommand(argv=(spec.name, str(start.port)))

    class Plugin:
        @impl
        def stoker_applications(self) -> Mapping[str, ApplicationFactory]:
            return {"own": lambda context: Own()}

    registry = PluginRegistry()
    registry.register("mine", Plugin())
    made = registry.factory("application", "own")(context(tmp_path))
    assert isinstance(made, Application)
    assert isinstance(BentoApplication(context(tmp_path)), Application)


def test_the_command_line_shows_no_secret(tmp_path: Path) -> None:
    command = BentoApplication(context(tmp_path)).command(spec(), START)
    assert command.argv[0] == sys.executable
    assert command.argv[2:] == ("serve", "service:Root", "Mid", "4321")
    assert str(plan(command)["word"]) not in " ".join(command.argv) + repr(command)
    other = BentoApplication(context(tmp_path)).command(spec(python="/opt/py"), START)
    assert other.argv[0] == "/opt/py"


def test_the_word_of_a_deployment_outlives_the_daemon_and_is_its_own(tmp_path: Path) -> None:
    first = plan(BentoApplication(context(tmp_path)).command(spec(), START))
    again = plan(BentoApplication(context(tmp_path)).command(spec(), START))
    other = plan(BentoApplication(context(tmp_path)).command(spec("other"), START))
    assert first["word"] == again["word"] != other["word"]
    assert first["calls"] == {"Low": f"http://stoker:{first['word']}@127.0.0.1:99"}
    assert first["life"] != again["life"]
    assert os.stat(tmp_path / "bentoml.key").st_mode & 0o777 == 0o600


def test_a_state_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="cannot keep the key"):
        BentoApplication(context(tmp_path / "gone")).command(spec(), START)
