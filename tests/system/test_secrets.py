"""A secret's value is where it belongs, in the worker's environment, and nowhere else that one can look."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from system.harness import Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
VALUE = "open-sesame-4711"
WORKER = Path(__file__).with_name("worker.py")
LOOKS = (
    ("status", "-o", "json"),
    ("status",),
    ("plan", "-o", "json"),
    ("config", "--sources"),
    ("config", "-o", "json"),
    ("explain", "web", "-o", "json"),
    ("explain", "services.web.secrets"),
    ("events", "-o", "json"),
    ("doctor",),
)


def test_the_value_is_in_the_workers_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "hf-token").write_text(f"{VALUE}\n")
    command = json.dumps([sys.executable, str(WORKER), "--port", "{port}"])
    with Box(tmp_path) as box:
        box.write(f"services: {{web: {{command: {command}, secrets: [hf-token]}}}}\n")
        box.up("--event-log", str(tmp_path / "events.jsonl"))
        (replica,) = box.ready("web", 1)
        environ = Path(f"/proc/{replica['pid']}/environ").read_bytes()
        assert f"HF_TOKEN={VALUE}".encode() in environ, "so that this test can fail"
        for look in LOOKS:
            done = box.run(*look, check=False)
            assert done.stdout, look
            assert VALUE not in done.stdout + done.stderr, look
        story = box.run("story", replica["id"], "-o", "json").stdout
        assert VALUE not in story
        mine = [pid for pid in os.listdir("/proc") if pid.isdigit() and belongs(pid, str(tmp_path))]
        mine.append(str(replica["pid"]))
        assert len(mine) >= 3, "the daemon, its router, the worker"
        for pid in mine:
            assert VALUE.encode() not in read(f"/proc/{pid}/cmdline"), "arguments can be read by anybody"
            if pid != str(replica["pid"]):
                assert VALUE.encode() not in read(f"/proc/{pid}/environ"), "the daemon and its router"
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    assert len(kept) >= 3
    for path in kept:
        assert VALUE.encode() not in path.read_bytes(), path


def belongs(pid: str, folder: str) -> bool:
    """Whether a process has to do with this test: by its arguments, its environment or where it runs."""
    return folder.encode() in read(f"/proc/{pid}/cmdline") + read(f"/proc/{pid}/environ")


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
