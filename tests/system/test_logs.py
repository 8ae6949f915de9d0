"""Workers' output under a real daemon: rotated while it is written, followed across restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.harness import STOKER, Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

FAST = """
import sys, time
number = 0
while number < int(sys.argv[1]):
    for _ in range(1000):
        print("line %09d" % number)
        number += 1
    time.sleep(0.02)
print("all", flush=True)
time.sleep(600)
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as box:
        yield box


def test_a_fast_writer_loses_nothing_to_rotation_nor_to_a_killed_daemon(box: Box) -> None:
    count = 400_000
    command = json.dumps(["python3", "-c", FAST, str(count)])
    box.write(f"services: {{web: {{command: {command}, logs: {{max_size: 256Ki, keep: 100}}}}}}\n")
    box.up()
    folder = box.state_dir / "logs" / "stoker" / "web"
    box.until(lambda: len(list(folder.glob("*.log.*"))) >= 1, "a rotation")
    (replica,) = box.ready("web", 1)
    box.kill()
    box.up()
    assert box.ready("web", 1)[0]["pid"] == replica["pid"]
    box.until(lambda: box.run("logs", "web", "-n", "1").stdout.endswith("all\n"), "the last line")
    lines = [line.rpartition("| ")[2] for line in box.run("logs", "web").stdout.splitlines()]
    assert lines == [*(f"line {number:09}" for number in range(count)), "all"]
    log = folder / f"{replica['id']}.log"
    box.until(lambda: log.stat().st_blocks * 512 < 1024 * 1024, "the space is given back", seconds=40)


def test_following_goes_on_over_restarts_and_new_replicas(box: Box) -> None:
    command = json.dumps(["sh", "-c", "echo from $STOKER_REPLICA $$$$; exec sleep 600"])
    box.write(f"services: {{web: {{command: {command}, scaling: {{min_replicas: 1, max_replicas: 3}}}}}}\n")
    box.up()
    (first,) = box.ready("web", 1)
    with subprocess.Popen(
        [*STOKER, "logs", "web", "-f"], env=box.environ, cwd=box.directory, stdout=subprocess.PIPE, text=True
    ) as following:
        try:
            assert following.stdout is not None
            assert f"from {first['id']} {first['pid']}" in following.stdout.readline()
            os.kill(first["pid"], signal.SIGKILL)
            again = following.stdout.readline()
            assert f"from {first['id']}" in again
            assert str(first["pid"]) not in again
            box.run("scale", "web", "2")
            assert first["id"] not in following.stdout.readline()
        finally:
            following.kill()


def test_json_lines_are_passed_through(box: Box) -> None:
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": "info", "n": 1})
    command = json.dumps(["sh", "-c", f"echo '{line}'; echo plain; sleep 600"])
    box.write(f"services: {{web: {{command: {command}}}}}\n")
    box.up()
    (replica,) = box.ready("web", 1)
    box.until(lambda: "plain" in box.run("logs").stdout, "its output")
    assert f"{replica['id']} | {line}\n" in box.run("logs").stdout
    entries = [json.loads(one) for one in box.run("logs", "-o", "json").stdout.splitlines()]
    assert entries[0] == {
        "service": "stoker/web",
        "replica": replica["id"],
        "line": line,
        "json": json.loads(line),
    }
    assert entries[1] == {"service": "stoker/web", "replica": replica["id"], "line": "plain"}
    assert box.run("logs", "--since", "1h").stdout.count("\n") == 2
    assert box.run("logs", "--since", "2999-01-01").stdout == ""


def test_a_secret_that_a_worker_prints_is_in_its_log_alone(box: Box) -> None:
    """Stoker quotes the last line of a worker that fails; not what it may not say."""
    (box.state_dir / "secrets").mkdir(parents=True)
    (box.state_dir / "secrets" / "key").write_text("hush-hush\n")
    command = json.dumps(["sh", "-c", "echo line before: $KEY; echo cannot log in with $KEY; exit 1"])
    box.write(f"services: {{web: {{command: {command}, secrets: [key]}}}}\n")
    box.up()
    box.until(lambda: "cannot log in with" in box.run("events").stdout, "its last words")
    replica = box.replicas("web")[0]["id"]
    said = ("events",), ("status",), ("status", "-o", "json"), ("explain", replica), ("explain", "web")
    told = [box.run(*words).stdout for words in said]
    told.append(box.run("explain", replica, "-o", "json").stdout)
    told.append((box.directory / "daemon.out").read_text())
    assert "cannot log in with [KEY]" in told[0]
    assert "line before: [KEY]" in told[3], "a replica that does not serve is quoted at more length"
    assert not any("hush" in text for text in told)
    assert "hush-hush" in box.run("logs", "web").stdout
