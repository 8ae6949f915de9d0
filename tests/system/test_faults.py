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
QUIET = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"pid": %d}' % os.getpid())
    def log_message(self, *_):
        pass  # its log may lie on a disk that is full
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
FAST = {"drain": {"timeout": "1s", "grace": "1s"}}
STEADY = {"command": [PYTHON, "-c", QUIET, "{port}"], **FAST}


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
    """A daemon for one test, not started yet."""
    with Box(tmp_path) as made:
        yield made


def up(box: Box, **services: dict[str, Any]) -> Bystander:
    """Start the daemon with `steady` and the services given; `steady` is ready."""
    box.write(deployment(**services))
    box.up()
    return Bystander(box)


def reason(box: Box, name: str) -> str:
    """Why the one replica of a service is where it is."""
    replicas = box.replicas(name)
    return replicas[0]["reason"] if replicas else ""


def told(box: Box, text: str) -> set[str]:
    """The distinct lines of the daemon's output that say it, without their time stamps."""
    lines = (box.directory / "daemon.out").read_text(errors="replace").splitlines()
    return {line.partition(" ")[2] for line in lines if text in line}


# --- workers: one daemon has all of these at once ---------------------------------------------------------


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


FORKS = {
    "sessions": "setsid sleep 1000 & exec sleep 1000",
    "daemons": "(setsid sleep 1000 &) ; exec sleep 1000",
    "nameless": "(setsid env -i sleep 1000 &) ; exec sleep 1000",
}
"""Ways to get out of sight: a session of its own, a double fork, and that without the environment."""
CROWD: dict[str, dict[str, Any]] = {
    "missing": {"command": ["/no/such/program", "--port", "{port}"]},
    "homeless": {"command": ["sleep", "1000"], "working_dir": "/no/such/directory"},
    "unlucky": {
        "command": shell("echo out of luck; exit 3"),
        "restart": {"backoff": "50ms", "max_backoff": "200ms", "crash_loop": 3},
    },
    "mute": {"command": ["sleep", "1000"], "probes": {"startup": {"http": "/", "timeout": "1s"}}, **FAST},
    "stubborn": {"command": [*WORKER, "--ignore-term"], **FAST},
    "leaving": {"command": shell("setsid sleep 1000 & exit 0"), "restart": {"backoff": "60s"}},
    "squatted": {"command": WORKER, **FAST},
    **{name: {"command": shell(script), **FAST} for name, script in FORKS.items()},
}


class Crowd(Box):
    """A daemon with every kind of bad worker, a port that is taken, and `steady`."""

    def __init__(self, directory: Path, taken: socket.socket) -> None:
        super().__init__(directory)
        self.taken = taken
        self.port = taken.getsockname()[1]
        services = json.loads(json.dumps(CROWD))
        services["squatted"]["endpoint"] = {"port": self.port}
        (directory / "data").write_text("no program")
        services["data"] = {"command": [str(directory / "data"), "{port}"]}
        for name in (*FORKS, "leaving"):
            # The working directory marks the whole tree, whatever it does to its environment.
            self.home(name).mkdir()
            services[name]["working_dir"] = str(self.home(name))
        self.steady = up(self, **services)

    def home(self, name: str) -> Path:
        return self.directory / f"cwd-{name}"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Crowd(tmp_path_factory.mktemp("crowd"), taken) as box,
    ):
        yield box
        assert "Traceback" not in box.output()


@pytest.mark.parametrize(
    ("name", "named"),
    [("missing", "/no/such/program"), ("homeless", "/no/such/directory"), ("data", "/data")],
)
def test_a_command_that_cannot_be_run_is_named(crowd: Crowd, name: str, named: str) -> None:
    crowd.until(lambda: named in reason(crowd, name), "the reason names it")
    (replica,) = crowd.replicas(name)
    assert replica["phase"] == "pending"
    crowd.steady.check()


def test_a_worker_that_exits_at_once_is_tried_again_ever_more_slowly(crowd: Crowd) -> None:
    crowd.until(lambda: "crash loop" in reason(crowd, "unlucky"), "the crash loop is said")
    (replica,) = crowd.replicas("unlucky")
    assert "exit code 3" in replica["reason"]
    assert "out of luck" in replica["reason"], "with the last line of its log"
    assert replica["restarts"] >= 3
    assert "out of luck" in crowd.run("logs", "unlucky").stdout
    crowd.steady.check()


def test_a_worker_that_never_gets_ready_is_given_up_and_replaced(crowd: Crowd) -> None:
    crowd.until(lambda: any(r["restarts"] for r in crowd.replicas("mute")), "a second try")
    said = crowd.run("story", crowd.replicas("mute")[0]["id"]).stdout
    assert "not ready" in said
    assert "1s" in said or "1 s" in said
    crowd.steady.check()


def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(crowd: Crowd) -> None:
    (replica,) = crowd.ready("stubborn", 1)
    began = time.monotonic()
    crowd.run("stop", "stubborn")
    crowd.until(lambda: not crowd.replicas("stubborn"), "the worker is gone")
    assert time.monotonic() - began >= 0.9, "it had its second of grace"
    assert not Path(f"/proc/{replica['pid']}").exists()
    crowd.steady.check()


@pytest.mark.parametrize("name", FORKS)
def test_what_a_worker_forks_away_ends_with_it(crowd: Crowd, name: str) -> None:
    if name == "nameless" and not held_by_cgroups(crowd):
        pytest.skip("without a cgroup, which takes root here, nothing tells whose process this was")
    crowd.ready(name, 1)
    crowd.until(lambda: len(running_in(crowd.home(name))) >= 2, "the forked process is there")
    crowd.run("stop", name)
    crowd.until(lambda: not crowd.replicas(name), "the worker is gone")
    assert running_in(crowd.home(name)) == []
    crowd.steady.check()


def test_a_worker_that_forks_away_and_exits_leaves_nothing_and_is_said(crowd: Crowd) -> None:
    crowd.until(lambda: "exit code 0" in reason(crowd, "leaving"), "its end is said")
    crowd.until(lambda: running_in(crowd.home("leaving")) == [], "nothing is left of it")
    crowd.steady.check()


def held_by_cgroups(box: Box) -> bool:
    """Whether the daemon could make a cgroup for each worker, by its doctor's word."""
    checks = json.loads(box.run("doctor", "-o", "json", check=False).stdout)["checks"]
    return any(check["check"] == "process trees" and check["text"].startswith("cgroup") for check in checks)


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


def test_a_port_that_is_taken_costs_that_service_alone(crowd: Crowd) -> None:
    crowd.until(lambda: told(crowd, "already taken"), "it is said")
    (line,) = told(crowd, "already taken")
    assert "demo/squatted" in line
    assert f"127.0.0.1:{crowd.port} " in line
    crowd.steady.check()

    def noted() -> bool:
        return any("already taken" in one for one in crowd.status()["daemon"]["notices"])

    assert noted()
    crowd.taken.close()
    crowd.until(lambda: answers(crowd, "squatted"), "the address is opened once it is free")
    crowd.until(lambda: not noted(), "what is over is no longer noted")
    assert crowd.service("squatted")["url"].endswith(f":{crowd.port}")


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
    "half written": (lambda file: file.write_text(deployment()[:-30]), "stoker.yaml:1:"),
    "empty": (lambda file: file.write_text(""), "stoker.yaml"),
    "not text": (lambda file: file.write_bytes(b"\xff\xfe\x00\x01"), "stoker.yaml"),
    "unknown key": (lambda file: file.write_text(deployment(a={"comand": "x"})), "command"),
}


class Filed(Box):
    """A daemon whose file is broken and mended, again and again."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.steady = up(self)
        self.mended = 0

    @property
    def config(self) -> dict[str, Any]:
        return self.status()["daemon"]["config"]

    def mend(self) -> None:
        """Put a good file back, as an editor or a deployment tool would; each has a service of its own."""
        self.mended += 1
        name = f"late{self.mended}"
        self.write(deployment(**{name: {"command": ["sleep", "1000"], **FAST}}))
        self.until(lambda: self.config["state"] == "in-force", "it recovers by itself")
        self.ready(name, 1)


@pytest.fixture(scope="module")
def filed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filed]:
    with Filed(tmp_path_factory.mktemp("filed")) as box:
        yield box
        assert "Traceback" not in box.output()


@pytest.mark.parametrize("fault", BROKEN)
def test_a_file_that_breaks_leaves_the_last_good_one_in_force(filed: Filed, fault: str) -> None:
    generation = filed.config["generation"]
    spoil, named = BROKEN[fault]
    spoil(filed.file)
    try:
        filed.until(lambda: filed.config["state"] == "rejected", "the rejection is in status")
        error = filed.config["errors"][0]
        assert named in f"{error['file']}:{error['line']}: {error['message']}"
        filed.steady.check()
        refused = filed.run("reload", check=False)
        assert refused.returncode == 2
        assert named in refused.stderr
        assert filed.config["generation"] == generation
    finally:
        filed.mend()
    assert filed.config["generation"] > generation
    filed.steady.check()


def test_a_file_that_becomes_an_empty_directory_is_refused(box: Box) -> None:
    """Deployment tools make the mount point first. A directory that was named as such may be empty."""
    steady = up(box)
    box.file.unlink()
    box.file.mkdir()
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "the rejection is in status")
    steady.check()


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
    "half written": ("services:\n  a: {command: [x\n", ":2:", "not valid YAML"),
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
    assert f"'{file}' is not readable" in done.stderr


# --- the daemon's own ground ------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_state_is_refused(filed: Filed) -> None:
    assert filed.daemon is not None
    second = filed.run("--socket", str(filed.directory / "other.sock"), "up", str(filed.file), check=False)
    assert second.returncode == 1
    assert str(filed.daemon.pid) in second.stderr
    assert str(filed.state_dir) in second.stderr
    assert len(second.stderr.strip().splitlines()) <= 2
    filed.steady.check()


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


IMPL = "from stoker.plugin import impl\n"


def hook(name: str, body: str) -> str:
    return f"{IMPL}@impl\ndef {name}():\n    {body}\n"


def sick(hook_name: str, part: str) -> str:
    return part + "\n" + hook(hook_name, "return {'sick': lambda context: Sick()}")


UNLOADABLE = {
    "raising": "raise RuntimeError('no licence found')",
    "garbled": "def no licence found",
    "hooked": hook("stoker_policies", "raise RuntimeError('no licence found')"),
    "nonsense": hook("stoker_policies", "return {'no licence found': 42}"),
    "unheard": hook("stoker_no_licence_found", "return {}"),
}
"""Plugins that cannot be loaded: each is listed as failed, with the reason."""
SICK = {
    "source": sick(
        "stoker_device_sources",
        "class Sick:\n    async def run(self, publish):\n        raise RuntimeError('sick source')",
    ),
    "sink": sick(
        "stoker_event_sinks",
        "class Sick:\n    async def send(self, event):\n        raise RuntimeError('sick sink')",
    ),
    "policy": sick(
        "stoker_policies",
        "class Sick:\n    def decide(self, given):\n        raise RuntimeError('sick policy')",
    ),
    "maker": hook(
        "stoker_event_sinks", "return {'made': lambda context: exec('raise RuntimeError(\"sick maker\")')}"
    ),
}
"""Plugins that load well and fail while they run: each is said, and the rest goes on."""


def install(directory: Path, plugins: dict[str, str]) -> dict[str, str]:
    """Plugins as pip would leave them, one distribution each; returns the environment that shows them."""
    for name, body in plugins.items():
        info = directory / f"stoker_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (directory / f"strange_{name}.py").write_text(body)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stoker-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[stoker]\n{name} = strange_{name}\n")
    return {"PYTHONPATH": str(directory)}


class Strangers(Box):
    """A daemon with every kind of faulty plugin, and `steady`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, **install(directory / "site", {**UNLOADABLE, **SICK}))
        scaling = {"min_replicas": 1, "max_replicas": 3, "policy": {"metric": "sick"}}
        self.steady = up(self, ill={"command": WORKER, "scaling": scaling, **FAST})
        listed = json.loads(self.run("plugins", "-o", "json").stdout)
        self.records = {record["name"]: record for record in listed["plugins"]}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strangers]:
    with Strangers(tmp_path_factory.mktemp("strangers")) as box:
        yield box
        assert "Traceback" not in box.output()


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_plugin_that_cannot_be_loaded_costs_itself_alone(strangers: Strangers, name: str) -> None:
    record = strangers.records[name]
    assert record["state"] == "failed"
    assert ("SyntaxError" if name == "garbled" else "licence") in record["reason"]
    assert strangers.records["process"]["state"] == "loaded"
    assert name in strangers.run("plugins").stdout
    strangers.steady.check()


def test_a_plugin_that_ends_the_process_costs_itself_alone(tmp_path: Path) -> None:
    plugin = {"exiting": "import sys; sys.exit('no licence found')"}
    with Box(tmp_path, **install(tmp_path / "site", plugin)) as box:
        steady = up(box)
        (record,) = (
            r for r in json.loads(box.run("plugins", "-o", "json").stdout)["plugins"] if r["name"] in plugin
        )
        assert record["state"] == "failed"
        assert "licence" in record["reason"]
        steady.check()


@pytest.mark.parametrize("name", SICK)
def test_a_part_that_fails_while_it_runs_costs_itself_alone(strangers: Strangers, name: str) -> None:
    assert strangers.records[name]["state"] == "loaded"
    strangers.until(lambda: told(strangers, f"sick {name}"), "it is said")
    strangers.steady.check()


def test_a_service_whose_policy_fails_keeps_its_scale_and_serves(strangers: Strangers) -> None:
    strangers.ready("ill", 1)
    assert json.loads(strangers.get("ill"))["pid"]
    assert "sick policy" in strangers.run("explain", "ill").stdout


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
