"""`stoker reexec`: the daemon is replaced in its process; workers, router and requests notice nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


def deployment(replicas: int) -> str:
    spec = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "scaling": {"min_replicas": replicas, "max_replicas": replicas},
    }
    return f"services:\n  web: {json.dumps(spec)}\n"


def test_a_daemon_is_replaced_under_load_and_no_request_fails(tmp_path):
    with Box(tmp_path) as box:
        box.write(deployment(2))
        box.up()
        before = {replica["pid"] for replica in box.ready("web", 2)}
        pid = box.status()["daemon"]["pid"]
        with Load(box.service("web")["url"]) as load:
            load.more(50)
            for _ in range(2):
                box.run("reexec")
                load.more(50)
        assert load.failures == []
        assert box.status()["daemon"]["pid"] == pid
        assert {replica["pid"] for replica in box.ready("web", 2)} == before

        # The successor is a whole daemon: it follows the file, replaces what dies, leaves no zombie.
        box.write(deployment(3))
        box.ready("web", 3)
        victim = min(before)
        psutil.Process(victim).kill()
        box.until(lambda: not psutil.pid_exists(victim), "the dead worker is buried")
        box.ready("web", 3)
        children = psutil.Process(pid).children()
        assert [child for child in children if child.status() == psutil.STATUS_ZOMBIE] == []


def test_a_successor_that_would_refuse_its_configuration_is_not_begun(tmp_path):
    with Box(tmp_path) as box:
        box.write(deployment(1))
        box.up()
        box.ready("web", 1)
        started = box.status()["daemon"]["uptime_s"]
        box.write("services:\n  web: {comand: x}\n")
        refused = box.run("reexec", check=False)
        assert refused.returncode == 2
        assert "comand" in refused.stderr
        assert box.status()["daemon"]["uptime_s"] > started
        assert len(box.replicas("web", "ready")) == 1
