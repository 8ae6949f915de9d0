"""What tests of plugins share: each file begins in a process that is nobody's foster parent."""

from __future__ import annotations

import ctypes

import pytest

_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="module", autouse=True)
def no_subreaper() -> None:
    """The driver `process` makes this process one where there are no cgroups, and nobody waits here for the
    orphans that engines of other drivers leave to it."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
