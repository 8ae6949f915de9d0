"""What policies remember is written now and then, and known to the next daemon of the same boot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stoker.decide.scaling import RuleMemory, ScalingMemory
from stoker.runtime.scaling_memories import PERIOD, ScalingMemories


def memory(last: int) -> ScalingMemory:
    rule = RuleMemory(last=last, highs=((3.0, 7),), state={"hours": [1, 2.5]})
    return ScalingMemory(rules={'["foresight", null, {}]': rule})


def open_in(place: Path, boot: str = "boot") -> ScalingMemories:
    return ScalingMemories(str(place), pytest.fail, boot=boot)


def test_the_next_daemon_knows(tmp_path: Path) -> None:
    open_in(tmp_path).keep("app/web", memory(2), now=10.0)
    assert open_in(tmp_path).of("app/web") == memory(2)
    assert open_in(tmp_path).of("app/other") == ScalingMemory()


def test_it_is_written_now_and_then_and_only_if_it_changed(tmp_path: Path) -> None:
    kept = open_in(tmp_path)
    lines = []
    for at, last in ((10.0, 2), (10.0 + PERIOD - 1, 3), (10.0 + PERIOD, 4), (10.0 + 3 * PERIOD, 4)):
        kept.keep("app/web", memory(last), now=at)
        lines.append(len((tmp_path / "scaling.jsonl").read_text().splitlines()))
    assert lines == [1, 1, 2, 2]
    assert open_in(tmp_path).of("app/web") == memory(4)


def test_times_of_another_boot_mean_nothing(tmp_path: Path) -> None:
    open_in(tmp_path, "before").keep("app/web", memory(2), now=10.0)
    assert open_in(tmp_path).of("app/web") == ScalingMemory()


@pytest.mark.parametrize("record", [{}, {"boot": "boot"}, {"boot": "boot", "rules": {"x": 3}}, [1], None])
def test_what_cannot_be_read_is_as_good_as_none(tmp_path: Path, record: object) -> None:
    (tmp_path / "scaling.jsonl").write_text(json.dumps(["app/web", record]) + "\nnot even JSON\n")
    assert open_in(tmp_path).of("app/web") == ScalingMemory()


def test_a_full_disk_is_told_and_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "scaling.jsonl").mkdir()
    told: list[str] = []
    kept = ScalingMemories(str(tmp_path), told.append, boot="boot")
    kept.keep("app/web", memory(2), now=10.0)
    assert len(told) == 1
    assert "cannot record what the policies of app/web remember" in told[0]
