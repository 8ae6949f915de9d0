"""What the status notes of the last hour."""

from __future__ import annotations

import time
from typing import Any

from stoker.model.event import Notice
from stoker.runtime.noted import MOST, Noted

NOW = 1_700_000_000.0


def told(at: float, message: str, severity: str = "warning", **more: Any) -> Notice:
    return Notice(wall=at, message=message, severity=severity, **more)


def said(*notices: Notice, now: float = NOW) -> list[str]:
    noted = Noted()
    for notice in notices:
        noted.note(notice)
    return [line.partition(" ")[2] for line in noted.lines(now)]


def test_warnings_and_errors_are_kept_with_their_time_and_information_is_not() -> None:
    assert said(told(NOW, "a"), told(NOW, "b", "error"), told(NOW, "c", "info")) == ["a", "b"]
    noted = Noted()
    noted.note(told(NOW, "the disk is full"))
    assert noted.lines(NOW) == (f"{time.strftime('%H:%M:%S', time.localtime(NOW))} the disk is full",)


def test_the_same_again_stands_once_with_its_newest_time() -> None:
    assert said(told(NOW - 5, "a"), told(NOW - 4, "b"), told(NOW, "a")) == ["b", "a"]


def test_what_is_over_or_an_hour_old_is_gone() -> None:
    assert said(told(NOW - 9, "taken"), told(NOW - 8, "open", "info", settles="taken")) == []
    assert said(told(NOW - 3601, "old"), told(NOW - 3599, "newer")) == ["newer"]


def test_the_newest_stay() -> None:
    assert said(*(told(NOW, str(n)) for n in range(MOST + 5))) == [str(n) for n in range(5, MOST + 5)]
