"""What all tests share: asyncio unless a folder says otherwise, and how property tests behave."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("stoker", deadline=None, print_blob=True)
settings.load_profile("stoker")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
