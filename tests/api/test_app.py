"""Every route over a real unix socket."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from api.fakes import GPU, SPARE, FakeDaemon, Served, preview, rejection, served, snapshot
from api.wire import Connection, ask, get, post, refused
from stoker.api import metrics, settling
from stoker.api.facade import LogFile
from stoker.api.openapi import ENDPOINTS
from stoker.model.event import ConfigApplied
from stoker.model.service import DesiredState
from stoker.model.state import ObservedState


def test_status_and_one_service_of_it(live: Served) -> None:
    assert [s["name"] for s in get(live.socket, "/v1/status")["services"]] == ["tokenize", "infer"]
    assert [s["name"] for s in get(live.socket, "/v1/status?service=infer")["services"]] == ["infer"]


@pytest.mark.parametrize("question", [("GET", "/v1/status"), ("POST", "/v1/scale")])
def test_a_daemon_that_begins_answers_once_its_first_configuration_is_judged(
    tmp_path: Path, question: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "READING", 3600.0)
    begun = DesiredState()
    daemon = FakeDaemon(state=snapshot(desired=begun))
    with served(daemon, tmp_path / "s") as live, ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, live.socket, *question, {"service": "infer", "replicas": 2})
        while daemon.pulse._next is None and not asked.done():
            time.sleep(0.01)
        assert not asked.done(), "it did not wait"
        assert ask(live.socket, "GET", "/v1/plugins")[0] == 200
        live.portal.call(daemon.become)
        assert asked.result(20)[0] == 200
        live.portal.call(partial(daemon.become, desired=begun, config_state="rejected", addresses={}))
        assert get(live.socket, "/v1/status")["daemon"]["config"]["state"] == "rejected"


def test_what_is_told_after_waiting_is_the_state_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "READING", 0.2)
    daemon = FakeDaemon(state=snapshot(desired=DesiredState()))

    async def silent(after: int) -> int:
        daemon.state = snapshot(config_state="rejected")
        await anyio.sleep_forever()
        return after

    monkeypatch.setattr(daemon, "changed", silent)
    with served(daemon, tmp_path / "s") as live:
        assert get(live.socket, "/v1/status")["daemon"]["config"]["state"] == "rejected"


@pytest.mark.parametrize("question", ["/v1/status", "/metrics", "/v1/explain?of=infer"])
def test_load_is_told_up_to_now(live: Served, daemon: FakeDaemon, question: str) -> None:
    assert ask(live.socket, "GET", question)[0] == 200
    assert daemon.measured == 1


def test_a_path_that_is_no_utf_8_is_told_all_the_same(live: Served, daemon: FakeDaemon) -> None:
    daemon.state = snapshot(files=("/d\udcfcr/stoker.yaml",))
    assert get(live.socket, "/v1/status")["daemon"]["config"]["files"] == ["/d?r/stoker.yaml"]


def test_devices_that_nobody_has_seen_yet_are_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "PATIENCE", 3600.0)
    daemon = FakeDaemon(state=snapshot(observed=ObservedState()))
    with served(daemon, tmp_path / "s") as live, ThreadPoolExecutor() as pool:
        asked = pool.submit(get, live.socket, "/v1/devices")
        while daemon.pulse._next is None and not asked.done():
            time.sleep(0.01)
        assert not asked.done(), "it did not wait"
        live.portal.call(daemon.become)
        assert [device["uuid"] for device in asked.result(20)["devices"]] == [GPU, SPARE]
        live.portal.call(partial(daemon.become, observed=ObservedState()))
        monkeypatch.setattr(settling, "PATIENCE", 0.1)
        assert get(live.socket, "/v1/devices")["devices"] == []
        monkeypatch.setattr(settling, "PATIENCE", 3600.0)
        assert get(live.socket, "/v1/devices")["devices"] == []


@pytest.mark.parametrize("question", [("GET", "/v1/status"), ("POST", "/v1/reload")])
def test_what_is_answered_can_be_used_at_once(
    tmp_path: Path, question: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that no router has opened yet is waited for; one that stays closed, only once."""
    monkeypatch.setattr(settling, "PATIENCE", 3600.0)
    daemon = FakeDaemon(state=snapshot(opening=("rag/infer",)))
    with served(daemon, tmp_path / "s") as live, ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, live.socket, *question)
        while daemon.pulse._next is None and not asked.done():
            time.sleep(0.01)
        assert not asked.done(), "it did not wait"
        live.portal.call(daemon.become)
        assert asked.result(20)[0] == 200
        live.portal.call(partial(daemon.become, opening=("rag/infer",)))
        monkeypatch.setattr(settling, "PATIENCE", 0.1)
        assert ask(live.socket, *question)[0] == 200
        monkeypatch.setattr(settling, "PATIENCE", 3600.0)
        assert ask(live.socket, *question)[0] == 200


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("of=infer", "service"),
        ("of=rag/infer", "service"),
        ("of=infer-k3x9", "replica"),
        ("of=services.infer.scaling.max_replicas", "path"),
        ("service=infer", "service"),
        ("replica=infer-k3x9", "replica"),
        ("path=services.infer.scaling.max_replicas", "path"),
    ],
)
def test_explain_finds_out_what_is_meant(live: Served, query: str, kind: str) -> None:
    assert get(live.socket, f"/v1/explain?{query}")["kind"] == kind


def test_explain_names_the_nearest_of_the_right_kind(live: Served) -> None:
    assert "'infer'" in refused(live.socket, "GET", "/v1/explain?of=infr")["detail"]
    assert "max_replicas" in refused(live.socket, "GET", "/v1/explain?of=services.infer.scaling.ma")["detail"]
    assert refused(live.socket, "GET", "/v1/explain")["status"] == 400


def test_devices_plugins_story(live: Served) -> None:
    assert [device["index"] for device in get(live.socket, "/v1/devices")["devices"]] == [0, 1]
    states = {plugin["name"]: plugin["state"] for plugin in get(live.socket, "/v1/plugins")["plugins"]}
    assert states == {"process": "loaded", "tides": "failed"}
    assert get(live.socket, "/v1/story/infer-k3x9")["events"][0]["id"] == "e1"
    assert refused(live.socket, "GET", "/v1/story/nix")["status"] == 404


def test_plan_of_the_files_in_force_and_of_others(live: Served, daemon: FakeDaemon) -> None:
    assert not get(live.socket, "/v1/plan")["changes"]
    daemon.preview_of = preview()
    body = {"files": ["/a.yaml"], "profile": "gpu", "sets": ["x=1"]}
    assert post(live.socket, "/v1/plan", body)["changes"]
    assert daemon.calls == [("preview", (), None, ()), ("preview", ("/a.yaml",), "gpu", ("x=1",))]


@pytest.mark.parametrize(
    ("path", "body", "call"),
    [
        ("scale", {"service": "infer", "replicas": 3}, ("scale", "rag/infer", 3, 3)),
        ("scale", {"service": "infer", "min_replicas": 1, "max_replicas": 4}, ("scale", "rag/infer", 1, 4)),
        ("set", {"values": {"services.infer.priority": 5}}, ("set", {"services.infer.priority": 5})),
        ("unset", {"paths": ["services.infer.priority"]}, ("unset", ("services.infer.priority",))),
        ("restart", {"service": "rag/infer"}, ("restart", "rag/infer")),
        ("stop", {"service": "infer"}, ("hold", "rag/infer", True)),
        ("start", {"service": "infer"}, ("hold", "rag/infer", False)),
        ("devices/cordon", {"device": "0"}, ("mark_device", GPU, "cordoned")),
        ("devices/uncordon", {"device": "GPU-9"}, ("mark_device", SPARE, None)),
        ("devices/release", {"device": GPU}, ("mark_device", GPU, "released")),
        ("listen", {"address": "127.0.0.1:0"}, ("listen", "127.0.0.1:0")),
        ("reload", None, ("reload",)),
        ("reexec", {}, ("reexec",)),
        ("down", {}, ("down",)),
    ],
)
def test_changes_reach_the_daemon(live: Served, daemon: FakeDaemon, path: str, body: Any, call: Any) -> None:
    assert post(live.socket, f"/v1/{path}", body)["ok"]
    assert daemon.calls == [call]


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("scale", b"{", "no JSON"),
        ("scale", [], "object"),
        ("scale", {"service": "infer"}, "min_replicas"),
        ("scale", {"service": "infer", "replicas": -1}, "zero or more"),
        ("scale", {"service": "infer", "replicas": True}, "whole number"),
        ("scale", {"service": "infer", "replicas": "3"}, "whole number"),
        ("scale", {"service": "infer", "min_replicas": 4, "max_replicas": 1}, "larger"),
        ("scale", {"service": "infer", "replica": 1}, "unknown field 'replica'"),
        ("scale", {"replicas": 1}, "'service'"),
        ("set", {"values": {}}, "not empty"),
        ("unset", {"paths": []}, "at least one"),
        ("unset", {"paths": "x"}, "list of strings"),
        ("plan", {"files": [1]}, "list of strings"),
        ("restart", {"service": 3}, "string"),
        ("down", {"now": True}, "unknown field"),
        ("set", b'{"values": {"a": "' + b"x" * 2**20 + b'"}}', "larger than"),
    ],
)
def test_a_malformed_body_is_refused_and_changes_nothing(
    live: Served, daemon: FakeDaemon, path: str, body: Any, word: str
) -> None:
    problem = refused(live.socket, "POST", f"/v1/{path}", body)
    assert problem["status"] == 400
    assert word in problem["detail"]
    assert daemon.calls == []


def test_a_refused_configuration_lists_every_fault_with_its_place(live: Served, daemon: FakeDaemon) -> None:
    daemon.rejects = rejection()
    problem = refused(live.socket, "POST", "/v1/reload")
    assert problem["status"] == 422
    assert [error["line"] for error in problem["errors"]] == [3, 9]
    assert problem["errors"][0]["path"] == "services.infer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/status", 405),
        ("GET", "/v1/scale", 405),
        ("GET", "/v1/status/", 404),
    ],
)
def test_unknown_routes_are_problems_too(live: Served, method: str, path: str, status: int) -> None:
    assert refused(live.socket, method, path)["status"] == status


def test_a_bug_in_the_daemon_is_a_problem_without_a_traceback(live: Served, daemon: FakeDaemon) -> None:
    daemon.state = None  # type: ignore[assignment]
    problem = refused(live.socket, "GET", "/v1/status")
    assert problem["status"] == 500
    assert "AttributeError" in problem["detail"]


def test_the_openapi_document_names_every_route(live: Served) -> None:
    document = get(live.socket, "/v1/openapi.json")
    assert document["openapi"].startswith("3.")
    for endpoint in ENDPOINTS:
        assert endpoint.method.lower() in document["paths"][endpoint.path]
    scale = document["paths"]["/v1/scale"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert scale["required"] == ["service"]
    story = document["paths"]["/v1/story/{replica}"]["get"]
    assert [parameter["in"] for parameter in story["parameters"]] == ["path"]


def test_plain_pages(live: Served) -> None:
    assert ask(live.socket, "GET", "/healthz")[::2] == (200, b"ok\n")
    assert b"/v1/openapi.json" in ask(live.socket, "GET", "/v1")[2]
    status, kind, text = ask(live.socket, "GET", "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert b"stoker_replicas{" in text


# --- events -----------------------------------------------------------------------------------------------


class Stream:
    """A reader of server-sent events."""

    def __init__(self, socket: str, path: str = "/v1/events", **headers: str) -> None:
        self.connection = Connection(socket)
        self.connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        self.response = self.connection.getresponse()
        assert self.response.headers["content-type"].startswith("text/event-stream")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()

    def next(self) -> tuple[str, str, Any]:
        found: dict[str, str] = {}
        while line := self.response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                found[name] = value
            elif "data" in found:
                return found["id"], found["event"], json.loads(found["data"])
        raise EOFError


def test_events_come_as_they_happen_after_those_that_are_kept(live: Served) -> None:
    with Stream(live.socket) as stream:
        assert [stream.next()[0] for _ in range(5)] == ["e1", "e2", "e3", "e4", "e5"]
        live.happen(ConfigApplied(generation=5))
        identity, kind, data = stream.next()
    assert (identity, kind, data["fields"]["generation"]) == ("e6", "ConfigApplied", 5)


def test_a_client_that_comes_back_with_its_last_id_misses_nothing(live: Served) -> None:
    with Stream(live.socket, "/v1/events?tail=1") as first:
        assert first.next()[0] == "e5"
    live.happen(ConfigApplied(generation=5))
    live.happen(ConfigApplied(generation=6))
    with Stream(live.socket, Last_Event_ID="e5") as again:
        assert [again.next()[0] for _ in range(2)] == ["e6", "e7"]


def test_tail_limits_what_is_kept(live: Served) -> None:
    assert [e["id"] for e in get(live.socket, "/v1/events?follow=false&tail=2")["events"]] == ["e4", "e5"]
    assert len(get(live.socket, "/v1/events?follow=false")["events"]) == 5
    assert get(live.socket, "/v1/events?follow=0&tail=0")["events"] == []
    assert refused(live.socket, "GET", "/v1/events?tail=x")["status"] == 400
    assert refused(live.socket, "GET", "/v1/events?follow=perhaps")["status"] == 400


def test_streams_end_in_good_order_when_the_daemon_does(daemon: FakeDaemon, tmp_path: Path) -> None:
    with served(daemon, tmp_path / "s.sock") as running:
        stream = Stream(running.socket, "/v1/events?tail=1")
        assert stream.next()[0] == "e5"
    with stream, pytest.raises(EOFError):  # an end, not a broken connection
        stream.next()


# --- logs -------------------------------------------------------------------------------------------------


@pytest.fixture
def logs(daemon: FakeDaemon, tmp_path: Path) -> dict[str, Path]:
    made = {}
    for replica, content in {"infer-k3x9": "one\ntwo\n", "infer-m2p4": "three\nunfinished"}.items():
        made[replica] = tmp_path / f"{replica}.log"
        made[replica].write_text(content)
        file = LogFile(service="rag/infer", replica=replica, path=str(made[replica]), alive=True)
        daemon.files.append(file)
    return made


def lines(socket: str, query: str) -> list[str]:
    status, kind, body = ask(socket, "GET", f"/v1/logs{query}")
    assert (status, kind) == (200, "application/x-ndjson")
    return [json.loads(line)["line"] for line in body.splitlines()]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["one", "two", "three", "unfinished"]),
        ("?service=infer", ["one", "two", "three", "unfinished"]),
        ("?service=infer-k3x9", ["one", "two"]),
        ("?tail=1", ["two", "unfinished"]),
        ("?tail=0", []),
        ("?since=9999999999", []),
        ("?since=1", ["one", "two", "three", "unfinished"]),
    ],
)
def test_logs(live: Served, logs: dict[str, Path], query: str, expected: list[str]) -> None:
    assert lines(live.socket, query) == expected


def test_logs_of_an_unknown_name_are_a_problem_not_an_empty_stream(
    live: Served, logs: dict[str, Path]
) -> None:
    assert refused(live.socket, "GET", "/v1/logs?service=nope")["status"] == 404


def test_following_shows_new_lines_and_new_replicas(
    live: Served, daemon: FakeDaemon, logs: dict[str, Path], tmp_path: Path
) -> None:
    connection = Connection(live.socket)
    connection.request("GET", "/v1/logs?service=infer&follow=true&tail=1")
    response = connection.getresponse()
    with logs["infer-m2p4"].open("a") as log:
        log.write(" but now it is\n")
    assert json.loads(response.readline())["line"] == "two"
    assert json.loads(response.readline())["line"] == "unfinished but now it is"
    new = tmp_path / "infer-new1.log"
    new.write_text("born\n")
    daemon.files.append(LogFile(service="rag/infer", replica="infer-new1", path=str(new), alive=True))
    assert json.loads(response.readline()) == {
        "service": "rag/infer",
        "replica": "infer-new1",
        "line": "born",
    }
    response.close()
    connection.close()


def test_metrics_of_many_services_are_the_same_written_beside_the_loop(
    daemon: FakeDaemon, live: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, few = ask(live.socket, "GET", "/metrics")
    monkeypatch.setattr(metrics, "MANY", 0)
    _, kind, many = ask(live.socket, "GET", "/metrics")
    assert kind.startswith("text/plain")
    assert many == few
