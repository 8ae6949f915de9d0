"""Scaling with a real daemon and router: what the load calls for, and that no silence takes anything away."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")
POLICY = {
    "metric": "concurrency", "target": 1, "window": 1,
    "scale_up_stabilization_window": 0, "scale_down_stabilization_window": 1,
}  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as made:
        yield made


def up(box: Box, *, slow: str = "0.2", least: int = 1, most: int = 3, **keys: Any) -> None:
    """A service `web` whose requests take `slow` seconds, one at a time in each replica."""
    command = [sys.executable, str(WORKER), "--port", "{port}", "--slow", slow]
    scaling = {"min_replicas": least, "max_replicas": most, "policy": POLICY}
    spec = {"command": command, "traffic": {"concurrency": 1}, "scaling": scaling, **keys}
    box.write(json.dumps({"name": "demo", "services": {"web": spec}}))
    box.up()
    box.until(lambda: box.status()["services"], "the configuration")
    box.until(lambda: listens(box), "the service's address is open")


def listens(box: Box) -> bool:
    """Whether the router has the address of `web` open; no request comes of this question."""
    host, port = box.service("web")["url"].removeprefix("http://").split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def events(box: Box, kind: str) -> list[dict[str, Any]]:
    """All events of a type so far."""
    found = json.loads(box.run("events", "-o", "json").stdout)
    return [
        event for event in (found["events"] if isinstance(found, dict) else found) if event["type"] == kind
    ]


def targets(box: Box) -> list[int]:
    """What the target has been."""
    return [event["fields"]["target"] for event in events(box, "TargetChanged")]


def decision(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.run("explain", "web", "-o", "json").stdout)
    return found["decision"]


def router_of(box: Box) -> int:
    """The pid of the router's program."""
    ours = str(box.state_dir).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        words = entry.joinpath("cmdline").read_bytes().split(b"\0") if entry.exists() else []
        if b"stoker_router" in words and ours in words:
            return int(entry.name)
    raise AssertionError("there is no router")


@contextmanager
def requests(box: Box, count: int) -> Iterator[Callable[[], None]]:
    """So many requests under way at once; call what is given to wait for their answers."""
    threads = [threading.Thread(target=box.get, args=("web",)) for _ in range(count)]
    for thread in threads:
        thread.start()

    def answered() -> None:
        for thread in threads:
            thread.join(60)

    yield answered
    answered()


def test_a_first_request_brings_one_replica_that_stays_for_it(box: Box) -> None:
    """However soon it is ready: it used to be sent away before the first sample of its load had come."""
    up(box, slow="1.5", least=0)
    with requests(box, 1) as answered:
        answered()
    assert targets(box) == [1]
    box.until(lambda: not box.replicas("web"), "back to zero")
    assert targets(box) == [1, 0]
    assert len(events(box, "StartRequested")) == 1


def test_without_data_nothing_shrinks(box: Box) -> None:
    """The router stands still under load: the pool stays, whatever windows pass, and a new daemon that hears
    nothing keeps it too; once the router tells again, what is not needed goes."""
    up(box)
    with Load(box.service("web")["url"], threads=3):
        pids = {one["pid"] for one in box.ready("web", 3)}
        router = router_of(box)
        os.kill(router, signal.SIGSTOP)
        try:
            box.until(lambda: not decision(box)["valid"], "the daemon sees that it sees nothing")
            assert "load not measured for" in decision(box)["reason"]
            assert decision(box)["target"] == 3
            box.kill()
            box.begin()
            box.until(lambda: box.run("status", check=False).returncode == 0, "the next daemon answers")
            box.until(lambda: len(box.replicas("web", "ready")) == 3, "it has taken them over")
            assert (decision(box)["target"], targets(box)) == (3, [3])
        finally:
            os.kill(router, signal.SIGCONT)
        box.until(lambda: decision(box)["valid"], "the load is measured again")
        assert {one["pid"] for one in box.ready("web", 3)} == pids
    box.ready("web", 1)


def test_one_that_drains_comes_back_before_a_new_one_starts(box: Box) -> None:
    up(box, slow="4")
    box.run("scale", "web", "2")
    pids = {one["pid"] for one in box.ready("web", 2)}
    with requests(box, 2):
        box.until(lambda: box.service("web")["load"]["in_flight"] == 2, "both are busy")
        box.run("scale", "web", "1")
        box.until(lambda: box.replicas("web", "draining"), "one drains")
        box.run("scale", "web", "2")
        box.until(lambda: len(box.replicas("web", "ready")) == 2, "it is back")
        assert {one["pid"] for one in box.replicas("web")} == pids
    assert len(events(box, "StartRequested")) == 2
    assert len(events(box, "ReplicaResumed")) == 1


def test_standby_replicas_are_beyond_need(box: Box) -> None:
    """One is warm while nobody asks; it serves when somebody does, and another takes its place."""
    up(box, slow="0.5", least=0, standby=1)
    (warm,) = box.ready("web", 1)
    with requests(box, 1) as answered:
        box.until(lambda: len(box.replicas("web", "ready")) == 2, "another is warm")
        answered()
    assert warm["pid"] in {one["pid"] for one in box.replicas("web")}
    box.ready("web", 1)
    assert "plus 1 standby" in decision(box)["reason"]
