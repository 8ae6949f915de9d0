from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.fakes import FakeDaemon, Served, served
from stoker.cli.main import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Stoker = Callable[..., Result]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the operator's own daemon or terminal reaches a test."""
    for name in ("STOKER_SOCKET", "STOKER_DEBUG", "XDG_STATE_HOME", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STOKER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))


@pytest.fixture
def stoker(capsys: pytest.CaptureFixture[str]) -> Stoker:
    """Runs a command line in this process."""

    def run(*args: str) -> Result:
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def live(daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The fake daemon where the commands look for it."""
    socket = tmp_path / "s.sock"
    monkeypatch.setenv("STOKER_SOCKET", str(socket))
    with served(daemon, socket) as running:
        yield running
