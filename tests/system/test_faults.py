"""Bad input and faults, each against a whole daemon: one clear message, and nothing else disturbed.

In every test a service `steady` runs beside the fault. It keeps its worker and goes on answering.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import STOKER, Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

PYTHON = sys.executable
WORKER = [PYTHON, str(Path(__file__).with_name("worker.py")), "--port", "{port}"]
FAST = {"drain": {"timeout": "1s", "grace": "1s"}}
STEADY = {"command": WORKER, **FAST}


def deployment(**services: dict[str, Any]) -> str:
    """YAML (JSON is YAML) with `steady` and the services given."""
    return json.dumps({"name": "demo", "services": {"steady": STEADY, **services}})


class Bystander:
    """The service that must not notice."""

    def __init__(self, box: Box) -> None:
        self._box = box
        (replica,) = box.ready("steady", 1)
        self._before = (replica["id"], replica["pid"], replica["restarts"])

    def check(self) -> None:
        """It answers, from the worker it always had."""
        assert json.loads(self._box.get("steady"))["pid"] == self._before[1]
        (replica,) = self._box.replicas("steady", "ready")
        assert (replica["id"], replica["pid"], replica["restarts"]) == self._before


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as made:
        yield made


def up(box: Box, **services: dict[str, Any]) -> Bystander:
    """A daemon with `steady` ready and the services given."""
    box.write(deployment(**services))
    box.up()
    return Bystander(box)


def reason(box: Box, name: str) -> str:
    """Why the one replica of a service is where it is."""
    replicas = box.replicas(name)
    return replicas[0]["reason"] if replicas else ""


def told(box: Box, text: str) -> list[str]:
    """The distinct lines of the daemon's output that say it, without their time stamps."""
    lines = (box.directory / "daemon.out").read_text(errors="replace").splitlines()
    return sorted({line.split(" ", 1)[-1] for line in lines if text in line})


# --- workers ----------------------------------------------------------------------------------------------


def test_a_command_that_does_not_exist(box: Box) -> None:
    steady = up(box, bad={"command": ["/no/such/program", "--port", "{port}"]})
    box.until(lambda: "/no/such/program" in reason(box, "bad"), "the reason names the command")
    (replica,) = box.replicas("bad")
    assert replica["phase"] == "pending"
    assert "Traceback" not in box.output()
    steady.check()


def test_a_command_that_may_not_be_executed(box: Box, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    steady = up(box, bad={"command": [str(tmp_path / "data"), "{port}"]})
    box.until(lambda: str(tmp_path / "data") in reason(box, "bad"), "the reason names the file")
    steady.check()


def test_a_working_directory_that_does_not_exist(box: Box) -> None:
    steady = up(box, bad={"command": ["sleep", "1000"], "working_dir": "/no/such/directory"})
    box.until(lambda: "/no/such/directory" in reason(box, "bad"), "the reason names the directory")
    steady.check()


def test_a_worker_that_exits_at_once_is_tried_again_ever_more_slowly(box: Box) -> None:
    restart = {"backoff": "50ms", "max_backoff": "200ms", "crash_loop": 3}
    steady = up(box, bad={"command": ["sh", "-c", "echo out of luck; exit 3"], "restart": restart})
    box.until(lambda: "crash loop" in reason(box, "bad"), "the crash loop is said")
    (replica,) = box.replicas("bad")
    assert "exit code 3" in replica["reason"]
    assert "out of luck" in replica["reason"], "with the last line of its log"
    assert replica["restarts"] >= 3
    assert "out of luck" in box.run("logs", "bad").stdout
    steady.check()


def test_a_worker_that_never_gets_ready_is_given_up_and_replaced(box: Box) -> None:
    probes = {"startup": {"http": "/readyz", "timeout": "1s"}}
    steady = up(box, bad={"command": ["sleep", "1000"], "probes": probes, **FAST})
    box.until(lambda: box.replicas("bad") and box.replicas("bad")[0]["restarts"] >= 1, "a second try")
    said = box.run("story", box.replicas("bad")[0]["id"]).stdout
    assert "not ready" in said
    assert "1s" in said or "1 s" in said
    steady.check()


def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(box: Box) -> None:
    steady = up(box, bad={"command": [*WORKER, "--ignore-term"], **FAST})
    (replica,) = box.ready("bad", 1)
    began = time.monotonic()
    box.run("stop", "bad")
    box.until(lambda: not box.replicas("bad"), "the worker is gone")
    assert time.monotonic() - began >= 0.9, "it had its second of grace"
    assert not Path(f"/proc/{replica['pid']}").exists()
    steady.check()


FORKS = {
    "a child in a session of its own": "setsid sleep 1000 & exec sleep 1000",
    "a daemon, forked twice": "(setsid sleep 1000 &) ; exec sleep 1000",
    "a daemon without its environment": "(setsid env -i sleep 1000 &) ; exec sleep 1000",
}


@pytest.mark.parametrize("script", FORKS.values(), ids=FORKS)
def test_what_a_worker_forks_away_ends_with_it(box: Box, script: str, tmp_path: Path) -> None:
    # The working directory marks the whole tree, whatever it does to its environment.
    (tmp_path / "cwd").mkdir()
    steady = up(box, bad={"command": ["sh", "-c", script], "working_dir": str(tmp_path / "cwd"), **FAST})
    box.ready("bad", 1)
    box.until(lambda: len(running_in(tmp_path / "cwd")) >= 2, "the forked process is there")
    box.run("stop", "bad")
    box.until(lambda: not box.replicas("bad"), "the worker is gone")
    assert running_in(tmp_path / "cwd") == []
    steady.check()


def test_a_worker_that_forks_away_and_exits_leaves_nothing_and_is_said(box: Box, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    command = ["sh", "-c", "setsid sleep 1000 & exit 0"]
    steady = up(
        box, bad={"command": command, "working_dir": str(tmp_path / "cwd"), "restart": {"backoff": "60s"}}
    )
    box.until(lambda: "exit code 0" in reason(box, "bad"), "its end is said")
    box.until(lambda: len(running_in(tmp_path / "cwd")) <= 1, "nothing piles up")
    steady.check()


def running_in(directory: Path) -> list[int]:
    """The pids of all processes that work in that directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == str(directory):
                    found.append(int(entry.name))
            except OSError:
                continue  # ended while we looked
    return found


def test_a_port_that_is_taken_costs_that_service_alone(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        steady = up(box, bad={"command": WORKER, "endpoint": {"port": port}, **FAST})
        box.until(lambda: told(box, str(port)), "the port is named")
        assert any("use" in line for line in told(box, str(port)))
        steady.check()
    box.until(lambda: answers(box, "bad"), "the address is opened once it is free")
    assert box.service("bad")["url"].endswith(f":{port}")


def answers(box: Box, name: str) -> bool:
    try:
        return bool(box.get(name, timeout=2))
    except OSError:
        return False


# --- files ------------------------------------------------------------------------------------------------


def loop_of_links(file: Path) -> None:
    """A file that nobody can read, root neither."""
    file.unlink()
    file.symlink_to(file)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "unreadable": (loop_of_links, "stoker.yaml"),
    "deleted": (Path.unlink, "stoker.yaml"),
    "a directory": (lambda file: (file.unlink(), file.mkdir()), "stoker.yaml"),
    "half written": (lambda file: file.write_text(deployment()[:-30]), "stoker.yaml:1:"),
    "empty": (lambda file: file.write_text(""), "stoker.yaml"),
    "not text": (lambda file: file.write_bytes(b"\xff\xfe\x00\x01"), "stoker.yaml"),
    "unknown key": (lambda file: file.write_text(deployment(a={"comand": "x"})), "command"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_file_that_breaks_leaves_the_last_good_one_in_force(box: Box, fault: str) -> None:
    steady = up(box)
    generation = box.status()["daemon"]["config"]["generation"]
    spoil, named = BROKEN[fault]
    spoil(box.file)
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "the rejection is in status")
    errors = box.status()["daemon"]["config"]["errors"]
    assert errors
    assert named in f"{errors[0]['file']}:{errors[0]['line']}: {errors[0]['message']}"
    steady.check()
    refused = box.run("reload", check=False)
    assert refused.returncode == 2
    assert named in refused.stderr
    assert "Traceback" not in box.output()
    restore(box)
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "in-force", "it recovers by itself")
    box.ready("late", 1)
    assert box.status()["daemon"]["config"]["generation"] > generation
    steady.check()


def restore(box: Box) -> None:
    """Put a good file back, as an editor or a deployment tool would."""
    if box.file.is_dir() and not box.file.is_symlink():
        box.file.rmdir()
    box.write(deployment(late={"command": ["sleep", "1000"], **FAST}))


ONE = "services:\n  a: {command: x, "
BAD_INPUT = {
    "unknown key": (ONE + "scalling: {}}\n", ":2:19: services.a.scalling: ", "did you mean scaling?"),
    "wrong type": (ONE + "priority: high}\n", ":2:29: services.a.priority: ", "high"),
    "min above max": (ONE + "scaling: {min_replicas: 3, max_replicas: 2}}\n", ":2:", "max_replicas"),
    "unknown instance type": (ONE + "instance_type: cpu.smal}\n", ":2:", "did you mean cpu.small"),
    "cycle": (ONE + "depends: [b]}\n  b: {command: x, depends: [a]}\n", ":2:", "a -> b -> a"),
    "one port twice": (
        ONE + "endpoint: {port: 8001}}\n  b: {command: x, endpoint: {port: 8001}}\n",
        ":3:",
        "8001",
    ),
    "half written": ("services:\n  a: {command: [x\n", ":3:1: ", "not valid YAML"),
    "aliases that explode": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9)),
        ":5:",
        "too large",
    ),
    "an alias of itself": ("services: &s\n  a: *s\n", ":2:6: ", "inside &s itself"),
    "10 MB": ("services:\n" + "".join(f"  s{i}: {{comand: x}}\n" for i in range(480_000)), ": ", "too large"),
}


@pytest.mark.parametrize("fault", BAD_INPUT)
def test_check_says_where_and_what_within_seconds(fault: str, tmp_path: Path) -> None:
    text, place, word = BAD_INPUT[fault]
    file = tmp_path / "stoker.yaml"
    file.write_text(text)
    began = time.monotonic()
    done = subprocess.run(
        # As much memory as a daemon may have: a bomb must not go off.
        ["sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh", *STOKER, "check", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    first = (done.stderr or done.stdout).splitlines()[0]
    assert f"{file}{place}" in first
    assert word in first
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    file = tmp_path / "stoker.yaml"
    file.write_text(deployment())
    file.chmod(0)
    done = subprocess.run([*STOKER, "check", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Permission denied" in done.stderr
    assert str(file) in done.stderr


# --- the daemon's own ground ------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_state_is_refused(box: Box) -> None:
    steady = up(box)
    assert box.daemon is not None
    other_socket = {**box.environ, "STOKER_SOCKET": str(box.directory / "other.sock")}
    second = subprocess.run(
        [*STOKER, "up", str(box.file)],
        env=other_socket,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert str(box.daemon.pid) in second.stderr
    assert str(box.state_dir) in second.stderr
    assert len(second.stderr.strip().splitlines()) <= 2
    steady.check()


def test_a_state_directory_that_cannot_be_made_is_named(box: Box) -> None:
    box.write(deployment())
    (box.directory / "state").write_text("a file")
    done = box.run("up", str(box.file), check=False)
    assert done.returncode == 1
    assert str(box.state_dir) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_under_the_state_stops_no_worker_and_heals(box: Box) -> None:
    box.state_dir.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=512k", "stoker-test", str(box.state_dir)]
    if subprocess.run(small, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        steady = up(box)
        ballast = box.state_dir / "ballast"
        fill(ballast)
        box.run("scale", "steady", "1..2", check=False)
        box.write(deployment(late={"command": ["sleep", "1000"], **FAST}))
        box.until(lambda: told(box, "No space left") or "space" in box.run("status").stdout, "it is said")
        assert "Traceback" not in box.output()
        steady.check()
        ballast.unlink()
        box.until(lambda: len(box.replicas("late", "ready")) == 1, "the rest goes on once there is room", 40)
        steady.check()
        box.down()
    finally:
        subprocess.run(["umount", "-l", str(box.state_dir)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out:
        try:
            while out.write(bytes(4096)):
                pass
        except OSError:
            return


# --- plugins ----------------------------------------------------------------------------------------------


def install_plugin(directory: Path, body: str) -> dict[str, str]:
    """A distribution with one plugin, as pip would leave it; returns the environment that shows it."""
    site = directory / "site"
    info = site / "stoker_stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stoker_stranger.py").write_text(body)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stoker-stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stoker]\nstranger = stoker_stranger\n")
    return {"PYTHONPATH": str(site)}


FAULTY_PLUGINS = {
    "raises on import": "raise RuntimeError('no licence found')",
    "exits on import": "import sys; sys.exit('no licence found')",
    "has a syntax error": "def no licence found",
    "raises in a hook": """
from stoker.plugin import impl
@impl
def stoker_policies():
    raise RuntimeError('no licence found')
""",
    "answers a hook with nonsense": """
from stoker.plugin import impl
@impl
def stoker_policies():
    return {"no licence found": 42}
""",
    "has a hook that does not exist": """
from stoker.plugin import impl
@impl
def stoker_no_licence_found():
    return {}
""",
}


@pytest.mark.parametrize("fault", FAULTY_PLUGINS)
def test_a_faulty_plugin_costs_itself_alone(tmp_path: Path, fault: str) -> None:
    with Box(tmp_path, **install_plugin(tmp_path, FAULTY_PLUGINS[fault])) as box:
        steady = up(box)
        listed = json.loads(box.run("plugins", "-o", "json").stdout)
        records = {
            record["name"]: record for record in (listed if isinstance(listed, list) else listed["plugins"])
        }
        assert records["stranger"]["state"] == "failed"
        assert records["stranger"]["reason"]
        assert records["process"]["state"] == "loaded"
        assert "stranger" in box.run("plugins").stdout
        assert "Traceback" not in box.output()
        steady.check()


SICK_PARTS = {
    "a device source that raises": (
        "stoker_device_sources",
        "class Sick:\n    async def run(self, publish):\n        raise RuntimeError('sick part')\n",
    ),
    "an event sink that raises": (
        "stoker_event_sinks",
        "class Sick:\n    async def send(self, event):\n        raise RuntimeError('sick part')\n",
    ),
    "a factory that raises": (
        "stoker_device_sources",
        "def Sick():\n    raise RuntimeError('sick part')\n",
    ),
}


@pytest.mark.parametrize("fault", SICK_PARTS)
def test_a_part_that_fails_while_it_runs_costs_itself_alone(tmp_path: Path, fault: str) -> None:
    hook, body = SICK_PARTS[fault]
    plugin = f"""
from stoker.plugin import impl
{body}
@impl
def {hook}():
    return {{"sick": lambda context: Sick()}}
"""
    with Box(tmp_path, **install_plugin(tmp_path, plugin)) as box:
        steady = up(box)
        box.until(lambda: told(box, "sick part"), "it is said")
        assert "Traceback" not in box.output()
        steady.check()


def test_a_policy_that_raises_leaves_the_pool_at_its_minimum(tmp_path: Path) -> None:
    plugin = """
from stoker.plugin import impl
class Sick:
    def decide(self, given):
        raise RuntimeError('sick policy')
@impl
def stoker_policies():
    return {"sick": lambda context: Sick()}
"""
    scaling = {"min_replicas": 1, "max_replicas": 3, "policy": {"metric": "sick"}}
    with Box(tmp_path, **install_plugin(tmp_path, plugin)) as box:
        steady = up(box, ill={"command": WORKER, "scaling": scaling, **FAST})
        box.ready("ill", 1)
        box.get("ill")
        box.until(lambda: "sick policy" in box.output() + box.run("explain", "ill").stdout, "it is said")
        steady.check()


def test_a_policy_that_is_missing_is_a_fault_of_the_file(box: Box) -> None:
    scaling = {"min_replicas": 1, "max_replicas": 3, "policy": {"metric": "concurency"}}
    box.write(deployment(a={"command": WORKER, "scaling": scaling}))
    done = box.run("check", str(box.file), check=False)
    assert done.returncode == 2
    assert "concurrency" in done.stderr + done.stdout


def test_sigint_ends_everything_cleanly(box: Box) -> None:
    up(box)
    assert box.daemon is not None
    box.daemon.send_signal(signal.SIGINT)
    assert box.daemon.wait(30) == 0
    box.daemon = None
    assert box.pids() == []
    assert not box.socket.exists()
