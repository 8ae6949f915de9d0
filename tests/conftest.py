"""What all tests share: asyncio unless a folder says otherwise, and how property tests behave."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import settings

from stoker.plugin.loop import OPTIONS

settings.register_profile("stoker", deadline=None, print_blob=True)
settings.load_profile("stoker")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs begin so, and all that tests start would: Ctrl-C is a part of what is tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", OPTIONS
