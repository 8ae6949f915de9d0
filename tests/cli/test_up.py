"""Starting and ending a real daemon by its commands."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Result
from stoker.cli.launch import last_words, tell_failures

pytestmark = pytest.mark.system

FILE = """
name: small
box: {router: fake}
services:
  talk: {command: [sh, -c, "echo hello from $0; exec sleep 600"], scaling: {max_replicas: 3}}
"""
DEADLINE = 20.0


class Box:
    """A folder with a deployment file, a socket and a state directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            "STOKER_SOCKET": str(folder / "s.sock"),
            "STOKER_STATE_DIR": str(folder / "state"),
            "TERM": "xterm",
        }
        (folder / "stoker.yaml").write_text(FILE)

    def stoker(self, *args: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "stoker.cli", *args],
            capture_output=True, text=True, timeout=40, cwd=self.folder, env=self.environ, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def ready(self) -> bool:
        result = self.stoker("status", "-o", "json")
        return result.code == 0 and [s["ready"] for s in json.loads(result.out)["services"]] == [1]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.stoker("down")


def eventually(box: Box) -> None:
    end = time.monotonic() + DEADLINE
    while not box.ready():
        assert time.monotonic() < end, box.stoker("status").out


def test_in_the_background_and_down_again(box: Box) -> None:
    (box.folder / "queue.py").write_text("1 / 0  # a project's own module, by the name of one of Python's")
    up = box.stoker("up", "--detach", "--set", "services.talk.scaling.max_replicas=2")
    assert (up.code, up.err) == (0, "")
    assert "stoker is up, pid" in up.out
    eventually(box)
    [service] = json.loads(box.stoker("status", "-o", "json").out)["services"]
    assert service["max_replicas"] == 2
    assert "hello from" in box.stoker("logs", "talk").out
    assert box.stoker("plan").code == 0

    again = box.stoker("up", "--detach")
    assert again.code == 1
    assert "already" in again.err
    assert len(again.err.splitlines()) == 1

    down = box.stoker("down")
    assert down.code == 0
    assert down.out.endswith("stopped\n")
    assert box.stoker("status").code == 3
    assert not (box.folder / "s.sock").exists()


def test_a_bad_file_in_the_background_is_told_here_not_only_in_the_log(box: Box) -> None:
    (box.folder / "stoker.yaml").write_text("services:\n  talk: {comand: x}\n")
    up = box.stoker("up", "--detach")
    assert up.code == 2
    assert "stoker.yaml:2:10: services.talk" in up.err


def test_what_several_say_who_begin_at_once_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "daemon.log").write_text("of an earlier one\nstoker: taken\nstoker: taken\n")
    assert last_words(tmp_path / "daemon.log", len("of an earlier one\n")) == "stoker: taken\n"


def test_what_failed_at_once_is_told_without_being_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"phase": "pending", "restarts": 1, "reason": "cannot start: no such program"}
    waits = {"phase": "pending", "restarts": 0, "reason": "waits for db to be ready"}
    services = [
        {"name": "broken", "ready": 0, "replicas": [failed]},
        {"name": "patient", "ready": 0, "replicas": [waits]},
        {"name": "strong", "ready": 1, "replicas": [failed]},
    ]
    tell_failures({"daemon": {"notices": ["12:00:00 noted"]}, "services": services})
    assert capsys.readouterr().err == (
        "stoker: 12:00:00 noted\nstoker: broken serves nothing yet: cannot start: no such program\n"
    )


def test_plain_lines_where_there_is_no_terminal(box: Box) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stoker.cli", "up"],
        stdout=subprocess.PIPE, text=True, cwd=box.folder, env=box.environ,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if " ready after " in line:
                break
        process.send_signal(signal.SIGINT)
        seen += process.stdout.readlines()
    text = "".join(seen)
    assert process.returncode == 0
    assert "config generation 1 in force" in text
    assert "stopped" in text
    assert "\x1b" not in text


def test_a_reader_that_goes_away_does_not_end_the_daemon(box: Box) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stoker.cli", "up"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=box.folder, env=box.environ,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        eventually(box)
        assert box.stoker("scale", "talk", "2").code == 0
        assert box.stoker("down").code == 0
        assert b"Traceback" not in process.stderr.read()


def test_the_live_screen_in_a_terminal(box: Box) -> None:
    terminal, inside = os.openpty()
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "stoker.cli", "up"],
        stdin=inside, stdout=inside, stderr=inside, cwd=box.folder, env=box.environ,
    ) as process:  # fmt: skip
        os.close(inside)
        end = time.monotonic() + DEADLINE
        told = False
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break  # the other end is closed: it has ended
            if not told and b"ready after" in shown and b"TARGET" in shown:
                told = True
                process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
    os.close(terminal)
    assert process.returncode == 0, shown.decode(errors="replace")
    assert b"\x1b[" in shown
    assert b"draining" in shown


def test_a_terminal_that_is_closed_drains_and_stops_all(box: Box) -> None:
    """As Ctrl-C does: nobody is left to end what was started there."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(box.folder)
        os.execve(sys.executable, [sys.executable, "-m", "stoker.cli", "up"], box.environ)
    shown = b""
    end = time.monotonic() + DEADLINE
    while b"ready after" not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536)
    pid = json.loads(box.stoker("status", "-o", "json").out)["services"][0]["replicas"][0]["pid"]
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not Path(f"/proc/{pid}").exists(), "its workers ended with it"
    assert not (box.folder / "s.sock").exists()
