"""Every layer on a real daemon: a change of any file behind it is seen, and does what it must, no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from system.harness import Box

pytestmark = pytest.mark.system

SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(dict(os.environ)).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
FILE = f"""
include: parts/*.yaml
env_file: all.env
x-base: &base
  scaling: {{min_replicas: 1, max_replicas: 2}}
services:
  web:
    <<: *base
    command: [{sys.executable}, server.py, "{{port}}"]
    envs: {{SAID: "${{SAID:-by default}}"}}
    secrets: [token, granted]
"""


@pytest.fixture
def box(tmp_path: Path):
    for name in ("parts", "conf.d", "secrets", "credentials"):
        (tmp_path / name).mkdir()
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "all.env").write_text("FROM_FILE=one\n")
    (tmp_path / "secrets" / "token").write_text("first\n")
    (tmp_path / "credentials" / "granted").write_text("by systemd\n")
    with Box(tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path / "credentials")) as box:
        box.write(FILE)
        box.file.with_suffix(".lab.yaml").write_text("envs: {PROFILE: lab}\n")
        box.up("--profile", "lab")
        yield box


def environ(box: Box) -> dict[str, str]:
    """What the worker that answers now has."""
    try:
        found = json.loads(box.get("web"))
    except (OSError, ValueError):
        return {}
    return dict(found)


def sees(box: Box, name: str, value: str | None) -> None:
    box.until(lambda: environ(box).get(name) == value, f"the worker has {name}={value}", seconds=30)


def test_files_behind_the_configuration_are_followed(box: Box) -> None:
    folder = box.directory
    sees(box, "TOKEN", "first")
    first = environ(box)
    said = {"GRANTED": "by systemd", "FROM_FILE": "one", "PROFILE": "lab", "SAID": "by default"}
    assert {name: first.get(name) for name in said} == said
    (folder / "secrets" / "token").write_text("second\n")
    sees(box, "TOKEN", "second")
    (folder / "all.env").write_text("FROM_FILE=two\n")
    sees(box, "FROM_FILE", "two")
    (folder / "parts" / "more.yaml").write_text("envs: {INCLUDED: 'yes'}\n")
    sees(box, "INCLUDED", "yes")
    (folder / "conf.d" / "a.yaml").write_text("envs: {INCLUDED: dropped in}\n")
    sees(box, "INCLUDED", "dropped in")
    box.file.with_suffix(".lab.yaml").write_text("envs: {PROFILE: changed}\n")
    sees(box, "PROFILE", "changed")
    before = environ(box)["STOKER_REPLICA"]
    (folder / "all.env").write_text("FROM_FILE=two\noops\n")
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "the bad file is refused")
    (error,) = box.status()["daemon"]["config"]["errors"]
    assert (error["file"].endswith("all.env"), error["line"], error["column"]) == (True, 2, 1)
    assert environ(box)["STOKER_REPLICA"] == before
    drop_in = "envs: {INCLUDED: dropped in}\nservices: {web: {scaling: {max_replicas: 3}}}\n"
    (folder / "conf.d" / "a.yaml").write_text(drop_in)
    (folder / "all.env").write_text("FROM_FILE=two\n")
    box.until(lambda: box.status()["services"][0]["max_replicas"] == 3, "the mended file is in force")
    assert environ(box)["STOKER_REPLICA"] == before
    text = json.dumps(box.status()) + box.run("events").stdout + (folder / "daemon.out").read_text()
    assert "second" not in text
