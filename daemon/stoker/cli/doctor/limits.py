"""Limits of the kernel on this process, and the clock."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from collections.abc import Iterator

from stoker.cli.doctor.finding import Finding, Place, ok, warn

ENOUGH_FILES = 4096
"""Descriptors: the router needs two for each request under way."""
BUILT = 1_735_689_600
"""2025-01-01: a clock before this has lost its battery."""


def check(place: Place) -> Iterator[Finding]:
    """Open files and the clock."""
    del place
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield files(soft, hard)
    yield clock(time.time(), _synchronized())


def files(soft: int, hard: int) -> Finding:
    """The verdict on the number of descriptors. Pure."""
    text = f"{_many(soft)} open files (at most {_many(hard)})"
    if 0 <= soft < ENOUGH_FILES:
        remedy = f"ulimit -n {ENOUGH_FILES * 16}, or LimitNOFILE= in the unit"
        return warn("open files", text, f"{remedy}: two are needed for each request under way")
    return ok("open files", text)


def clock(now: float, synchronized: str) -> Finding:
    """The verdict on the time of day. `synchronized` is "yes", "no" or "" for unknown. Pure.

    Decisions go by the monotonic clock; the time of day matters for logs, events and schedules.
    """
    day = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < BUILT:
        return warn("clock", f"{day} lies in the past", "set the clock: logs and schedules go by it")
    if synchronized == "no":
        return warn("clock", f"{day}, not synchronized", "enable chrony or systemd-timesyncd")
    return ok("clock", day + (", synchronized" if synchronized else ""))


def _synchronized() -> str:
    """What systemd's clock says; "" where it cannot be asked."""
    if not shutil.which("timedatectl"):
        return ""
    try:
        done = subprocess.run(
            ["timedatectl", "show", "-p", "NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _many(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
