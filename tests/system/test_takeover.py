"""A daemon that takes over has its workers in hand before it reads its files, and nobody can tell."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from system.harness import Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


def deployment(version: str, replicas: int = 2) -> str:
    web = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "scaling": {"min_replicas": replicas, "max_replicas": replicas},
        "envs": {"VERSION": version},
    }
    return json.dumps({"name": "app", "services": {"web": web}})


@pytest.fixture
def box(tmp_path: Path):
    with Box(tmp_path) as box:
        box.write(deployment("one"))
        box.up()
        box.ready("web", 2)
        # Written a second after what it tells of: by then nothing waits for it.
        box.until((tmp_path / "state" / "config.json").exists, "what the files mean is recorded")
        yield box


def pids(box: Box) -> dict[str, int]:
    return {replica["id"]: replica["pid"] for replica in box.replicas("web")}


def explained(box: Box, path: str) -> dict:
    return json.loads(box.run("explain", path, "-o", "json").stdout)


def test_workers_stay_and_every_question_is_answered_at_once(box: Box) -> None:
    before, document = pids(box), box.run("config", "-o", "json").stdout
    for _ in range(2):
        box.kill()
        box.up()
        assert explained(box, "services.web.envs.VERSION")["value"] == "one"
        assert box.run("config", "-o", "json").stdout == document
        assert box.run("plan").stdout == "no changes\n"
        assert pids(box) == before
        assert box.status()["daemon"]["config"]["state"] == "in-force"
    box.write(deployment("one", replicas=3))  # and what comes later is followed as ever
    box.ready("web", 3)
    assert before.items() <= pids(box).items()


def test_down_drains_and_stops_what_a_daemon_has_left(box: Box) -> None:
    box.kill()
    refused = box.run("status", check=False)
    assert refused.returncode == 3
    assert "but 2 workers and the router of the last one run on" in refused.stderr
    said = box.run("down").stdout
    assert "stopping 2 workers and the router of the last one" in said
    assert said.count(" draining: everything is being stopped") == 2
    assert said.endswith("stopped\n")
    assert box.run("down", check=False).returncode == 3, "nothing is left"
    assert box.run("down", "--leftovers").stdout == ""
    box.up()  # and nothing of it stands in the way of the next
    box.ready("web", 2)
    assert box.run("down", "--leftovers").stdout.endswith("so nothing is left over\n")
    assert len(box.replicas("web", "ready")) == 2


def test_what_changed_while_no_daemon_lived_is_read(box: Box) -> None:
    before = pids(box)
    box.kill()
    box.write(deployment("two"))
    box.up()
    box.until(
        lambda: not pids(box).keys() & before.keys() and len(box.replicas("web", "ready")) == 2,
        "the workers are of the changed file",
        seconds=60,
    )


def test_overrides_and_restarts_are_still_known(box: Box) -> None:
    box.run("scale", "web", "1")
    box.run("restart", "web")
    box.until(
        lambda: (
            len(box.replicas("web")) == len(box.replicas("web", "ready")) == 1
            and box.replicas("web")[0]["revision"] == box.service("web")["revision"]
        ),
        "one worker, restarted",
        seconds=60,
    )
    before = pids(box)
    box.kill()
    box.up()
    assert pids(box) == before
    assert explained(box, "services.web.scaling.max_replicas")["value"] == 1
    box.run("unset", "services.web.scaling.min_replicas", "services.web.scaling.max_replicas")
    box.ready("web", 2)
