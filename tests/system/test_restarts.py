"""Restarts leave nothing behind in the daemon; ten thousand of them are `tests/bench/bench_restarts.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from system.harness import Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SERVICE = """
services:
  w:
    command: [sleep, "0.01"]
    scaling: {min_replicas: 4, max_replicas: 4}
    restart: {backoff: 1ms, max_backoff: 1ms, crash_loop: 1000}
"""


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def zombies(pid: int) -> list[str]:
    children = [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    states = {child: Path(f"/proc/{child}/stat") for child in children}
    return [child for child, stat in states.items() if stat.exists() and ") Z " in stat.read_text()]


def restart_often(box: Box, times: int) -> None:
    """Let the workers come and go so many times, then hold them at none."""
    box.run("start", "w")
    box.until(
        lambda: sum(replica["restarts"] for replica in box.replicas("w")) >= times, "restarts", seconds=60
    )
    box.run("stop", "w")
    box.until(lambda: not box.replicas("w"), "no worker is left", seconds=30)


def test_a_hundred_restarts_leave_no_descriptor_thread_or_zombie(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        box.write(SERVICE)
        box.up()
        assert box.daemon is not None
        pid = box.daemon.pid
        restart_often(box, 10)  # what is made once and kept is there
        before, several = descriptors(pid), threads(pid)
        restart_often(box, 100)
        box.until(lambda: descriptors(pid) <= before, f"{before} descriptors again")
        box.until(lambda: not zombies(pid), "no zombie")
        assert threads(pid) <= several
