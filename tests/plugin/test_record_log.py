"""The log of records: it holds what a mapping would, whatever cut off its last writer."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.plugin.record_log import RecordLog

STEPS = st.lists(st.tuples(st.sampled_from(("put", "drop", "reopen")), st.sampled_from("abc"), st.integers()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "records.jsonl"


@given(steps=STEPS, spare=st.integers(1, 8))
def test_any_history_is_read_back_by_another(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]], spare: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "records.jsonl"
    expected: dict[str, Any] = {}
    log = RecordLog(path, spare=spare)
    for what, name, number in steps:
        if what == "put":
            log.put(name, {"number": number})
            expected[name] = {"number": number}
        elif what == "drop":
            log.drop(name)
            expected.pop(name, None)
        else:
            log.close()
            log = RecordLog(path, spare=spare)
        assert RecordLog(path).read() == expected
    log.close()


def test_a_last_line_cut_at_any_byte_leaves_what_was_before_it_and_a_file_that_can_be_gone_on_with(
    path: Path,
) -> None:
    log = RecordLog(path)
    log.put("a", {"n": 1})
    before = path.stat().st_size
    log.put("a", {"n": 2})
    log.close()
    whole = path.read_bytes()
    for length in range(before, len(whole)):
        path.write_bytes(whole[:length])
        whole_line = length == len(whole) - 1  # only its end is missing
        assert RecordLog(path).read() == {"a": {"n": 2 if whole_line else 1}}
        later = RecordLog(path)
        later.put("b", {"n": 3})
        later.close()
        assert RecordLog(path).read() == {"a": {"n": 2 if whole_line else 1}, "b": {"n": 3}}


def test_what_is_no_record_is_passed_over(path: Path) -> None:
    log = RecordLog(path)
    log.put("a", {"n": 1})
    log.close()
    with path.open("ab") as file:
        file.write(b'\n{}\n[1, 2]\n"x"\n\xff\n[["b"], 1]\n')
    assert RecordLog(path).read() == {"a": {"n": 1}}


def test_the_file_does_not_grow_without_end_and_stays_the_owners_alone(path: Path) -> None:
    log = RecordLog(path, spare=10)
    log.put("kept", {"n": 0})
    for number in range(200):
        log.put("a", {"n": number})
        log.drop("a")
    assert RecordLog(path).read() == {"kept": {"n": 0}}
    assert len(path.read_bytes().splitlines()) < 20
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]
    log.close()


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As a full disk has it: writes beyond that fail, also half-way."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_told_and_costs_only_what_could_not_be_written(path: Path) -> None:
    log = RecordLog(path)
    log.put("a", {"n": 1})
    size = path.stat().st_size
    for room in (0, 5):
        with no_file_longer_than(size + room), pytest.raises(OSError):  # noqa: PT011 - EFBIG or a short write
            log.put("b", {"n": 2})
        assert RecordLog(path).read() == {"a": {"n": 1}}
    log.put("c", {"n": 3})
    assert RecordLog(path).read() == {"a": {"n": 1}, "c": {"n": 3}}
    log.close()


def test_what_was_cleared_is_gone_and_can_be_begun_anew(path: Path) -> None:
    log = RecordLog(path)
    log.put("a", {"n": 1})
    log.clear()
    assert not path.exists()
    log.clear()
    log.put("b", {"n": 2})
    assert RecordLog(path).read() == {"b": {"n": 2}}
    log.close()


def test_dropping_what_was_never_there_makes_no_file(path: Path) -> None:
    RecordLog(path).drop("a")
    assert not path.exists()
