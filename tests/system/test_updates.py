"""Updates of a real daemon: what fails is taken back, and what served goes on serving."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakenvml.fixtures import fake_box
from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = [sys.executable, str(Path(__file__).with_name("worker.py")), "--port", "{port}"]
BROKEN = ["sh", "-c", "echo no weights in /models >&2; exit 3"]
HUNG = ["sh", "-c", "echo loading; exec sleep 1000"]
QUICK: dict[str, Any] = {
    "scaling": {"min_replicas": 2, "max_replicas": 2},
    "probes": {"startup": {"http": "/", "timeout": "3s"}},
    "drain": {"timeout": "2s", "grace": "1s"},
    "restart": {"backoff": "50ms", "crash_loop": 3},
}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as made:
        yield made


def write(box: Box, command: list[str], **changes: Any) -> None:
    box.write(json.dumps({"name": "demo", "services": {"web": {"command": command, **QUICK, **changes}}}))


def rejected(box: Box) -> dict[str, Any]:
    """Why the service is not on its configured revision; {} if it is."""
    return box.service("web")["rejected"] or {}


@pytest.mark.parametrize(
    ("command", "word"),
    [(BROKEN, "no weights in /models"), (HUNG, "not ready within 3s"), (["/no/such/program"], "/no/such")],
    ids=["crash loop", "hung start", "no program"],
)
def test_a_revision_that_does_not_get_ready_is_taken_back_under_load(
    box: Box, command: list[str], word: str
) -> None:
    write(box, WORKER)
    box.up()
    before = {(r["id"], r["pid"]) for r in box.ready("web", 2)}
    good = box.service("web")["revision"]
    with Load(box.service("web")["url"]) as load:
        load.more(20)
        write(box, command)
        box.until(lambda: rejected(box), "the new revision is given up")
        assert {(r["id"], r["pid"]) for r in box.ready("web", 2)} == before
        load.more(20)
    assert load.failures == []
    assert word in rejected(box)["reason"]
    assert rejected(box)["back_on"] == good == box.service("web")["revision"]
    for command_line in (["status"], ["explain", "web"], ["events"]):
        assert f"back on {good} until the file changes" in box.run(*command_line).stdout


class Watch:
    """What was seen of a service while it went from one revision to another."""

    def __init__(self) -> None:
        self.least_ready = self.most = 0
        self.mixed = False
        """Whether workers of both revisions lived at a time."""

    def follow(self, box: Box, old: str, count: int) -> None:
        """Look at the service until `count` replicas of another revision are all there is."""

        def done() -> bool:
            replicas = box.replicas("web")
            ready = sum(r["phase"] == "ready" for r in replicas)
            self.least_ready = min(self.least_ready, ready) if self.most else ready
            self.most = max(self.most, sum(r["phase"] in ("starting", "ready", "unready") for r in replicas))
            self.mixed |= len({r["revision"] == old for r in replicas if r["pid"]}) == 2
            return ready == len(replicas) == count and old not in {r["revision"] for r in replicas}

        box.until(done, "the new revision alone", 40)


@pytest.mark.parametrize(
    ("update", "least_ready", "most"),
    [
        ({"strategy": "RollingUpdate", "max_surge": "50%", "max_unavailable": 0}, 3, 5),
        ({"strategy": "RollingUpdate", "max_surge": 0, "max_unavailable": 2}, 1, 3),
        ({"strategy": "RampedSlowRollout"}, 3, 4),
        ({"strategy": "BestEffortControlledRollout"}, 2, 3),
        ({"strategy": "Recreate"}, 0, 3),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_each_strategy_keeps_its_promise_under_load(
    box: Box, update: dict[str, Any], least_ready: int, most: int
) -> None:
    """A changed file and `stoker restart` go the same way; nobody's request fails by any of them."""
    slow = [*WORKER, "--start-after", "0.2"]
    scaling = {"min_replicas": 3, "max_replicas": 3}
    write(box, slow, update=update, scaling=scaling)
    box.up()
    box.ready("web", 3)
    for change in (
        lambda: write(box, slow, update=update, scaling=scaling, envs={"N": "2"}),
        lambda: box.run("restart", "web"),
    ):
        old, watch = box.service("web")["revision"], Watch()
        with Load(box.service("web")["url"]) as load:
            load.more(10)
            change()
            watch.follow(box, old, 3)
            load.more(10)
        assert load.failures == []
        assert watch.least_ready >= least_ready
        assert watch.most <= most
        assert not (watch.mixed and update["strategy"] == "Recreate")


def test_without_a_device_for_a_surge_replicas_are_replaced_one_by_one_and_it_is_said(tmp_path: Path) -> None:
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        write(box, WORKER, resources={"gpu": 1})
        box.up()
        before = {r["devices"][0] for r in box.ready("web", 2)}
        old, watch = box.service("web")["revision"], Watch()
        with Load(box.service("web")["url"]) as load:
            load.more(10)
            write(box, WORKER, resources={"gpu": 1}, envs={"N": "2"})
            watch.follow(box, old, 2)
            load.more(10)
        assert load.failures == []
        assert watch.least_ready >= 1
        assert watch.most <= 2
        assert {r["devices"][0] for r in box.ready("web", 2)} == before
        assert box.run("events").stdout.count("no free device for a surge, so it makes room") >= 2


def test_the_last_good_revision_outlives_the_daemon_and_replaces_its_dead(box: Box) -> None:
    write(box, WORKER)
    box.up()
    box.ready("web", 2)
    good = box.service("web")["revision"]
    box.kill()
    write(box, BROKEN)
    box.up()
    box.until(lambda: rejected(box), "the new revision is given up")
    first, second = box.ready("web", 2)
    box.kill()
    box.up()
    assert rejected(box)["back_on"] == good, "it is not tried again"
    os.kill(first["pid"], signal.SIGKILL)
    box.until(
        lambda: {r["pid"] for r in box.replicas("web", "ready")} > {second["pid"]} != {first["pid"]},
        "a new one",
    )
    assert {r["revision"] for r in box.ready("web", 2)} == {good}
    write(box, [*WORKER, "--slow", "0"])
    box.until(lambda: box.service("web")["revision"] != good, "another file gets its chance")
    box.until(
        lambda: {r["revision"] for r in box.ready("web", 2)} == {box.service("web")["revision"]},
        "it is rolled out",
    )
    assert not rejected(box)


def test_a_second_interrupt_does_not_wait_for_what_is_in_flight(box: Box) -> None:
    write(box, [*WORKER, "--slow", "60", "--ignore-term"], drain={"timeout": "60s", "grace": "60s"},
          probes={"startup": {"tcp": True}})  # fmt: skip
    box.up()
    box.ready("web", 2)
    with Load(box.service("web")["url"], threads=1):
        box.until(lambda: box.service("web")["load"]["in_flight"], "a request is in flight")
        assert box.daemon is not None
        box.daemon.send_signal(signal.SIGINT)
        box.until(lambda: box.replicas("web", "draining"), "it waits for the request")
        began = time.monotonic()
        box.daemon.send_signal(signal.SIGINT)
        assert box.daemon.wait(15) == 0
        assert time.monotonic() - began < 12
    box.daemon = None
    assert box.pids() == []
