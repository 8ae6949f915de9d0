"""The main job with real processes: pools that follow the file and the load, and lose no request."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from system.harness import Box, Load, environment_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


def service(name: str, *args: str, **keys: object) -> str:
    """One service in YAML (flow style: JSON is YAML)."""
    command = [sys.executable, str(WORKER), "--port", "{port}", *args]
    return f"  {name}: {json.dumps({'command': command, **keys})}\n"


def deployment(*services: str, **keys: object) -> str:
    top = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    return top + "services:\n" + "".join(services)


@pytest.fixture
def box(tmp_path):
    with Box(tmp_path) as made:
        yield made


def test_a_service_answers_at_its_address_and_sees_only_its_own_environment(box):
    box.environ["DAEMON_SECRET"] = "leak"
    box.environ["http_proxy"] = ""
    box.write(
        deployment(
            service("a", envs={"MINE": "1"}, inherit_env=["http_proxy"]),
            service("b", envs={"OTHERS": "2"}, depends=["a"]),
            name="demo",
            envs={"ALL": "x"},
        )
    )
    box.up()
    box.ready("b", 1)
    seen = json.loads(box.get("b"))["environ"]
    (replica,) = box.replicas("b")
    assert seen == environment_of(replica["pid"])
    assert set(seen) == {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TMPDIR",
        "PORT",
        "STOKER_DEPLOYMENT",
        "STOKER_SERVICE",
        "STOKER_REPLICA",
        "STOKER_ID",
        "STOKER_URL_A",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "ALL",
        "OTHERS",
    }
    assert seen["STOKER_URL_A"] == box.service("a")["url"]
    assert seen["CUDA_VISIBLE_DEVICES"] == ""
    assert "http_proxy" in json.loads(box.get("a"))["environ"]


def test_a_killed_worker_is_replaced_and_no_get_fails_under_load(box):
    box.write(deployment(service("a", "--slow", "0.01", scaling={"min_replicas": 3, "max_replicas": 3})))
    box.up()
    before = {replica["pid"] for replica in box.ready("a", 3)}
    with Load(box.service("a")["url"]) as load:
        load.more(50)
        os.kill(min(before), signal.SIGKILL)
        load.more(200)
        after = {replica["pid"] for replica in box.ready("a", 3)}
        load.more(50)
    assert load.failures == []
    assert len(after & before) == 2
    assert sum(replica["restarts"] for replica in box.replicas("a")) == 1


def test_an_edit_touches_only_what_it_concerns_and_fails_no_request(box):
    both = [service("a", scaling={"min_replicas": 2, "max_replicas": 2}), service("b")]
    box.write(deployment(*both))
    box.up()
    before = {replica["pid"] for replica in box.ready("a", 2)}
    other = box.ready("b", 1)
    with Load(box.service("a")["url"]) as load:
        load.more(30)
        box.write(
            deployment(
                service("a", envs={"NEW": "1"}, scaling={"min_replicas": 2, "max_replicas": 2}), both[1]
            )
        )
        box.until(lambda: not before & {r["pid"] for r in box.replicas("a")}, "both replicas of a are new")
        box.ready("a", 2)
        load.more(30)
    assert load.failures == []
    assert json.loads(box.get("a"))["environ"]["NEW"] == "1"
    assert [(r["id"], r["pid"]) for r in box.replicas("b")] == [(r["id"], r["pid"]) for r in other]


def test_a_change_of_bounds_restarts_nobody(box):
    box.write(deployment(service("a", scaling={"min_replicas": 1, "max_replicas": 1})))
    box.up()
    (first,) = box.ready("a", 1)
    box.write(deployment(service("a", scaling={"min_replicas": 3, "max_replicas": 4})))
    assert first["pid"] in {replica["pid"] for replica in box.ready("a", 3)}
    box.run("scale", "a", "2")
    assert first["pid"] in {replica["pid"] for replica in box.ready("a", 2)}
    box.run("unset", *box.status()["daemon"]["config"].get("overrides", {}))
    box.ready("a", 3)


def test_a_bad_edit_leaves_the_last_good_one_in_force_and_is_said(box):
    box.write(deployment(service("a")))
    box.up()
    (first,) = box.ready("a", 1)
    box.write(deployment(service("a", scalling={"min_replicas": 2})))
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "the edit is rejected")
    (error,) = box.status()["daemon"]["config"]["errors"]
    assert error["file"].endswith("stoker.yaml")
    assert error["line"] == 2
    assert "scaling" in error["message"]
    assert box.replicas("a")[0]["pid"] == first["pid"]
    box.write(deployment(service("a", scaling={"min_replicas": 2, "max_replicas": 2})))
    box.ready("a", 2)
    assert box.status()["daemon"]["config"]["state"] == "in-force"


def test_load_grows_a_pool_from_zero_and_rest_shrinks_it_again(box):
    policy = {"metric": "concurrency", "target": 1, "scale_down_stabilization_window": 2}
    box.write(
        deployment(
            service(
                "a",
                "--slow",
                "0.2",
                scaling={"min_replicas": 0, "max_replicas": 3, "policy": policy},
                traffic={"concurrency": 1},
            )
        )
    )
    box.up()
    assert box.replicas("a") == []
    with Load(box.service("a")["url"], threads=6) as load:
        load.more(3)
        box.until(lambda: len(box.replicas("a", "ready")) == 3, "three replicas under load")
        load.more(10)
        reason = box.service("a")["decision"]["reason"]
    assert load.failures == []
    assert "target 1" in reason
    box.until(lambda: box.replicas("a") == [], "zero replicas at rest", seconds=40)


def test_the_daemons_death_harms_nobody_and_the_next_one_takes_over(box):
    box.write(deployment(service("a", "--slow", "0.01", scaling={"min_replicas": 3, "max_replicas": 3})))
    box.up()
    before = {(replica["id"], replica["pid"]) for replica in box.ready("a", 3)}
    with Load(box.service("a")["url"]) as load:
        for _ in range(3):
            load.more(30)
            box.kill()
            load.more(30)
            box.up()
            assert {(replica["id"], replica["pid"]) for replica in box.ready("a", 3)} == before
    assert load.failures == []
    assert sorted(box.pids()) == sorted(pid for _, pid in before)


def test_down_leaves_nothing_behind(box):
    box.write(deployment(service("a", "--ignore-term", drain={"timeout": "1s", "grace": "0.5s"})))
    box.up()
    box.ready("a", 1)
    assert box.pids()
    box.down()
    assert box.pids() == []
    assert not box.socket.exists()


def test_stop_holds_at_zero_and_start_releases(box):
    box.write(deployment(service("a")))
    box.up()
    box.ready("a", 1)
    box.run("stop", "a")
    box.until(lambda: box.replicas("a") == [], "no replica")
    box.run("start", "a")
    box.ready("a", 1)
    (before,) = box.replicas("a")
    box.run("restart", "a")
    box.until(lambda: before["id"] not in {r["id"] for r in box.replicas("a")}, "a new replica")
    box.ready("a", 1)
