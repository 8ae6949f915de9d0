"""What a service was when it proved itself is known to the next daemon, whatever kind of service it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stoker.model.service import BentoService, Command, Probe, Probes, PythonTarget
from stoker.model.state import ObservedState, Rejection
from stoker.runtime.good_revisions import GoodRevisions
from worlds import make_spec

SPECS = {
    "app/a": replace(
        make_spec("a", gpu=0.5),
        envs=(("A", "1"),),
        probes=Probes(startup=Probe(http="/readyz")),
        depends=("b",),
    ),
    "app/b": replace(make_spec("b"), launch=PythonTarget("module:app")),
    "app/c": replace(make_spec("c"), launch=BentoService(bento="/srv", service="S", config='{"x": 1}')),
    "app/d": replace(make_spec("d"), launch=Command(("sleep", "1"))),
}
FAILED = {"app/a": Rejection(revision="1", back_on="2", reason="it hung", wall=1.5)}


@pytest.fixture
def said() -> list[str]:
    return []


def kept(path: Path, said: list[str]) -> GoodRevisions:
    return GoodRevisions(str(path), said.append)


def known(path: Path, said: list[str]) -> tuple[Any, Any]:
    state = kept(path, said).recall(ObservedState())
    return state.good, state.rejected


def test_the_next_daemon_knows_what_was_good_and_what_failed(tmp_path: Path, said: list[str]) -> None:
    kept(tmp_path, said).follow(ObservedState(good=SPECS, rejected=FAILED))
    assert known(tmp_path, said) == (SPECS, FAILED)
    assert (tmp_path / "revisions.jsonl").stat().st_mode & 0o777 == 0o600
    assert said == []


def test_changes_are_followed_and_nothing_else_is_written(tmp_path: Path, said: list[str]) -> None:
    revisions, path = kept(tmp_path, said), tmp_path / "revisions.jsonl"
    state = ObservedState(good=SPECS, rejected=FAILED)
    revisions.follow(state)
    size = path.stat().st_size
    revisions.follow(replace(state, serial=5))
    revisions.follow(replace(state, good=dict(SPECS), rejected=dict(FAILED)))
    assert path.stat().st_size == size
    rest = {key: spec for key, spec in SPECS.items() if key != "app/b"}
    revisions.follow(replace(state, good=rest, rejected={}))
    assert known(tmp_path, said) == (rest, {})


def test_a_good_end_forgets_them(tmp_path: Path, said: list[str]) -> None:
    revisions = kept(tmp_path, said)
    revisions.follow(ObservedState(good=SPECS))
    revisions.clear()
    assert known(tmp_path, said) == ({}, {})


def test_a_record_that_is_none_is_passed_over(tmp_path: Path, said: list[str]) -> None:
    kept(tmp_path, said).follow(ObservedState(good=SPECS))
    with (tmp_path / "revisions.jsonl").open("a") as file:
        file.write('["app/a", {"good": {"deployment": "app"}}]\n')
    good, _ = known(tmp_path, said)
    assert good == {key: spec for key, spec in SPECS.items() if key != "app/a"}


def test_what_cannot_be_written_is_said(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "revisions.jsonl").mkdir()
    kept(tmp_path, said).follow(ObservedState(good={"app/d": SPECS["app/d"]}))
    assert "cannot record the good revision of app/d" in said[0]
