"""What needs no HAProxy: which one serves, commands for its servers, load from its counters."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.errors import PluginError
from stoker.model.service import Command, ServiceSpec, Traffic
from stoker.model.state import WorkerRoute
from stoker_haproxy.binary import find, judge
from stoker_haproxy.lines import Ended, read_line
from stoker_haproxy.plugin import stoker_router_shortfalls
from stoker_haproxy.readings import Meter, Reading, Server, recall, remember
from stoker_haproxy.servers import Servers, read_servers


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("HAProxy version 2.8.25-5cf5d0683 2026/06/26\n... +LUA ...", ""),
        ("HAProxy version 3.0.1 2024/06/10\n+LUA", ""),
        ("HAProxy version 2.6.12-1+deb12u4 2026\n+LUA", "h is 2.6.12-1+deb12u4"),
        ("HAProxy version 2.8.1 2023\n-LUA", "h is built without Lua"),
        ("bash: h: not found", "h does not say its version"),
    ],
)
def test_which_haproxy_serves(said: str, reason: str) -> None:
    assert judge("h", said) == reason


def test_an_old_one_is_named_with_its_version_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\necho 'HAProxy version 2.6.12 2026'\n")
    program.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PluginError) as caught:
        find({"PATH": str(tmp_path)})
    assert str(caught.value) == (
        f"it needs HAProxy 2.8 or newer ({program} is 2.6.12); pip install 'stoker[haproxy]'"
    )


def test_what_it_cannot_do_is_declared_by_key() -> None:
    (lacks,) = stoker_router_shortfalls().values()
    plain = ServiceSpec(deployment="app", name="web", launch=Command(("serve",)), working_dir="/")
    assert lacks(plain) == {}
    asks = Traffic(max_body=1, priority_header="X-P", timeout_header="X-T", access_log=1.0, trace="start")
    found = lacks(replace(plain, traffic=asks))
    assert set(found) == {
        f"traffic.{key}" for key in ("max_body", "priority_header", "timeout_header", "access_log", "trace")
    }


def to(name: str, port: int = 1, concurrency: int | None = 2, *, draining: bool = False) -> WorkerRoute:
    return WorkerRoute(id=name, endpoint=f"127.0.0.1:{port}", concurrency=concurrency, draining=draining)


def test_only_what_differs_is_told() -> None:
    servers = Servers(http2=False)
    first = servers.become([to("a"), to("b")])
    assert [command.split()[:3] for command in first if command.startswith("add")] == [
        ["add", "server", "pool/a"],
        ["add", "server", "pool/b"],
    ]
    assert servers.become([to("a"), to("b")]) == []
    assert servers.become([to("a", concurrency=5), to("b", draining=True)]) == [
        "set maxconn server pool/a 5",
        "set server pool/b state drain",
    ]
    assert servers.serving == 1
    assert servers.become([to("b", draining=True)]) == ["set server pool/a state maint"]
    busy = Reading(0.0, servers={"a": Server(1, 0, 0, "MAINT"), "b": Server(0, 0, 0, "DRAIN")})
    assert servers.removable(busy) == []
    assert servers.drained(busy) == ["b"]
    assert servers.drained(busy) == [], "once"
    assert servers.removable(Reading(1.0)) == ["a"]


def test_a_worker_that_comes_back_is_the_same_server_but_not_at_another_place() -> None:
    servers = Servers(http2=True)
    servers.become([to("a", 1)])
    servers.become([])
    assert servers.become([to("a", 1)]) == ["set server pool/a state ready"]
    moved = servers.become([to("a", 2)])
    assert moved[0] == "set server pool/a state maint"
    assert moved[1].startswith("add server pool/a:2 127.0.0.1:2 maxconn 2 ")
    assert moved[1].endswith(" proto h2")


def test_a_worker_on_a_unix_socket_is_known_by_a_mark_in_its_servers_name() -> None:
    at = WorkerRoute(id="a", endpoint="unix:/tmp/a/http", concurrency=2)
    servers = Servers(http2=False)
    add, *_ = servers.become([at])
    _, _, where, address, *_ = add.split()
    assert address == "unix@/tmp/a/http"
    name = where.removeprefix("pool/")
    state = f"1\n# srv_name srv_addr srv_port\n{name} - 0\nplug - 0\n"
    found = read_servers(state, Reading(0.0, servers={name: Server(1, 0, 0, "UP", 2)}))
    later = Servers(http2=False, known=found)
    assert [known.worker for known in later] == ["a"]
    assert later.become([at]) == []
    moved = later.become([replace(at, endpoint="unix:/tmp/b/http")])
    assert moved[0] == f"set server pool/{name} state maint"
    assert moved[1].split()[3] == "unix@/tmp/b/http"


def test_time_in_flight_comes_from_readings() -> None:
    meter = Meter("a/b", Reading(10.0))
    two = {"w": Server(2, 0, 0, "UP")}
    meter.feed(Reading(11.0, arrivals=3, queued=1, servers=two))
    meter.feed(Reading(12.0, arrivals=3, queued=1, servers=two))
    meter.feed(Reading(13.0, arrivals=3, codes=(0, 0, 3, 0, 0, 0), answers=3, servers={}))
    meter.ended(Ended(waited=0.5, total=1.5, status=200, weight=3, answered=True))
    sample = meter.take()
    assert (sample.start, sample.end) == (10.0, 13.0)
    assert sample.in_flight_seconds == pytest.approx(1 + 2 + 1)
    assert sample.queued_seconds == pytest.approx(0.5 + 1 + 0.5)
    assert (sample.arrivals, sample.completions, sample.codes) == (3, 3, {"2xx": 3})
    assert sample.service_seconds == pytest.approx(3.0)
    assert sample.wait_seconds == pytest.approx(1.5)
    assert sample.latency == {1.5: 3}
    meter.feed(Reading(14.0, arrivals=3, codes=(0, 0, 3, 0, 0, 0), answers=3))
    assert meter.quiet


def test_the_first_in_the_queue_is_known_by_the_count_of_arrivals() -> None:
    meter = Meter("a/b", Reading(0.0))
    for second, arrivals in ((1.0, 1), (2.0, 2), (3.0, 4)):
        meter.feed(Reading(second, arrivals=arrivals, queued=arrivals))
    meter.feed(Reading(4.0, arrivals=4, queued=2))
    assert meter.take().oldest_wait == pytest.approx(1.0), "the third came by second 3"


def test_requests_that_were_given_up_are_no_answers() -> None:
    meter = Meter("a/b", Reading(0.0))
    meter.feed(Reading(1.0, arrivals=5, codes=(0, 0, 2, 0, 3, 0), answers=5, aborted=2))
    sample = meter.take()
    assert sample.codes == {"2xx": 2, "4xx": 1, "aborted": 2}
    assert sample.completions == 3


def test_counters_are_remembered_for_the_next_daemon() -> None:
    reading = Reading(12.345, arrivals=7, codes=(1, 0, 5, 0, 1, 0), answers=6, aborted=1)
    assert recall(remember(reading)) == reading
    assert recall("") is None
    assert recall("1.2.3") is None


def test_lines_of_the_log() -> None:
    line = read_line(b"end 1a2b-3 12 30 45 200 1 -- web-1\n")
    assert line is not None
    assert line.process == "1a2b-3"
    assert line.ended == Ended(waited=0.012, total=0.045, status=200, weight=1, answered=True)
    given_up = read_line(b"end x 12 -1 45 400 1 CH web-1")
    assert given_up is not None
    assert given_up.ended is not None
    assert not given_up.ended.answered
    stirred = read_line(b"stir x")
    assert stirred is not None
    assert stirred.ended is None
    for nonsense in (b"", b"end", b"end x a b c d e f g", b"\xff\xfe", b"other x"):
        assert read_line(nonsense) is None


def test_what_is_longer_than_all_bounds_is_in_the_last_bucket() -> None:
    meter = Meter("a/b", Reading(0.0))
    meter.ended(Ended(waited=0.0, total=5000.0, status=200, weight=1, answered=True))
    meter.feed(Reading(1.0))
    assert meter.take().latency == {math.inf: 1}
