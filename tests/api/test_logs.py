"""Reading a log onwards: tails, rotation, truncation, endless lines."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stoker.api.facade import LogFile
from stoker.api.logs import LONGEST_LINE, PIECE, LogReader, line_time


def reader(path: Path, tail: int | None = None, since: float | None = None) -> LogReader:
    return LogReader(
        LogFile(service="d/s", replica="s-1", path=str(path), alive=True), tail=tail, since=since
    )


def everything(found: LogReader) -> list[str]:
    lines: list[str] = []
    while more := found.read(last=True):
        lines += more
    found.close()
    return lines


@pytest.mark.parametrize(
    ("content", "tail", "expected"),
    [
        ("a\nb\nc\n", 2, ["b", "c"]),
        ("a\nb\nc", 2, ["b", "c"]),
        ("a\n", 5, ["a"]),
        ("a\n\n\n", 2, ["", ""]),
        ("", 3, []),
        ("\n", 1, [""]),
        ("a\nb\n", 0, []),
    ],
)
def test_tail(tmp_path: Path, content: str, tail: int, expected: list[str]) -> None:
    log = tmp_path / "a.log"
    log.write_text(content)
    assert everything(reader(log, tail)) == expected


def test_a_tail_longer_than_one_piece(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    count = PIECE // 10
    log.write_text("".join(f"line {n:06}\n" for n in range(count)))
    found = everything(reader(log, count - 1))
    assert (found[0], found[-1], len(found)) == ("line 000001", f"line {count - 1:06}", count - 1)


STAMPED = """before any time
2026-01-31 11:59:59,999 INFO old
  its traceback
[2026-01-31T12:00:00.000] new
  its traceback
2026-13-45 99:00:00 no date at all
"""


def test_since_goes_by_the_times_in_the_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(STAMPED)
    noon = datetime(2026, 1, 31, 12).astimezone().timestamp()  # lines without a zone are local time
    os.utime(log, (noon + 5, noon + 5))
    assert everything(reader(log, since=noon)) == [
        "before any time",
        "[2026-01-31T12:00:00.000] new",
        "  its traceback",
        "2026-13-45 99:00:00 no date at all",
    ]
    os.utime(log, (noon - 5, noon - 5))
    assert everything(reader(log, since=noon)) == []


@pytest.mark.parametrize(
    "line", ["2026-01-31T12:00:00Z x", "2026-01-31 13:00:00.5+01:00 x", "[2026-01-31 07:00:00-0500]"]
)
def test_times_with_a_zone(line: str) -> None:
    assert line_time(line) == datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("line", ["", "x 2026-01-31T12:00:00Z", "2026-01-31", "2026-02-31 00:00:00"])
def test_lines_without_a_time(line: str) -> None:
    assert line_time(line) is None


def test_bytes_that_are_no_text_and_carriage_returns(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"\xff\xfeok\r\n")
    assert everything(reader(log)) == ["\ufffd\ufffdok"]


def test_a_line_without_an_end_is_given_in_pieces_and_not_kept_in_memory(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * (LONGEST_LINE * 3))
    found = reader(log)
    assert sum(len(line) for line in found.read(last=False)) == LONGEST_LINE * 3
    found.close()


def test_a_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old old old\n")
    found = reader(log)
    assert found.read(last=False) == ["old old old"]
    log.write_text("new\n")
    assert found.read(last=False) == ["new"]
    found.close()


def test_a_rotated_file_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\n")
    found = reader(log)
    assert found.read(last=False) == ["one"]
    with log.open("a") as end:
        end.write("two\n")
    log.rename(tmp_path / "a.log.1")
    log.write_text("three\n")
    assert found.read(last=False) == ["two"]
    assert found.read(last=False) == ["three"]
    found.close()


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    found = reader(log)
    assert found.read(last=False) == []
    log.write_text("here\n")
    assert found.read(last=False) == ["here"]
    found.close()
