"""What all tests share: asyncio unless a folder says otherwise, and how property tests behave."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from stoker.runtime.loop import OPTIONS

settings.register_profile("stoker", deadline=None, print_blob=True)
settings.load_profile("stoker")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", OPTIONS
