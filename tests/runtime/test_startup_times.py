"""How long starts take is measured from the decision on, remembered, and known to the next daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.model.event import ReplicaBecameReady, ReplicaBecameUnready, StartRequested, WorkerExited
from stoker.model.replica import ExitStatus
from stoker.runtime.startup_times import KEPT, StartupTimes

WHO = {"replica": "web-1", "service": "app/web"}


@pytest.fixture
def times(tmp_path: Path) -> StartupTimes:
    return StartupTimes(str(tmp_path), pytest.fail)


def start(times: StartupTimes, at: float, took: float, replica: str = "web-1") -> None:
    who = {**WHO, "replica": replica}
    times.observe(StartRequested(**who, at=at))
    times.observe(ReplicaBecameReady(**who, at=at + took))


def test_the_median_of_the_last_ones_is_what_a_start_takes(times: StartupTimes) -> None:
    assert times.of("app/web") is None
    for took in (2.0, 90.0, 4.0):
        start(times, 10.0, took)
    assert times.of("app/web") == 4.0
    for _ in range(KEPT):
        start(times, 10.0, 1.0)
    assert times.all() == {"app/web": (1.0,) * KEPT}


def test_the_next_daemon_knows(times: StartupTimes, tmp_path: Path) -> None:
    start(times, 10.0, 2.5)
    assert StartupTimes(str(tmp_path), pytest.fail).of("app/web") == 2.5


def test_only_starts_count(times: StartupTimes) -> None:
    """Not one that failed, not a worker that is ready again, not one that another daemon started."""
    times.observe(ReplicaBecameReady(**WHO, at=5.0))
    times.observe(StartRequested(**WHO, at=10.0))
    times.observe(WorkerExited(**WHO, status=ExitStatus(code=1), at=11.0))
    times.observe(ReplicaBecameReady(**WHO, at=12.0))
    assert times.all() == {}
    start(times, 20.0, 1.0)
    times.observe(ReplicaBecameUnready(**WHO, reason="slow", at=50.0))
    times.observe(ReplicaBecameReady(**WHO, at=60.0))
    assert times.all() == {"app/web": (1.0,)}


def test_a_record_that_cannot_be_read_is_as_good_as_none(tmp_path: Path) -> None:
    bad = ['["a/b", {"seconds": "x"}]', '["a/c", {}]', '["a/d", {"seconds": [-1, 1e9]}]', "[", '["a/e", [1]]']
    (tmp_path / "startups.jsonl").write_text("\n".join(bad) + "\n")
    assert StartupTimes(str(tmp_path), pytest.fail).all() == {}


def test_a_full_disk_is_said_and_borne(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("")
    times = StartupTimes(str(tmp_path / "file"), said.append)
    start(times, 0.0, 1.0)
    assert times.of("app/web") == 1.0
    assert "cannot record how long app/web took to start" in said[0]
