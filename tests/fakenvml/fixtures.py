"""The fake box for tests anywhere: one call, which skips with a reason where it cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakenvml.build import CannotBuildError, library
from fakenvml.fakebox import FakeBox


def fake_box(preset: str, tmp_path: Path, *, old: bool = False) -> FakeBox:
    """A box of that name under `tmp_path`. Its `environ` goes into the environment of the daemon (or of
    whatever loads the driver library) before it starts: the loader reads LD_LIBRARY_PATH only then."""
    try:
        library(old=old)
    except CannotBuildError as error:
        pytest.skip(str(error))
    return FakeBox.preset(preset, tmp_path / "nvml.json", old=old)


def no_library(tmp_path: Path) -> dict[str, str]:
    """The environment of a box without a driver library, also where the machine has a real one: the
    loader finds an empty file of that name first and gives up."""
    (tmp_path / "nolib").mkdir(exist_ok=True)
    (tmp_path / "nolib" / "libnvidia-ml.so.1").touch()
    return {"LD_LIBRARY_PATH": str(tmp_path / "nolib")}
