"""A directory with a bento and its deployment file, loaded as the daemon does."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from stoker.config.load import ConfigRequest, EffectiveConfig, load
from stoker.errors import ConfigError
from stoker.plugin.ports import PluginContext
from stoker_bentoml.application import BentoApplication


class Project:
    """Files in a directory. Loads what they make, with this Python as the bento's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        context = PluginContext(instance="test", state_dir=str(folder), runtime_dir=str(folder))
        self.application = BentoApplication(context)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))

    def request(self, **more: object) -> ConfigRequest:
        environ = {"HOME": str(self.folder), "PATH": os.environ["PATH"]}
        file = str(self.folder / "d.yaml")
        return ConfigRequest(files=(file,), environ=environ, inspection=self.application.inspection, **more)

    def load(self, *, to_run: bool = True, **more: object) -> EffectiveConfig:
        return load(self.request(**more), to_run=to_run)

    def problems(self, *, to_run: bool = True) -> list[str]:
        """What is wrong, paths relative to the directory."""
        try:
            self.load(to_run=to_run)
        except ConfigError as error:
            return [str(problem).replace(f"{self.folder}/", "") for problem in error.problems]
        return []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def bentoml() -> str:
    """The Python that BentoML is installed in."""
    if importlib.util.find_spec("bentoml") is None:
        pytest.skip("needs BentoML: pip install 'stoker[bentoml]'")
    return sys.executable
