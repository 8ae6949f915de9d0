"""`stoker doctor` as it is typed: with a daemon, without, on a box where something is wrong."""

from __future__ import annotations

import json

import pytest

from api.fakes import FakeDaemon, snapshot
from cli.conftest import Stoker
from stoker.errors import StokerError


@pytest.fixture(autouse=True)
def _box_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_SOCKET", "/nonexistent/stoker.sock")


def checks(result) -> dict[str, dict]:
    return {check["check"]: check for check in json.loads(result.out)["checks"]}


def test_without_a_daemon_a_wrong_place_is_a_failure_with_its_remedy(stoker: Stoker, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    result = stoker("doctor", "-o", "json", "--state-dir", str(tmp_path / "file" / "state"))
    assert result.code == 1
    found = checks(result)
    assert json.loads(result.out)["ok"] is False
    assert found["state directory"]["state"] == "fail"
    assert "--state-dir" in found["state directory"]["remedy"]
    assert found["daemon"]["text"].startswith("none answers at")


@pytest.mark.usefixtures("live")
def test_with_a_daemon_its_own_word_counts(
    stoker: Stoker, daemon: FakeDaemon, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.state = snapshot(state_dir=str(tmp_path), addresses={})
    result = stoker("doctor", "-o", "json")
    found = checks(result)
    assert result.code == (0 if json.loads(result.out)["ok"] else 1)
    assert found["state directory"]["text"] == str(tmp_path)
    assert "Xid 79" in found["gpus"]["text"]
    assert "router" not in found


@pytest.mark.usefixtures("live")
def test_an_unhappy_daemon_is_a_failure(stoker: Stoker, daemon: FakeDaemon, tmp_path) -> None:
    def refuse():
        raise StokerError("the state is locked")

    daemon.snapshot = refuse  # type: ignore[method-assign]
    result = stoker("doctor", "-o", "json")
    assert result.code == 1
    assert checks(result)["daemon"]["state"] == "fail"


def test_the_text_has_a_line_for_each_and_the_remedy_below(stoker: Stoker, tmp_path) -> None:
    result = stoker("doctor", "--socket", str(tmp_path / ("x" * 150)))
    lines = result.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("fail  socket"))
    assert "bytes" in lines[at]
    assert "choose a shorter one" in lines[at + 1]
