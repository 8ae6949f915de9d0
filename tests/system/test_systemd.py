"""The unit under a real systemd: what start, reload, restart, stop, a crash and a hang do to the workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from system.sdbox.machine import Machine

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
BIN = Path(sys.executable).parent
FILE = """
name: app
services:
  idle:
    command: [sleep, "100000"]
    scaling: {min_replicas: 2, max_replicas: 2}
    drain: {timeout: 1s, grace: 1s}
"""
DROP_IN = f"""
[Service]
Environment=PATH={BIN}:/usr/bin:/bin
Environment=PYTHONDONTWRITEBYTECODE=1
WatchdogSec=6s
TimeoutStopSec=3s
RestartSec=200ms
"""


class Stoker:
    """The unit on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def install(self) -> None:
        root = self.machine.root
        refused = self.cli("systemd", "install", check=False)
        if (
            refused.returncode
        ):  # a Python of root's own, as pyenv makes it: it is said before anything is done
            assert "closed to others" in refused.stderr
            assert "stoker.service" not in refused.stdout
            self.machine.run("chmod", "o+x", "/root")  # of this machine's own layer
            self.cli("systemd", "install")
        (root / "etc/systemd/system/stoker.service.d").mkdir(exist_ok=True)
        (root / "etc/systemd/system/stoker.service.d/test.conf").write_text(DROP_IN)
        self.machine.run("systemctl", "daemon-reload")

    def write(self, text: str) -> None:
        """Put the deployment file in place."""
        (self.machine.root / "etc/stoker/app.yaml").write_text(text)

    def ctl(self, verb: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`systemctl VERB stoker`."""
        try:
            return self.machine.run("systemctl", verb, *args, "stoker", check=check)
        except subprocess.CalledProcessError as error:
            error.add_note(self.log())
            raise

    def property(self, name: str) -> str:
        """One property of the unit."""
        return self.machine.run("systemctl", "show", "--value", "-p", name, "stoker").stdout.strip()

    def cli(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`stoker ARGS` as root on that machine."""
        return self.machine.run("env", f"PATH={BIN}:/usr/bin:/bin", "stoker", *args, check=check)

    def status(self) -> dict[str, Any]:
        """The status document, empty while no daemon answers."""
        done = self.cli("status", "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def workers(self) -> set[int]:
        """The pids of the ready workers."""
        return {
            replica["pid"]
            for service in self.status().get("services", ())
            for replica in service["replicas"]
            if replica["phase"] == "ready"
        }

    def alive(self) -> set[int]:
        """The pids of all workers that exist on the machine, whoever started them."""
        found = self.machine.run("pgrep", "-x", "sleep", check=False).stdout.split()
        return {int(pid) for pid in found}

    def log(self) -> str:
        """The journal of the unit."""
        return self.machine.run("journalctl", "-u", "stoker", "--no-pager", "-o", "cat").stdout[-3000:]

    def until(self, condition: Callable[[], object], what: str, seconds: float = 30) -> None:
        """Wait for a condition; the failure shows the journal."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.log()}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def unit(machine: Machine) -> Iterator[Stoker]:
    """The unit, installed."""
    unit = Stoker(machine)
    unit.install()
    yield unit
    unit.ctl("stop")
    assert unit.alive() == set()
    said = unit.cli("systemd", "uninstall").stdout
    assert "stoker.service: removed" in said
    assert unit.machine.run("systemctl", "cat", "stoker", check=False).returncode != 0


@pytest.fixture
def stoker(unit: Stoker) -> Stoker:
    """The unit, started, with two ready workers; it goes on from test to test."""
    unit.write(FILE)
    unit.ctl("start")
    unit.until(lambda: len(unit.workers()) == 2 == len(unit.alive()), "two ready workers and no other")
    return unit


def analyze(*args: str | Path) -> str:
    """What `systemd-analyze ARGS` says, stderr too. Skips the test where it cannot work at all."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    done = subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, check=False)
    if os.geteuid() != 0 and "Permission denied" in done.stderr:
        pytest.skip("systemd-analyze needs root where systemd does not run")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    """It returns 0 for keys that it does not know: only its silence counts."""
    assert analyze("verify", unit) == ""


def test_the_unit_is_no_more_exposed_than_it_says() -> None:
    said = analyze("security", "--offline=yes", "--no-pager", SYSTEMD / "stoker.service")
    exposure = float(said.rpartition(": ")[2].split()[0])
    assert exposure <= 3.0
    assert f"rates the unit {exposure}" in (SYSTEMD / "README.md").read_text()


def test_start_returns_once_the_daemon_is_ready(stoker: Stoker) -> None:
    assert stoker.property("ActiveState") == "active"
    assert "1 services" in stoker.property("StatusText") or "1 service" in stoker.property("StatusText")
    assert int(stoker.property("MainPID")) == stoker.status()["daemon"]["pid"]
    assert stoker.workers() == stoker.alive()


def test_the_cgroup_of_the_unit_holds_every_worker(stoker: Stoker) -> None:
    group = stoker.property("ControlGroup")
    for pid in stoker.workers():
        assert group in stoker.machine.run("cat", f"/proc/{pid}/cgroup").stdout


def test_reload_takes_the_new_files_and_touches_no_worker(stoker: Stoker) -> None:
    before = stoker.workers()
    stoker.write(FILE.replace("{min_replicas: 2, max_replicas: 2}", "{min_replicas: 3, max_replicas: 3}"))
    stoker.ctl("reload")
    stoker.until(lambda: len(stoker.workers()) == 3, "three ready workers")
    assert before < stoker.workers()
    assert stoker.property("ActiveState") == "active"


def test_reload_of_refused_files_fails_and_changes_nothing(stoker: Stoker) -> None:
    before = stoker.workers()
    stoker.write(FILE.replace("max_replicas: 2", "max_replicas: 1"))
    assert stoker.ctl("reload", check=False).returncode != 0
    assert stoker.property("ActiveState") == "active"
    assert stoker.status()["daemon"]["config"]["state"] == "rejected"
    assert stoker.workers() == before
    assert "app.yaml:" in stoker.log()


def test_sighup_reloads_as_notify_reload_wants_it(stoker: Stoker) -> None:
    stoker.write(FILE.replace("{min_replicas: 2, max_replicas: 2}", "{min_replicas: 1, max_replicas: 1}"))
    stoker.ctl("kill", "--kill-who=main", "--signal=HUP")
    stoker.until(lambda: len(stoker.workers()) == 1, "one ready worker")
    assert stoker.property("ActiveState") == "active"


def test_restart_keeps_every_worker(stoker: Stoker) -> None:
    workers, daemon = stoker.workers(), stoker.property("MainPID")
    stoker.ctl("restart")
    stoker.until(lambda: stoker.workers() == workers, "the same workers, ready")
    assert stoker.property("MainPID") != daemon
    assert stoker.alive() == workers


def test_try_restart_keeps_every_worker_too(stoker: Stoker) -> None:
    workers = stoker.workers()
    stoker.ctl("try-restart")
    stoker.until(lambda: stoker.workers() == workers, "the same workers, ready")


def test_reexec_keeps_process_and_workers(stoker: Stoker) -> None:
    workers, daemon = stoker.workers(), stoker.property("MainPID")
    done = stoker.cli("reexec", check=False)
    assert done.returncode == 0, done.stdout + done.stderr + stoker.log()
    stoker.until(lambda: stoker.workers() == workers, "the same workers, ready")
    stoker.until(lambda: stoker.property("ActiveState") == "active", "systemd knows that it is ready again")
    assert stoker.property("MainPID") == daemon
    assert stoker.property("NRestarts") == "0"


def test_the_journal_knows_what_each_line_is_about(stoker: Stoker) -> None:
    (replica, *_) = stoker.status()["services"][0]["replicas"]
    about = ("-u", "stoker", f"STOKER_REPLICA={replica['id']}", "-o", "json", "--no-pager")
    stoker.until(lambda: stoker.machine.run("journalctl", *about).stdout, "entries about a replica")
    entries = [json.loads(line) for line in stoker.machine.run("journalctl", *about).stdout.splitlines()]
    assert {entry["STOKER_SERVICE"] for entry in entries} == {"idle"}
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"stoker"}
    assert all(replica["id"] in entry["MESSAGE"] for entry in entries)


TALK = """
import json, time
print(json.dumps({"level": "error", "msg": "no weights"}), flush=True)
for number in range(2000):
    print("line", number, flush=True)
    time.sleep(0.001)
print("all", flush=True)
time.sleep(100000)
"""


def entries(stoker: Stoker, *matches: str) -> list[dict[str, str]]:
    """What the journal has of workers of this boot."""
    said = stoker.machine.run("journalctl", "-b", "-o", "json", "--no-pager", *matches).stdout
    return [json.loads(line) for line in said.splitlines()]


def test_the_journal_has_what_workers_write_once_whatever_becomes_of_the_daemon(stoker: Stoker) -> None:
    talk = {"command": ["/usr/bin/python3", "-c", TALK], "working_dir": "/"}
    stoker.write(FILE + f"  talk: {json.dumps(talk)}\n")
    about = ("-u", "stoker", "STOKER_SERVICE=talk", "SYSLOG_IDENTIFIER=talk")
    for wanted in ("line 200", "line 900"):
        stoker.until(
            lambda wanted=wanted: wanted in stoker.cli("logs", "talk", check=False).stdout,
            f"{wanted!r} is written",
        )
        daemon = stoker.property("MainPID")
        stoker.ctl("kill", "--kill-who=main", "--signal=KILL")
        stoker.until(lambda daemon=daemon: stoker.property("MainPID") not in ("0", daemon), "a new daemon")
    stoker.until(lambda: any(one["MESSAGE"] == "all" for one in entries(stoker, *about)), "the last line")
    stoker.until(lambda: len(stoker.workers()) == 3, "all workers, taken over")
    (replica,) = next(one["replicas"] for one in stoker.status()["services"] if one["name"] == "talk")
    found = entries(stoker, *about)
    assert [one["MESSAGE"] for one in found[1:]] == [*(f"line {number}" for number in range(2000)), "all"]
    assert {one["STOKER_REPLICA"] for one in found} == {replica["id"]}
    assert {one["STOKER_DEPLOYMENT"] for one in found} == {"app"}
    (error,) = entries(stoker, *about, "-p", "err")
    assert json.loads(error["MESSAGE"]) == {"level": "error", "msg": "no weights"}


def test_a_file_keeps_workers_out_of_the_journal_at_once(stoker: Stoker) -> None:
    def told(service: str) -> list[str]:
        found = entries(stoker, f"STOKER_REPLICA={names[service]}")
        return [one["MESSAGE"] for one in found if "STOKER_EVENT" not in one]

    talk = {
        "command": ["sh", "-c", "read -r word < /tmp/$STOKER_SERVICE; echo said $word; exec sleep 100000"]
    }
    services = {
        name: talk | {"working_dir": "/", "drain": {"grace": "1s"}} for name in ("heard", "muted", "later")
    }
    services["muted"] |= {"logs": {"journal": False}}
    for name in services:
        stoker.machine.run("mkfifo", "-m", "666", f"/tmp/{name}")
    whole = {"name": "app", "services": services}
    stoker.write(json.dumps(whole))
    stoker.until(lambda: len(stoker.workers()) == 3, "three ready workers")
    names = {one["name"]: one["replicas"][0]["id"] for one in stoker.status()["services"]}
    for name in ("muted", "heard"):
        stoker.machine.run("sh", "-c", f"echo {name} > /tmp/{name}")
    stoker.until(lambda: "said heard" in told("heard"), "the line of the service that is heard")
    assert told("muted") == []
    stoker.write(json.dumps(whole | {"box": {"journal": "never"}}))
    stoker.ctl("reload")
    forwarding = ("pgrep", "-f", "stoker.to_journal")
    stoker.until(lambda: stoker.machine.run(*forwarding, check=False).stdout == "", "nobody forwards")
    stoker.machine.run("sh", "-c", "echo later > /tmp/later")
    stoker.until(lambda: "said later" in stoker.cli("logs", "later").stdout, "its line is in its log")
    stoker.write(json.dumps(whole))
    stoker.ctl("reload")
    stoker.until(lambda: stoker.machine.run(*forwarding, check=False).stdout != "", "somebody forwards")
    assert told("later") == []


def test_stop_drains_everything(stoker: Stoker) -> None:
    stoker.ctl("stop")
    assert stoker.alive() == set()
    assert stoker.property("ActiveState") == "inactive"
    assert stoker.property("Result") == "success"
    assert stoker.property("TasksCurrent") in ("[not set]", "0"), "the router is gone as well"


def test_stop_of_a_daemon_that_is_only_just_starting_stops_the_workers_of_the_one_before(
    stoker: Stoker,
) -> None:
    slow = stoker.machine.root / "etc/systemd/system/stoker.service.d/slow.conf"
    slow.write_text("[Service]\nExecStartPre=/bin/sleep 1000\n")
    stoker.machine.run("systemctl", "daemon-reload")
    try:
        stoker.ctl("kill", "--kill-who=main", "--signal=KILL")
        stoker.until(lambda: stoker.property("SubState") == "start-pre", "the next one is on its way")
        assert "2 workers and the router of the last one run on" in stoker.cli("status", check=False).stderr
        stoker.ctl("stop")
    finally:
        slow.unlink()
        stoker.machine.run("systemctl", "daemon-reload")
    assert stoker.machine.run("pgrep", "-x", "sleep", check=False).stdout == ""
    assert stoker.property("TasksCurrent") in ("[not set]", "0"), "the router is gone as well"
    state = stoker.machine.root / "var/lib/stoker"
    assert {path.stat().st_uid for path in state.iterdir()} == {state.stat().st_uid}, (
        "root wrote as that account"
    )


def test_a_drain_may_be_longer_than_systemd_would_wait(stoker: Stoker) -> None:
    stubborn = {
        "command": ["sh", "-c", "trap '' TERM; sleep 100000"],
        "drain": {"timeout": "1s", "grace": "5s"},
    }
    stoker.write(FILE + f"  stubborn: {json.dumps(stubborn)}\n")
    stoker.until(lambda: len(stoker.workers()) == 3, "the stubborn worker is ready")
    began = time.monotonic()
    stoker.ctl("stop")
    assert time.monotonic() - began > 4.5, "it had its grace"
    assert stoker.alive() == set()
    assert stoker.property("Result") == "success"


def test_a_killed_daemon_is_started_again_and_takes_its_workers_over(stoker: Stoker) -> None:
    workers, daemon = stoker.workers(), stoker.property("MainPID")
    stoker.ctl("kill", "--kill-who=main", "--signal=KILL")
    stoker.until(lambda: stoker.property("MainPID") not in ("0", daemon), "a new daemon")
    stoker.until(lambda: stoker.workers() == workers, "the same workers, ready")
    assert stoker.alive() == workers
    assert int(stoker.property("NRestarts")) >= 1


def test_a_daemon_that_hangs_is_replaced_by_the_watchdog(stoker: Stoker) -> None:
    workers, daemon = stoker.workers(), stoker.property("MainPID")
    stoker.ctl("kill", "--kill-who=main", "--signal=STOP")
    stoker.until(lambda: stoker.property("MainPID") not in ("0", daemon), "a new daemon")
    stoker.until(lambda: stoker.workers() == workers, "the same workers, ready")
    assert stoker.alive() == workers


def test_down_is_final(stoker: Stoker) -> None:
    stoker.cli("down")
    stoker.until(lambda: stoker.property("ActiveState") == "inactive", "the unit rests")
    assert stoker.alive() == set()
    assert stoker.property("Result") == "success"
    assert stoker.property("SubState") == "dead", "and is not started again"


def test_a_daemon_without_a_good_file_waits_for_one_under_the_watchdog(stoker: Stoker) -> None:
    """Longer than the watchdog tolerates silence: a daemon that waits must give signs of life as well."""
    stoker.ctl("stop")
    stoker.write("services: {idle: {comand: sleep 1}}\n")
    stoker.ctl("start")
    daemon, began = stoker.property("MainPID"), time.monotonic()
    stoker.until(lambda: time.monotonic() - began > 7, "more than the six seconds of the watchdog")
    assert stoker.property("MainPID") == daemon, stoker.log()
    stoker.write(FILE)
    stoker.until(lambda: len(stoker.workers()) == 2, "two ready workers")


def test_the_daemon_and_its_workers_are_an_account_that_can_do_nothing_else(stoker: Stoker) -> None:
    account = int(stoker.machine.run("id", "-u", "stoker").stdout)
    for pid in {int(stoker.property("MainPID")), *stoker.workers()}:
        status = (stoker.machine.root / f"proc/{pid}/status").read_text()
        assert f"Uid:\t{account}\t{account}" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def test_a_gpu_workers_places_are_open_and_the_rest_of_the_box_is_not(stoker: Stoker) -> None:
    probe = """
for place in /tmp /var/tmp /dev/shm ~ /var/cache/stoker; do touch $place/probe || echo closed $place; done
for place in /etc /usr /root /var/lib /opt; do touch $place/probe 2>/dev/null && echo open $place; done
python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)' || echo no code can be made
head -c 1 /dev/urandom >/dev/null || echo no randomness
cat /proc/meminfo /proc/cpuinfo /sys/devices/system/node/online >/dev/null || echo no facts
cat /etc/stoker/secrets/key >/dev/null || echo no secret
echo probed
exec sleep 100000
"""
    (stoker.machine.root / "etc/stoker/secrets/key").write_text("s3cret\n")
    os.chown(
        stoker.machine.root / "etc/stoker/secrets/key",
        0,
        int(stoker.machine.run("id", "-g", "stoker").stdout),
    )
    (stoker.machine.root / "etc/stoker/secrets/key").chmod(0o640)
    probing = {"command": ["sh", "-c", probe], "envs": {"HOME": "/var/lib/stoker/home"}, "working_dir": "/"}
    stoker.write(FILE + f"  probing: {json.dumps(probing)}\n")
    stoker.until(lambda: "probed" in stoker.cli("logs", "probing").stdout, "the places are probed")
    said = stoker.cli("logs", "probing").stdout
    assert not [line for line in said.splitlines() if any(w in line for w in ("closed", "open", "no "))], said


def test_members_of_the_group_operate_it_and_others_do_not(stoker: Stoker) -> None:
    run = [
        "setpriv",
        "--clear-groups",
        "--reuid=65534",
        "env",
        f"PATH={BIN}:/usr/bin:/bin",
        "stoker",
        "status",
    ]
    group = stoker.machine.run("id", "-g", "stoker").stdout.strip()
    assert stoker.machine.run(run[0], "--regid=65534", *run[1:], check=False).returncode != 0
    member = [run[0], f"--regid={group}", *run[1:]]
    assert "generation" in stoker.machine.run(*member).stdout


def test_a_worker_of_another_user_says_that_it_is_ready(stoker: Stoker) -> None:
    """`user:` takes a daemon that is root, which is asked for by name."""
    stoker.ctl("stop")
    stoker.cli("systemd", "install", "--privileged")
    stoker.ctl("start")
    say = "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
    say += "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'READY=1'); time.sleep(100000)"
    spoken = {
        "command": ["/usr/bin/python3", "-c", say],
        "user": "stoker",
        "working_dir": "/",
        "drain": {"timeout": "1s", "grace": "1s"},
        "probes": {"startup": {"notify": True, "timeout": "20s"}},
    }
    stoker.write(FILE + f"  spoken: {json.dumps(spoken)}\n")
    stoker.until(lambda: len(stoker.workers()) == 3, "the notifying worker is ready")
    (pid,) = stoker.workers() - stoker.alive()
    assert os.stat(stoker.machine.root / f"proc/{pid}").st_uid != 0
