"""Reading a log onwards: tails, rotation, truncation, endless lines."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from stoker.api.facade import LogFile
from stoker.api.logs import LONGEST_LINE, PIECE, LogReader, LogTail, line_time
from stoker.api.logtext import last_lines


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
    ("line", "after"),
    [
        ("2026-01-31T12:00:00Z x", 0),
        ("2026-01-31 13:00:00.5+01:00 x", 0.5),
        ("[2026-01-31 07:00:00,250-0500]", 0.25),
        ('{"time": "2026-01-31T12:00:01Z", "message": "x"}', 1),
        ('{"level": "info", "ts": 1769860802.5}', 2.5),
        ('{"timestamp": 1769860803000}', 3),
    ],
)
def test_times_with_a_zone(line: str, after: float) -> None:
    assert line_time(line) == datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() + after


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x 2026-01-31T12:00:00Z",
        "2026-01-31",
        "2026-02-31 00:00:00",
        "{torn",
        '{"time": null, "ts": -1}',
        '{"time": "soon"}',
    ],
)
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


def logs(*paths: Path) -> list[LogFile]:
    return [LogFile(service="d/s", replica=path.stem, path=str(path), alive=True) for path in paths]


@pytest.mark.anyio
async def test_lines_of_many_replicas_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Lines without a time go with the one before; logs without any time come first, one after the other."""
    one, two, plain = (tmp_path / f"{name}.log" for name in ("one", "two", "plain"))
    one.write_text("2026-01-31T12:00:01Z a\n  of a\n2026-01-31T12:00:04Z d\n")
    two.write_text('{"ts": "2026-01-31T12:00:02Z", "m": "b"}\n2026-01-31 12:00:03.5Z c\n')
    plain.write_text("x\ny\n")
    tail = LogTail(lambda: logs(one, two, plain))
    await tail.open()
    found = [json.loads(line) async for chunk in tail.lines() for line in chunk.splitlines()]
    texts = [entry["line"].removeprefix("2026-01-31T12:00:") for entry in found]
    assert texts == [
        "x", "y", "01Z a", "  of a", '{"ts": "2026-01-31T12:00:02Z", "m": "b"}', "2026-01-31 12:00:03.5Z c",
        "04Z d",
    ]  # fmt: skip


@pytest.mark.anyio
async def test_following_takes_in_new_replicas_and_restarts(tmp_path: Path) -> None:
    """A restarted replica goes on in its log; a new one's is read from its beginning."""
    paths = [tmp_path / "one.log"]
    paths[0].write_text("first life\n")
    tail = LogTail(lambda: logs(*paths), follow=True, tail=0)
    await tail.open()
    seen: list[str] = []
    with anyio.fail_after(20):
        stream = tail.lines()
        paths[0].write_text("first life\nsecond life\n")
        paths.append(tmp_path / "two.log")
        paths[1].write_text("new\n")
        async for chunk in stream:
            seen += [json.loads(line)["line"] for line in chunk.splitlines()]
            if len(seen) == 2:
                break
        await stream.aclose()
    assert sorted(seen) == ["new", "second life"]


def test_a_log_is_quoted_by_its_last_lines_with_text(tmp_path: Path) -> None:
    log = tmp_path / "web-1.log"
    assert last_lines(str(log), 3) == []
    log.write_bytes(b"old\n" * 10_000 + b"one\n\n \ntwo \x1b[31mred\x07\nthr\xffee\r\n" + b"x" * 1000)
    assert last_lines(str(log), 4) == ["one", "two [31mred", "thr\ufffdee", "x" * 400]
    assert last_lines(str(log), 9999).count("old") < 10_000
