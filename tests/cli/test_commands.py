"""Each command against a daemon: what it prints, what it asks for, how it exits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.fakes import GPU, REASON, FakeDaemon, Served, preview, rejection, snapshot, spec, specs
from cli.conftest import Stoker
from stoker.api.facade import LogFile
from stoker.cli.commands.events import news
from stoker.errors import ConfigProblem
from stoker.model.device import Inventory
from stoker.model.service import DesiredState
from stoker.model.state import ObservedState

pytestmark = pytest.mark.usefixtures("live")


def test_status_shows_pools_replicas_and_reasons(stoker: Stoker) -> None:
    result = stoker("status")
    assert result.code == 0
    for text in ("generation 4 in force", "infer", "0..8", "http://127.0.0.1:8001", "80ms", "infer-k3x9",
                 "pending", "needs 1 GPU; 0 of 2 free", "4242"):  # fmt: skip
        assert text in result.out
    assert "\x1b" not in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_status_of_one_service_says_why(stoker: Stoker) -> None:
    result = stoker("status", "infer")
    assert f"why 2: {REASON}" in result.out
    assert "tokenize" not in result.out


def test_status_as_json_is_one_document(stoker: Stoker) -> None:
    whole = json.loads(stoker("status", "-o", "json").out)
    one = json.loads(stoker("status", "rag/infer", "--output", "json").out)
    assert [service["name"] for service in whole["services"]] == ["tokenize", "infer"]
    assert [service["name"] for service in one["services"]] == ["infer"]


def test_status_of_a_rejected_configuration_shows_every_fault(stoker: Stoker, daemon: FakeDaemon) -> None:
    faults = (ConfigProblem("unknown key", file="a.yaml", line=3, column=5, path="services.x"),)
    daemon.state = snapshot(config_state="rejected", problems=faults, notices=("the disk is full",))
    out = stoker("status").out
    assert "REJECTED" in out
    assert "a.yaml:3:5: services.x: unknown key" in out
    assert "the disk is full" in out


def test_status_without_services(stoker: Stoker, daemon: FakeDaemon) -> None:
    daemon.state = snapshot(desired=DesiredState(), observed=ObservedState())
    assert "no services" in stoker("status").out


def test_a_service_in_two_deployments_must_be_named_in_full(stoker: Stoker, daemon: FakeDaemon) -> None:
    both = specs() | {"chat/infer": spec("infer", "chat")}
    daemon.state = snapshot(desired=DesiredState(services=both))
    result = stoker("status", "infer")
    assert (result.code, result.out) == (1, "")
    assert "rag/infer, chat/infer" in result.err
    assert "chat/infer" in stoker("status").out


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("infer", [REASON, "over 60 s: 7.10 in flight", "concurrency"]),
        ("tokenize", ["no data is not zero load"]),
        ("infer-k3x9", ["only healthy GPU", "GPU 0", "pid 4242", "ready: GET /readyz answered 200"]),
        ("services.infer.scaling.max_replicas", ["= 8", "=>  override", "/etc/stoker/rag.yaml:7:22"]),
    ],
)
def test_explain(stoker: Stoker, what: str, expected: list[str]) -> None:
    result = stoker("explain", what)
    assert result.code == 0
    for text in expected:
        assert text in result.out


@pytest.mark.parametrize("what", ["infer", "infer-k3x9", "services.infer.scaling.max_replicas"])
def test_explain_as_json(stoker: Stoker, what: str) -> None:
    assert json.loads(stoker("explain", what, "-o", "json").out)["kind"] in {"service", "replica", "path"}


def test_story_tells_the_causes(stoker: Stoker) -> None:
    result = stoker("story", "infer-k3x9")
    assert "because config generation 4 in force" in result.out
    assert len(json.loads(stoker("story", "infer-k3x9", "-o", "json").out)["events"]) == 5
    assert stoker("story", "infer-zzzz").code == 1


def test_gpus(stoker: Stoker, daemon: FakeDaemon) -> None:
    out = stoker("gpus").out
    for text in (GPU, "quarantined: Xid 79", "infer-k3x9", "80Gi", "50%"):
        assert text in out
    assert len(json.loads(stoker("gpus", "-o", "json").out)["devices"]) == 2
    daemon.state = snapshot(observed=ObservedState(inventory=Inventory(reason="no NVIDIA driver")))
    assert stoker("gpus").out == "no GPUs: no NVIDIA driver\n"
    hung = Inventory(state="unreachable", reason="the driver does not answer")
    daemon.state = snapshot(observed=ObservedState(inventory=hung))
    assert "cannot be seen now: the driver does not answer" in stoker("gpus").out


def test_plugins(stoker: Stoker) -> None:
    out = stoker("plugins").out
    assert "driver: process" in out
    assert "no module named moon" in out
    assert len(json.loads(stoker("plugins", "-o", "json").out)["plugins"]) == 2


@pytest.mark.parametrize(
    ("args", "call"),
    [
        (["scale", "infer", "3"], ("scale", "rag/infer", 3, 3)),
        (["scale", "rag/infer", "1..4"], ("scale", "rag/infer", 1, 4)),
        (["restart", "infer"], ("restart", "rag/infer")),
        (["stop", "infer"], ("hold", "rag/infer", True)),
        (["start", "infer"], ("hold", "rag/infer", False)),
        (["reload"], ("reload",)),
        (["unset", "a.b", "c.d"], ("unset", ("a.b", "c.d"))),
        (["set", "a.b=4", "c.d=yes", "e=[1, x]", "f=null"],
         ("set", {"a.b": 4, "c.d": "yes", "e": [1, "x"], "f": None})),
    ],
)  # fmt: skip
def test_changes(stoker: Stoker, daemon: FakeDaemon, args: list[str], call: tuple[Any, ...]) -> None:
    result = stoker(*args)
    assert (result.code, result.err) == (0, "")
    assert result.out
    assert daemon.calls == [call]


@pytest.mark.parametrize(
    "args",
    [
        ["scale", "infer", "4..1"], ["scale", "infer", "some"], ["scale", "infer", "-1"], ["scale", "infer"],
        ["set", "nothing"], ["set", "=4"], ["set"], ["set", "a=[1"], ["unset"], ["status", "a", "b"],
        ["status", "-o", "xml"], ["logs", "--since", "yesterday-ish"], ["logs", "-n", "-3"], ["nonsense"],
        ["--nonsense"],
    ],
)  # fmt: skip
def test_misuse_is_two_plain_lines_and_exit_code_2(
    stoker: Stoker, daemon: FakeDaemon, args: list[str]
) -> None:
    result = stoker(*args)
    assert result.code == 2
    assert result.out == ""
    assert 1 <= len(result.err.splitlines()) <= 2
    assert daemon.calls == []


def test_a_change_the_configuration_does_not_allow(stoker: Stoker, daemon: FakeDaemon) -> None:
    daemon.rejects = rejection()
    result = stoker("scale", "infer", "3")
    assert result.code == 2
    assert result.err.splitlines()[0].startswith("/etc/stoker/rag.yaml:3:5: services.infer: unknown key")


def test_names_that_do_not_exist(stoker: Stoker) -> None:
    for args in (["restart", "infre"], ["explain", "infre"], ["scale", "infre", "1"]):
        result = stoker(*args)
        assert result.code == 1
        assert "did you mean 'infer'?" in result.err


# --- plan -------------------------------------------------------------------------------------------------


def test_plan_without_changes(stoker: Stoker, daemon: FakeDaemon) -> None:
    result = stoker("plan")
    assert (result.code, result.out) == (0, "no changes\n")
    assert daemon.calls == [("preview", (), None, ())]


def test_plan_tells_what_restarts_and_why(stoker: Stoker, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.preview_of = preview(observed=daemon.state.observed)
    file = tmp_path / "new.yaml"
    file.write_text("services: {}")
    result = stoker("plan", str(file), "--set", "a=1", "--profile", "gpu")
    assert result.code == 2
    assert "~ rag/infer: new workers" in result.out
    assert "restarted because of envs.MODEL" in result.out
    assert "+ rag/rank: new" in result.out
    assert "would wait: needs 1 whole GPU" in result.out
    assert "plan: 1 to add, 1 to restart" in result.out
    assert daemon.calls == [("preview", (str(file),), "gpu", ("a=1",))]
    assert json.loads(stoker("plan", str(file), "-o", "json").out)["changes"] is True


def test_plan_of_a_bad_file_is_exit_code_1(stoker: Stoker, daemon: FakeDaemon) -> None:
    daemon.rejects = rejection()
    result = stoker("plan")
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 2


# --- logs and events --------------------------------------------------------------------------------------


@pytest.fixture
def logs(daemon: FakeDaemon, tmp_path: Path) -> None:
    for replica, content in {"infer-k3x9": "one\ntwo\n", "infer-m2p4": "three\n"}.items():
        path = tmp_path / f"{replica}.log"
        path.write_text(content)
        daemon.files.append(LogFile(service="rag/infer", replica=replica, path=str(path), alive=True))


@pytest.mark.usefixtures("logs")
def test_logs_carry_the_replica_unless_it_was_asked_for(stoker: Stoker) -> None:
    both = "infer-k3x9 | one\ninfer-k3x9 | two\ninfer-m2p4 | three\n"
    assert stoker("logs").out == both
    assert stoker("logs", "infer").out == both
    assert stoker("logs", "infer-k3x9").out == "one\ntwo\n"
    assert stoker("logs", "-n", "1", "infer-k3x9").out == "two\n"
    assert stoker("logs", "--since", "1h").out == both
    assert stoker("logs", "--since", "2999-01-01").out == ""
    assert stoker("logs", "nope").code == 1


def test_what_was_said_of_the_devices_is_not_said_again() -> None:
    told = [
        ("InventoryChanged", "8 devices"),
        ("WorkerExited", "a exited"),
        ("InventoryChanged", "8 devices"),
    ]
    told += [("InventoryChanged", "7 devices"), ("InventoryChanged", "8 devices")]
    events = [{"type": kind, "message": message} for kind, message in told]
    assert [event["message"] for event in news(events, "text")] == [
        "8 devices", "a exited", "7 devices", "8 devices",
    ]  # fmt: skip
    assert list(news(events, "json")) == events


def test_events(stoker: Stoker) -> None:
    lines = stoker("events").out.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("infer-k3x9 ready: GET /readyz answered 200")
    assert len(stoker("events", "-n", "2").out.splitlines()) == 2
    document = json.loads(stoker("events", "-o", "json").out)
    assert [event["type"] for event in document["events"]][:2] == ["ConfigApplied", "ReplicaAdded"]


def test_options_work_before_and_after_the_command(stoker: Stoker, live: Served, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "nobody.sock")
    assert stoker("--socket", elsewhere, "status").code == 3
    assert stoker("status", "--socket", elsewhere).code == 3
    assert stoker("--socket", elsewhere, "status", "--socket", live.socket).code == 0


def test_many_ready_replicas_are_counted_not_listed(stoker: Stoker, daemon: FakeDaemon) -> None:
    first = daemon.state.observed.replicas["infer-k3x9"]
    many = {f"infer-{n:04}": replace(first, id=f"infer-{n:04}") for n in range(60)}
    waiting = {"infer-wait": replace(first, id="infer-wait", phase="pending", reason="no GPU is free")}
    daemon.state = snapshot(observed=ObservedState(replicas=many | waiting))
    out = stoker("status").out
    assert "infer-wait" in out
    assert "and 60 more that are ready" in out
    assert "infer-0007" in stoker("status", "infer").out
