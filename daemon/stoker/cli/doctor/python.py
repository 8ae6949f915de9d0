"""The interpreter that Stoker runs in."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn

OLDEST, NEWEST = (3, 11), (3, 13)


def check(place: Place) -> Iterator[Finding]:
    """Whether this Python is one that Stoker is tested with."""
    del place
    yield judge(sys.version_info[:2], f"{platform.python_version()} ({sys.executable})")


def judge(version: tuple[int, ...], text: str) -> Finding:
    """The verdict on a version. Pure."""
    supported = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if version < OLDEST:
        return fail("python", f"{text} is too old", f"install Stoker into a Python {supported}")
    if version > NEWEST:
        return warn("python", f"{text} is newer than what Stoker is tested with", f"prefer {supported}")
    return ok("python", text)
