from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.fakes import FakeDaemon, Served, served


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def live(daemon: FakeDaemon, tmp_path: Path) -> Iterator[Served]:
    """The fake daemon behind a real socket."""
    with served(daemon, tmp_path / "run" / "stoker.sock") as running:
        yield running
