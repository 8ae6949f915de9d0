"""Marks on devices outlive the daemon, and one that cannot be kept is refused."""

from __future__ import annotations

import pytest

from stoker.errors import StokerError
from stoker.runtime.device_marks import DeviceMarks
from stoker.runtime.store import Store
from worlds import box


def test_marks_outlive_the_daemon_and_are_told_once(tmp_path) -> None:
    told: list[str] = []
    marks = DeviceMarks(Store(tmp_path))
    marks.on_change(lambda: told.append("changed"))
    marks.set("GPU-0", "cordoned")
    marks.set("GPU-0", "cordoned")
    marks.set("GPU-1", "released")
    marks.set("GPU-1", None)
    assert len(told) == 3
    again = DeviceMarks(Store(tmp_path))
    assert again.marks == {"GPU-0": "cordoned"}
    assert [device.health for device in again.over(box(0, 1)).devices] == ["cordoned", "healthy"]


def test_a_spoilt_record_spoils_one_mark_only(tmp_path) -> None:
    store = Store(tmp_path)
    store.write("quarantine", {"GPU-0": "eaten", "GPU-1": "released"})
    assert DeviceMarks(store).marks == {"GPU-1": "released"}


def test_a_mark_that_cannot_be_kept_changes_nothing(tmp_path) -> None:
    store = Store(tmp_path)
    marks = DeviceMarks(store)
    (tmp_path / "quarantine.json.new").mkdir()
    with pytest.raises(StokerError, match="cannot record the mark of GPU-0"):
        marks.set("GPU-0", "cordoned")
    assert marks.marks == {}
