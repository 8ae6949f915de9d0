"""`backend: systemd` on a machine with a real systemd: the driver's suite, and services under a daemon."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakenvml.fixtures import fake_box
from system.sdbox.machine import Machine

pytest.importorskip("jeepney")
pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HOME = "/srv/app"
FILE = f"{HOME}/stoker.yaml"


def env(**more: str) -> list[str]:
    values = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{ROOT}/daemon:{ROOT}/plugins",
        "STOKER_SOCKET": "/run/stoker/stoker.sock",
        "STOKER_STATE_DIR": "/var/lib/stoker",
        **more,
    }
    return ["env", *(f"{name}={value}" for name, value in values.items())]


class Daemon:
    """A daemon on that machine, as a service of it, driven through its command line."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def up(self, **more: str) -> None:
        """Start it as a plain service, whose death does not concern its workers' units."""
        variables = [f"--setenv={one}" for one in env(**more)[1:]]
        self.machine.run(
            "systemd-run", "--unit=daemon", "--collect", "-p", "RuntimeDirectory=stoker",
            "-p", "RuntimeDirectoryPreserve=yes", *variables, f"{BIN}/python", "-m", "stoker.cli", "up", FILE,
        )  # fmt: skip
        self.until(self.status, "the daemon answers")

    def write(self, services: dict[str, Any]) -> None:
        """Replace the deployment file."""
        place = self.machine.root / HOME.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for service in services.values():
            service |= {"backend": "systemd", "drain": {"timeout": "1s", "grace": "1s"}}
        (place / "stoker.yaml").write_text(json.dumps({"name": "app", "services": services}))

    def cli(self, *args: str, check: bool = True) -> str:
        """`stoker ARGS`."""
        command = [*env(), f"{BIN}/python", "-m", "stoker.cli", *args]
        return self.machine.run(*command, check=check).stdout

    def status(self) -> dict[str, Any]:
        """The status document, empty while no daemon answers."""
        text = self.cli("status", "-o", "json", check=False)
        return json.loads(text) if text.startswith("{") else {}

    def ready(self, service: str) -> list[dict[str, Any]]:
        """The ready replicas of a service."""
        services = {one["name"]: one for one in self.status().get("services", ())}
        found = services.get(service, {"replicas": []})["replicas"]
        return [replica for replica in found if replica["phase"] == "ready"]

    def one(self, service: str) -> dict[str, Any]:
        """Its only replica, once it is ready."""
        self.until(lambda: len(self.ready(service)) == 1, f"one ready replica of {service}")
        return self.ready(service)[0]

    def units(self) -> list[str]:
        """Units of workers that systemd knows of, in any state."""
        text = self.machine.run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", "stoker-*"
        ).stdout
        return [line.split()[0] for line in text.splitlines()]

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.machine.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait for a condition; the failure shows what the daemon said."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                log = self.machine.run("journalctl", "-u", "daemon", "--no-pager", "-o", "cat").stdout
                raise AssertionError(f"not within {seconds:g} s: {what}\n{log[-3000:]}")
            time.sleep(0.1)


@pytest.fixture
def daemon(machine: Machine) -> Iterator[Daemon]:
    daemon = Daemon(machine)
    yield daemon
    daemon.cli("down", check=False)
    daemon.until(lambda: daemon.units() == [], "all units are gone")
    daemon.until(lambda: not daemon.status(), "the daemon is gone")


def test_the_driver_keeps_its_ports_promises(machine: Machine) -> None:
    """The suite of `stoker.plugin.testing`, run on that machine."""
    command = [f"{BIN}/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    command += ["-c", str(ROOT / "pyproject.toml"), "--basetemp", "/srv/suite"]
    done = machine.run(*env(), *command, str(ROOT / "tests/plugins/systemd"), check=False, timeout=200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "systemd does not run here" not in done.stdout


def test_a_worker_is_a_unit_with_limits_and_a_sandbox(daemon: Daemon) -> None:
    limits = {"nofile": 77, "pids": 9, "memory": "64Mi", "cpu": 0.5}
    daemon.write({"web": {"command": ["sleep", "600"], "limits": limits, "working_dir": "/"}})
    daemon.up()
    replica = daemon.one("web")
    (unit,) = daemon.units()
    assert replica["id"] in unit
    assert int(daemon.show(unit, "MainPID")) == replica["pid"]
    assert daemon.show(unit, "MemoryMax") == str(64 * 2**20)
    assert daemon.show(unit, "TasksMax") == "9"
    assert daemon.show(unit, "LimitNOFILE") == "77"
    assert daemon.show(unit, "DynamicUser") == "yes"
    status = daemon.machine.run("cat", f"/proc/{replica['pid']}/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t0" not in status
    assert "Environment=\n" in daemon.machine.run("systemctl", "show", "-p", "Environment", unit).stdout


def test_its_environment_is_seen_by_nobody_else(daemon: Daemon) -> None:
    secrets = daemon.machine.root / "var/lib/stoker/secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    (secrets / "key").write_text("hush-hush")
    daemon.write({"web": {"command": ["sleep", "600"], "secrets": ["key"], "working_dir": "/"}})
    daemon.up()
    replica = daemon.one("web")
    environ = daemon.machine.run("cat", f"/proc/{replica['pid']}/environ").stdout
    assert "KEY=hush-hush" in environ.split("\0")
    assert not any(one.startswith(("INVOCATION_ID=", "CREDENTIALS_")) for one in environ.split("\0"))
    (unit,) = daemon.units()
    assert "hush" not in daemon.machine.run("systemctl", "show", "--all", unit).stdout
    assert "hush" not in daemon.machine.run("journalctl", "--no-pager", "-o", "json").stdout
    places = ["/run", "/tmp", "/var/lib/stoker"]
    assert daemon.machine.run("find", *places, "-path", "*/orders/*", check=False).stdout == ""
    assert daemon.machine.run("find", *places, "-name", "orders", check=False).stdout != ""


def test_units_outlive_the_daemon_and_tell_the_next_how_they_ended(daemon: Daemon) -> None:
    command = ["sh", "-c", "echo last words; trap 'exit 42' TERM; sleep 600 & wait"]
    daemon.write({"stays": {"command": ["sleep", "600"]}, "ends": {"command": command}})
    daemon.up()
    stays, ends = daemon.one("stays"), daemon.one("ends")
    daemon.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "daemon")
    daemon.until(lambda: not daemon.status(), "the end of the daemon")
    daemon.machine.run("kill", "-TERM", str(ends["pid"]))
    daemon.machine.run("systemctl", "reset-failed", "daemon", check=False)
    daemon.up()
    assert daemon.one("stays")["pid"] == stays["pid"]
    assert daemon.one("ends")["pid"] != ends["pid"]
    assert len(daemon.units()) == 2


def test_only_its_own_gpu_can_be_opened(daemon: Daemon) -> None:
    """Harmless devices stand for two GPUs; the driver's page about them is not there, so all are open to a
    worker that has one, and none to a worker that has none."""
    misc = dict(line.split()[::-1] for line in Path("/proc/misc").read_text().splitlines())
    if "fuse" not in misc:
        pytest.skip("no device that could stand for a GPU")
    daemon.machine.run("sh", "-c", f"[ -e /dev/nvidia0 ] || mknod -m 666 /dev/nvidia0 c 10 {misc['fuse']}")
    program = "exec 3<>/dev/nvidia0 && echo open || echo shut; exec sleep 600"
    daemon.write({"web": {"command": ["bash", "-c", program], "working_dir": "/"}})
    daemon.up()
    daemon.one("web")
    daemon.until(lambda: daemon.cli("logs", "web"), "its word")
    assert "Operation not permitted" in daemon.cli("logs", "web")
    assert "open" not in daemon.cli("logs", "web").splitlines()


def test_the_journal_has_its_output_too(daemon: Daemon) -> None:
    """From the same log as `stoker logs`, by the daemon whose own output goes to the journal."""
    daemon.write({"web": {"command": ["sh", "-c", "echo said once; exec sleep 600"], "working_dir": "/"}})
    daemon.up()
    replica = daemon.one("web")
    about = (
        "journalctl",
        "--no-pager",
        "-o",
        "cat",
        f"STOKER_REPLICA={replica['id']}",
        "SYSLOG_IDENTIFIER=web",
    )
    daemon.until(lambda: daemon.machine.run(*about).stdout, "its line")
    assert daemon.machine.run(*about).stdout == "said once\n"
    assert "said once" in daemon.cli("logs", "web")


def test_its_own_gpu_alone_can_be_opened_where_the_driver_tells_its_file(daemon: Daemon) -> None:
    """Harmless devices stand for two GPUs of a fake driver; the driver's page about them is made up."""
    misc = dict(line.split()[::-1] for line in Path("/proc/misc").read_text().splitlines())
    kinds = [misc[name] for name in ("fuse", "loop-control", "tun") if name in misc][:2]
    if len(kinds) < 2 or not Path("/proc/driver").is_dir():
        pytest.skip("no devices that could stand for two GPUs")
    place = daemon.machine.root / HOME.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    gpus = fake_box("2xt4", place)
    said = "".join(
        f"mkdir -p /proc/driver/nvidia/gpus/{n}; rm -f /dev/nvidia{n}; "
        f"mknod -m 666 /dev/nvidia{n} c 10 {kind}; "
        f"printf 'GPU UUID: {uuid}\nDevice Minor: {n}\n' > /proc/driver/nvidia/gpus/{n}/information; "
        for n, (kind, uuid) in enumerate(zip(kinds, gpus.uuids, strict=True))
    )
    daemon.machine.run("sh", "-c", f"mount -t tmpfs tmpfs /proc/driver; {said}")
    program = "for n in 0 1; do (exec 3<>/dev/nvidia$n) && echo open $n; done; exec sleep 600"
    near = {"command": ["bash", "-c", program], "working_dir": "/", "resources": {"gpu": 1, "devices": [0]}}
    daemon.write({"infer": near})
    daemon.up(**{**gpus.environ, "FAKENVML_STATE": f"{HOME}/nvml.json"})
    replica = daemon.one("infer")
    daemon.until(lambda: "/dev/nvidia1" in daemon.cli("logs", "infer"), "its words")
    assert "open 0" in daemon.cli("logs", "infer")
    assert "/dev/nvidia1: Operation not permitted" in daemon.cli("logs", "infer")
    first, second = daemon.cli("gpus").splitlines()[1:3]
    assert replica["id"] in first
    assert "device filter" in first
    assert "device filter" not in second
    (unit,) = daemon.units()
    assert (daemon.show(unit, "NUMAPolicy"), daemon.show(unit, "NUMAMask")) == ("preferred", "0")
    daemon.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "daemon")
    daemon.until(lambda: not daemon.status(), "the end of the daemon")
    daemon.machine.run("systemctl", "reset-failed", "daemon", check=False)
    daemon.up(**{**gpus.environ, "FAKENVML_STATE": f"{HOME}/nvml.json"})
    assert daemon.one("infer")["pid"] == replica["pid"]
    assert "device filter" in daemon.cli("gpus").splitlines()[1], "it is known of adopted workers too"


def test_a_command_that_does_not_exist_is_told(daemon: Daemon) -> None:
    daemon.write({"web": {"command": ["no-such-tool"], "working_dir": "/"}})
    daemon.up()
    daemon.until(lambda: "no-such-tool" in daemon.cli("status", "web"), "the reason")
    assert daemon.units() == []
