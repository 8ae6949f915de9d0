"""A box of files and an environment, and what the configuration makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stoker.config.load import ConfigRequest, EffectiveConfig, load
from stoker.errors import ConfigError
from stoker.model.service import ServiceSpec


class Box:
    """A directory of files. Labels in problems are the files' names: it is the current directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def request(self, *files: str, environ: Mapping[str, str] | None = None, **more: Any) -> ConfigRequest:
        return ConfigRequest(files=files or ("stoker.yaml",), environ=environ or {}, **more)

    def load(self, *files: str, **more: Any) -> EffectiveConfig:
        return load(self.request(*files, **more))

    def problems(self, *files: str, **more: Any) -> list[str]:
        """The problems as people read them, [] if there are none."""
        try:
            self.load(*files, **more)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    def service(self, text: str, name: str = "web", **more: Any) -> ServiceSpec:
        """One service's spec out of a file with this text."""
        self.write("stoker.yaml", text)
        return self.load(**more).desired.services[f"stoker/{name}"]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.chdir(tmp_path)
    return Box(tmp_path)


@pytest.fixture
def web(box: Box) -> Callable[..., ServiceSpec]:
    """The spec of a service with these lines below its name."""

    def build(*lines: str, before: Iterable[str] = (), **more: Any) -> ServiceSpec:
        return box.service(document(*lines, before=before), **more)

    return build


def document(*lines: str, before: Iterable[str] = ()) -> str:
    """A file with one service `web` that has these lines. They begin in line 4 if nothing is before."""
    head = [*before, "services:", "  web:"]
    if not any(line.startswith(("command", "python")) for line in lines):
        head.append("    command: run")
    return "\n".join([*head, *(f"    {line}" for line in lines)]) + "\n"


def blocks(name: str) -> list[Any]:
    """Parameters out of a table in `problems/`: blocks of lines, the expected problems after `=> `."""
    pairs = []
    for block in (Path(__file__).parent / "problems" / name).read_text().strip("\n").split("\n\n"):
        lines = block.splitlines()
        given = [line for line in lines if not line.startswith("=> ")]
        expected = [line[3:] for line in lines if line.startswith("=> ")]
        pairs.append(pytest.param("\n".join(given), expected, id=given[0][:40]))
    return pairs
