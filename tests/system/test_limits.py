"""Limits, users and temporary files of real services, as an operator sees them."""

from __future__ import annotations

import json
import os
import pwd
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.harness import Box, environment_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

EAT = "x = bytearray(300 * 2**20); import time; time.sleep(60)"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as box:
        yield box


def events(box: Box) -> list[dict[str, object]]:
    return [json.loads(line) for line in box.run("events", "-o", "json").stdout.splitlines() if line]


def said(box: Box) -> str:
    return box.run("events").stdout


def test_a_worker_that_needs_more_memory_than_its_limit(box: Box) -> None:
    """It is told as such wherever an operator looks: events, the table, the metrics."""
    command = json.dumps(["python3", "-c", EAT])
    box.write(f"services: {{greedy: {{command: {command}, limits: {{memory: 64Mi}}}}}}\n")
    box.up()
    words = "out of memory: used up its limit of 64Mi"
    box.until(lambda: words in said(box) or "limits.memory" in said(box), "its end, or why there is no limit")
    if "is not held" in said(box):
        assert "limits.memory of stoker/greedy is not held" in said(box)
        pytest.skip("this user cannot limit memory here")
    replica = box.replicas("greedy")[0]
    assert words in box.run("story", replica["id"]).stdout
    assert 'reason="out-of-memory"' in metrics(box)


def metrics(box: Box) -> str:
    import http.client
    import socket

    class Local(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(box.socket))

    link = Local("localhost")
    link.request("GET", "/metrics")
    text = link.getresponse().read().decode()
    link.close()
    return text


def test_what_a_replica_is_born_with(box: Box) -> None:
    box.write(
        "services:\n"
        "  plain: {command: [sleep, '600'], limits: {nofile: 77}, umask: '0027'}\n"
        "  own: {command: [sleep, '600'], envs: {TMPDIR: /var/tmp}}\n"
    )
    box.up()
    (replica,) = box.ready("plain", 1)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{replica['pid']}/status").read_text().splitlines()
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0027"
    assert "77 " in Path(f"/proc/{replica['pid']}/limits").read_text().split("open files")[1].splitlines()[0]
    place = environment_of(replica["pid"])["TMPDIR"]
    assert place.rpartition(".")[0].endswith(f"/{replica['id']}")
    assert os.stat(place).st_mode & 0o777 == 0o700
    assert environment_of(box.ready("own", 1)[0]["pid"])["TMPDIR"] == "/var/tmp"
    box.kill()
    box.up()
    box.ready("plain", 1)
    assert os.path.isdir(place), "the worker goes on, and so do its files"
    box.down()
    assert not os.path.exists(os.path.dirname(place))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run services as others")
def test_services_of_different_users_do_not_see_each_others_secrets(box: Box) -> None:
    (box.state_dir / "secrets").mkdir(parents=True)
    (box.state_dir / "secrets" / "key").write_text("hush")
    thief = (
        "import glob, http.server\n"
        "class Serve(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        found = []\n"
        "        for path in glob.glob('/proc/[0-9]*/environ'):\n"
        "            try: found.append(open(path, 'rb').read())\n"
        "            except OSError: pass\n"
        "        self.send_response(200); self.end_headers()\n"
        "        self.wfile.write(b'%d %d' % (len(found), any(b'hush' in one for one in found)))\n"
        "    def log_message(self, *_): pass\n"
        "import sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Serve).serve_forever()\n"
    )
    command = json.dumps(["/usr/bin/python3", "-c", thief, "{port}"])
    box.write(
        "services:\n"
        "  safe: {command: [sleep, '600'], user: nobody, working_dir: /, secrets: [key]}\n"
        f"  thief: {{command: {command}, user: daemon, group: daemon, working_dir: /}}\n"
    )
    box.up()
    (safe,) = box.ready("safe", 1)
    box.ready("thief", 1)
    assert environment_of(safe["pid"])["KEY"] == "hush"
    assert os.stat(f"/proc/{safe['pid']}").st_uid == pwd.getpwnam("nobody").pw_uid
    with urllib.request.urlopen(box.service("thief")["url"], timeout=20) as answer:
        seen, stolen = answer.read().split()
    assert int(seen) >= 1, "its own"
    assert stolen == b"0"
