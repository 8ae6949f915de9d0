"""`stoker record` on a real daemon: what it writes is what came, and `stoker simulate` replays it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from system.harness import STOKER, Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


@contextmanager
def recording(box: Box, *args: str) -> Iterator[subprocess.Popen[str]]:
    """`stoker record` in the background, once it has begun."""
    with subprocess.Popen(
        [*STOKER, "record", *args],
        env=box.environ, cwd=box.directory, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == "recording; Ctrl-C ends it\n"
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as made:
        command = [sys.executable, str(WORKER), "--port", "{port}", "--slow", "0.1"]
        one = {"command": command, "traffic": {"concurrency": 1}}
        made.write(json.dumps({"name": "demo", "services": {"web": one, "other": one}}))
        made.up()
        made.ready("web", 1)
        made.ready("other", 1)
        yield made


def test_a_recorded_load_is_replayed(box: Box) -> None:
    trace = box.directory / "trace.csv"
    with recording(box, "web", "-o", str(trace)) as process:
        box.get("other")
        for _ in range(5):
            box.get("web")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("5 requests over ")
    with trace.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [set(row) for row in rows] == [{"arrival_s", "service_s"}] * 5
    arrivals = [float(row["arrival_s"]) for row in rows]
    assert arrivals[0] == 0.0
    assert arrivals == sorted(arrivals)
    assert all(float(row["service_s"]) >= 0.1 for row in rows)
    simulated = box.run("simulate", str(box.file), "--trace", str(trace), "--service", "web", "-o", "json")
    (service,) = json.loads(simulated.stdout)["services"]
    assert (service["name"], service["requests"]) == ("web", 5)


def test_all_services_for_a_time(box: Box) -> None:
    with recording(box, "--for", "1500ms") as process:
        box.get("web")
        box.get("other")
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert sorted(row["service"] for row in rows) == ["other", "web"]


def test_what_cannot_be_recorded_is_said(box: Box) -> None:
    unknown = box.run("record", "wob", check=False)
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("stoker: no service named 'wob'")
    told = box.run("record", "web", "-o", "-", "--for", "100ms")
    assert told.stdout == "arrival_s,service_s\n"
    nowhere = box.run("record", "web", "-o", "no/such/dir/t.csv", check=False)
    assert nowhere.returncode == 1
    assert "there is no directory no/such/dir" in nowhere.stderr
