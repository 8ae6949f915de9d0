"""Fixtures for tests with real processes and a real systemd."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.sdbox.machine import Machine, MachineError, obstacle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with a real systemd as its PID 1, in which this project is visible."""
    if reason := obstacle():
        pytest.skip(reason)
    made = Machine("stoker", show=dict.fromkeys([Path(sys.prefix), ROOT]))
    try:
        made.boot()
    except MachineError as error:
        made.shut_down()
        pytest.skip(f"no box with a systemd can be made here: {' '.join(str(error).split())[-300:]}")
    yield made
    made.shut_down()
