"""Kills daemon, router and workers of a real box at random, under load, and checks what must hold.

Shared by the short test beside it and by the long soak in tests/bench. Each deed is followed by the next one
after a moment; every few deeds the box is left in peace until it is whole again, and the laws are checked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stoker.plugin.record_log import RecordLog
from system.harness import Box

WORKER = Path(__file__).with_name("worker.py")
MOST = {"web": 4 + 1, "nap": 2 + 1, "infer": 2 + 1}
"""Living workers per service: max_replicas, and the surge of an update."""
PATIENCE = 60.0
"""Seconds in which a box that is left in peace must be whole again."""


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket: the status document without the price of a command."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("stoker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def status_of(box: Box, timeout: float = 5.0) -> dict[str, Any] | None:
    """The status document, None while no daemon answers."""
    connection = Unix(box.socket, timeout)
    try:
        connection.request("GET", "/v1/status")
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def processes(pattern: str, part: str = "environ") -> dict[int, str]:
    """pid -> the pattern's first group, of all processes in whose environment (or `cmdline`) it is found."""
    found, wanted = {}, re.compile(pattern.encode())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if match := wanted.search((entry / part).read_bytes()):
                    found[int(entry.name)] = match[1].decode()
    return found


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no good answer."""

    began: float
    ended: float
    what: str


@dataclass(slots=True)
class Outage:
    """A router's death: from its kill until its address answers again. What it had in its hands when it
    `died` is cut; what came after that waits for the next one, for the address is never closed."""

    began: float
    died: float = float("inf")
    ended: float = float("inf")


class Clients:
    """Threads that send GETs with `pause` seconds between them, each over a connection of its own, and
    remember what failed."""

    def __init__(self, url: str, threads: int = 4, pause: float = 0.0) -> None:
        self._pause = pause
        host = url.removeprefix("http://").rstrip("/")
        self._host, self._port = host.rsplit(":", 1)
        self.answered = 0
        self.slowest = 0.0
        self.failures: list[Failure] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)

    def reachable(self) -> bool:
        """Whether a request is answered: that somebody listens is not enough, for the daemon keeps the
        address open while there is no router."""
        connection = http.client.HTTPConnection(self._host, int(self._port), timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _send(self) -> None:
        while not self._over.is_set():
            began, error = time.monotonic(), ""
            connection = http.client.HTTPConnection(self._host, int(self._port), timeout=75)
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    error = f"status {answer.status} {answer.reason}"
            except (OSError, http.client.HTTPException) as raised:
                error = repr(raised)
            finally:
                connection.close()
            ended = time.monotonic()
            with self._lock:
                self.slowest = max(self.slowest, ended - began)
                if error:
                    self.failures.append(Failure(began, ended, error))
                else:
                    self.answered += 1
            if error or self._pause:
                self._over.wait(max(self._pause, 0.02 if error else 0.0))


@dataclass
class Tally:
    """What a run has seen."""

    seconds: float = 0.0
    deeds: Counter[str] = field(default_factory=Counter)
    calms: int = 0
    answered: int = 0
    slowest: float = 0.0
    lost: list[Failure] = field(default_factory=list)
    """Requests that failed though no router died under them."""
    cut: int = 0
    """Requests that failed because the router died under them."""
    outage: float = 0.0
    """Seconds without a router, in all."""
    most: Counter[str] = field(default_factory=Counter)
    """The most living workers of each service at once."""
    last: list[str] = field(default_factory=list)
    """The last deeds: when, also by the monotonic clock, and what."""
    daemon_descriptors: list[int] = field(default_factory=list)
    router_descriptors: list[int] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "seconds": round(self.seconds, 1),
            "deeds": dict(self.deeds),
            "calms": self.calms,
            "answered": self.answered,
            "slowest_s": round(self.slowest, 3),
            "lost": [failure.what for failure in self.lost[:20]],
            "cut_by_router_kills": self.cut,
            "seconds_without_router": round(self.outage, 2),
            "last_deeds": self.last,
            "most_workers": dict(self.most),
            "daemon_descriptors": self.daemon_descriptors[:1] + self.daemon_descriptors[-1:],
            "router_descriptors": self.router_descriptors[:1] + self.router_descriptors[-1:],
        }


class Chaos:
    """One box with three services, and what is done to it. `gpu`: the box has devices for two replicas."""

    def __init__(self, box: Box, seed: int, *, gpu: bool) -> None:
        self.box = box
        self.random = random.Random(seed)
        self.gpu = gpu
        self.tally = Tally()
        self._version = 0
        self._outages: list[Outage] = []
        self._watching = threading.Event()
        self._write()

    # -- the run ---------------------------------------------------------------------------------------

    def run(self, seconds: float) -> Tally:
        """Chaos for that long, then peace; raises AssertionError where a law is broken."""
        self.box.up()
        self._calm()
        web = next(s for s in self._status()["services"] if s["name"] == "web")["url"]
        began = time.monotonic()
        counting = threading.Thread(target=self._count, daemon=True)
        counting.start()
        try:
            with Clients(web) as clients:
                while time.monotonic() - began < seconds:
                    for _ in range(self.random.randint(2, 6)):
                        self._deed(clients)
                        time.sleep(self.random.choice((0.0, 0.1, 0.5, 1.5)))
                    self._calm()
                    self._judge(clients)
        finally:
            self._watching.set()
            counting.join(5)
            self.tally.seconds = time.monotonic() - began
        self._calm()
        self._judge(clients)
        return self.tally

    def _deed(self, clients: Clients) -> None:
        deeds: dict[str, tuple[int, Callable[[], None]]] = {
            "kill a worker": (6, self._kill_worker),
            "kill the daemon": (4, self._kill_daemon),
            "freeze a worker": (2, self._freeze_worker),
            "change the file": (3, self._change),
            "break the file": (1, self._break_file),
            "a revision that fails": (1, self._fail_revision),
            "kill the router": (1, lambda: self._kill_router(clients)),
            "kill router and daemon": (1, lambda: self._kill_both(clients)),
            "kill daemon and worker": (2, self._kill_daemon_and_worker),
            "replace the daemon": (1, self._reexec),
        }
        (name,) = self.random.choices(list(deeds), [weight for weight, _ in deeds.values()])
        self.tally.deeds[name] += 1
        self.tally.last = [*self.tally.last[-11:], f"{time.strftime('%T')} {time.monotonic():.2f} {name}"]
        deeds[name][1]()

    # -- deeds -----------------------------------------------------------------------------------------

    def _workers(self) -> dict[int, str]:
        instance = (self.box.state_dir / "instance").read_text().strip()
        return processes(rf"STOKER_ID={instance}:[^/]*/([\w-]+):")

    def _router(self) -> list[int]:
        instance = (self.box.state_dir / "instance").read_text().strip()
        return list(processes(rf"(stoker_router)\0.*{instance}", "cmdline"))

    def _kill_worker(self) -> None:
        pids = sorted(self._workers())
        if pids:
            _signal(self.random.choice(pids), signal.SIGKILL)

    def _freeze_worker(self) -> None:
        pids = sorted(self._workers())
        if not pids:
            return
        pid = self.random.choice(pids)
        _signal(pid, signal.SIGSTOP)
        time.sleep(self.random.choice((0.1, 0.6, 2.0)))
        _signal(pid, signal.SIGCONT)

    def _kill_daemon(self) -> None:
        self.box.kill()
        time.sleep(self.random.choice((0.0, 0.0, 0.2, 1.0)))
        self.box.begin()
        if self.random.random() < 0.3:  # and again, in the middle of its beginning
            time.sleep(self.random.uniform(0.1, 0.8))
            self.box.kill()
            self.box.begin()

    def _kill_daemon_and_worker(self) -> None:
        self.box.kill()
        self._kill_worker()
        self.box.begin()

    def _kill_router(self, clients: Clients) -> None:
        for pid in self._router():
            outage = Outage(time.monotonic())
            self._outages.append(outage)
            _signal(pid, signal.SIGKILL)
            deadline = time.monotonic() + PATIENCE
            while _state(pid) not in ("Z", "X", ""):
                time.sleep(0.001)
            outage.died = time.monotonic()
            while not clients.reachable():
                assert time.monotonic() < deadline, f"no router again\n{self.box.output()}"
                time.sleep(0.005)
            outage.ended = time.monotonic()
            self.tally.outage += outage.ended - outage.began

    def _kill_both(self, clients: Clients) -> None:
        self.box.kill()
        self.box.begin()
        self._kill_router(clients)

    def _change(self) -> None:
        self._version += 1
        self._write()

    def _break_file(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not _in_force(status_of(self.box)) and time.monotonic() < deadline:
            time.sleep(0.05)  # one that begins with a broken file ends, as it should
        self.box.write("services: {web: {comand: [")
        time.sleep(self.random.uniform(0.0, 0.5))
        self._write()

    def _fail_revision(self) -> None:
        self._write(broken=True)
        time.sleep(self.random.uniform(0.3, 3.0))
        self._write()

    def _reexec(self) -> None:
        self.box.run("reexec", check=False)  # it may be on its way up or down just now

    def _write(self, *, broken: bool = False) -> None:
        command = [sys.executable, str(WORKER), "--port", "{port}"]
        quick = {
            "drain": {"timeout": "5s", "grace": "2s"},
            "restart": {"backoff": "50ms", "max_backoff": "500ms", "crash_loop": 3},
            "probes": {
                "startup": {"http": "/", "timeout": "20s"},
                "liveness": {"http": "/", "period": "300ms", "timeout": "500ms", "failures": 3},
            },
            "envs": {"VERSION": str(self._version)},
            "priority": self._version,
        }
        web = {
            "command": ["sh", "-c", "echo broken; exit 3"] if broken else [*command, "--slow", "0.01"],
            "scaling": {"min_replicas": 4, "max_replicas": 4},
            "traffic": {"concurrency": 2},
            **quick,
        }
        nap = {"command": command, "scaling": {"min_replicas": 0, "max_replicas": 2}, **quick}
        infer = {
            "command": command,
            "resources": {"gpu": 1},
            "scaling": {"min_replicas": 2, "max_replicas": 2},
            **quick,
        }
        services = {"web": web, "nap": nap, **({"infer": infer} if self.gpu else {})}
        self.box.write(json.dumps({"name": "chaos", "services": services}))

    # -- laws ------------------------------------------------------------------------------------------

    def _status(self) -> dict[str, Any]:
        status = status_of(self.box)
        assert status is not None, self.box.output()
        return status

    def _faults(self) -> list[str]:
        """What is not as it should be in a box that is left in peace: wanted replicas that are not there, and
        whatever was left behind."""
        status = status_of(self.box)
        if status is None:
            return ["the daemon does not answer"]
        if status["daemon"]["config"]["state"] != "in-force":
            return ["the configuration is rejected"]
        faults = []
        for service in status["services"]:
            phases = [(r["phase"], r["revision"]) for r in service["replicas"]]
            wanted = max(service["target"], service["min_replicas"])
            if phases != [("ready", service["revision"])] * wanted or service["rejected"]:
                faults.append(f"{service['name']} is {phases}, {service['rejected']}")
            if service["priority"] != self._version:
                faults.append(f"{service['name']} is of file {service['priority']}, not {self._version}")
        replicas = [replica for service in status["services"] for replica in service["replicas"]]
        workers, known = set(self._workers()), {replica["pid"] for replica in replicas}
        if workers != known:
            faults.append(f"living workers {workers}, known ones {known}")
        ids = {replica["id"] for replica in replicas}
        records = set(RecordLog(self.box.state_dir / "replicas.jsonl").read())
        if records != ids:
            faults.append(f"records {records}, replicas {ids}")
        held = [set(device["reserved_by"]) for device in status["devices"]]
        faults += [f"a device is held by {owners}" for owners in held if len(owners) > 1 or not owners <= ids]
        zombies = [pid for pid in _children(status["daemon"]["pid"]) if _state(pid) == "Z"]
        routers = self._router()
        return (
            faults + [f"zombies: {zombies}"] * bool(zombies) + [f"routers: {routers}"] * (len(routers) != 1)
        )

    def _killed_a_revision(self) -> bool:
        """Whether our own kills, three in a row of the same new replica, passed for a revision that crashes:
        it is rightly taken back until the file changes."""
        status = status_of(self.box) or {"services": []}
        reasons = [(service["rejected"] or {}).get("reason", "") for service in status["services"]]
        return any("killed by SIGKILL" in reason for reason in reasons)

    def _calm(self) -> None:
        """Wait until the box is whole and nothing is left over; then count descriptors."""
        deadline = time.monotonic() + PATIENCE
        while faults := self._faults():
            assert time.monotonic() < deadline, f"not whole in {PATIENCE:g} s: {faults}\n{self.box.output()}"
            if self.box.daemon is not None and self.box.daemon.poll() is not None:
                raise AssertionError(f"the daemon ended by itself\n{self.box.output()}")
            if self._killed_a_revision():
                self._change()
            time.sleep(0.1)
        tally = self.tally
        tally.calms += 1
        for pid, counts, slack in (
            (self._status()["daemon"]["pid"], tally.daemon_descriptors, 16),
            (self._router()[0], tally.router_descriptors, 64),
        ):
            counts.append(descriptors(pid))
            assert counts[-1] <= counts[0] + slack, f"descriptors of {pid} grow: {counts}"

    def _judge(self, clients: Clients) -> None:
        """Which failures of requests a router's death explains: no later ones."""
        self.tally.answered, self.tally.slowest = clients.answered, clients.slowest
        explained = [
            failure
            for failure in clients.failures
            if any(failure.began <= o.died and failure.ended >= o.began for o in self._outages)
        ]
        self.tally.cut = len(explained)
        self.tally.lost = [failure for failure in clients.failures if failure not in explained]
        assert not self.tally.lost, f"lost requests: {self.tally.lost[:5]}\n{self.box.output()}"

    def _count(self) -> None:
        """Count living workers all the time: none twice, never more than allowed."""
        while not self._watching.wait(0.1):
            for name, count in Counter(self._workers().values()).items():
                self.tally.most[name] = max(self.tally.most[name], count)


def check_counts(tally: Tally) -> None:
    """Raise AssertionError if there were ever more workers than allowed."""
    for name, count in tally.most.items():
        assert count <= MOST[name], f"{count} workers of {name} at once"


def _in_force(status: dict[str, Any] | None) -> bool:
    """Whether a daemon has read its file: it answers before that."""
    return status is not None and status["daemon"]["config"]["generation"] > 0


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
