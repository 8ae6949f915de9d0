"""The supervisors that are compared: how each is configured, started, told of a change, and stopped."""

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

from bench_supervisor_world import family

Group = tuple[str, list[str], int]
"""Name, argv and number of copies."""


class Supervisor:
    """One contender in a directory of its own. `tick` is the period in seconds at which it looks by
    itself; kills are spread over it, so that none is favoured."""

    name = ""
    tick = 0.4

    def __init__(self, directory: Path, peers: Path) -> None:
        self.directory = directory
        self.peers = peers
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = dict(os.environ)
        self._log = (directory / "supervisor.log").open("ab")

    def configure(self, groups: list[Group]) -> None:
        """Write the configuration."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; the births tell when it has."""
        raise NotImplementedError

    def apply(self) -> None:
        """Make it take over the configuration that was written anew."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)

    def pids(self, workers: set[int]) -> list[int]:
        """Every process of its own."""
        return family(self.process.pid, workers)

    def clean_up(self) -> None:
        """End it whatever its state."""
        if self.process is not None:
            for pid in self.pids(set()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()
        self._log.close()

    def _begin(self, *argv: str | Path) -> None:
        self.process = subprocess.Popen(argv, **self._streams())

    def _call(self, *argv: str | Path) -> None:
        subprocess.run(argv, check=False, timeout=120, **self._streams())

    def _streams(self) -> dict[str, object]:
        return {
            "stdin": subprocess.DEVNULL,
            "stdout": self._log,
            "stderr": self._log,
            "env": self.environ,
            "cwd": self.directory,
        }


class Stoker(Supervisor):
    """N services of one worker each; it watches its file."""

    name = "stoker"
    pause: str | None = "1ms"
    """Between restarts: next to none, so that the replacement itself is measured; None: its default."""
    program = Path(sys.executable).with_name("stoker")

    def configure(self, groups: list[Group]) -> None:
        services = {
            name: {
                "command": argv,
                **({"restart": {"backoff": self.pause, "max_backoff": self.pause}} if self.pause else {}),
                "scaling": {"min_replicas": count, "max_replicas": count},
            }
            for name, argv, count in groups
        }
        draft = self.directory / "draft"
        draft.write_text(json.dumps({"name": "bench", "services": services}))  # JSON is YAML
        draft.replace(self.directory / "stoker.yaml")

    def start(self) -> None:
        places = ["--socket", self.directory / "s", "--state-dir", self.directory / "state"]
        self._begin(self.program, *places, "up", self.directory / "stoker.yaml")

    def apply(self) -> None:
        return

    def pids(self, workers: set[int]) -> list[int]:
        own = super().pids(workers)
        # The router outlives the daemon, so it may have been given to another parent.
        state = str(self.directory / "state").encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if state in path.read_bytes() and int(path.parent.name) not in own:
                    own.append(int(path.parent.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return own


class StokerPool(Stoker):
    """One service of N workers."""

    name = "stoker-pool"


class Circus(Supervisor):
    """Looks at its processes every five seconds."""

    name = "circus"
    tick = 5.0
    more = ""
    """Further options of a watcher."""

    def configure(self, groups: list[Group]) -> None:
        text = f"[circus]\nendpoint = ipc://{self.directory}/c\npubsub_endpoint = ipc://{self.directory}/p\n"
        for name, argv, count in groups:
            text += (
                f"[watcher:{name}]\ncmd = {argv[0]}\nargs = {' '.join(argv[1:])}\nnumprocesses = {count}\n"
                f"{self.more}\n"
            )
        (self.directory / "circus.ini").write_text(text)

    def start(self) -> None:
        self._begin(self.peers / "venv/bin/circusd", self.directory / "circus.ini")

    def apply(self) -> None:
        endpoint = ("--timeout", "100", "--endpoint", f"ipc://{self.directory}/c")
        self._call(self.peers / "venv/bin/circusctl", *endpoint, "reloadconfig", "--waiting")


class Supervisord(Supervisor):
    """Looks once a second."""

    name = "supervisord"
    tick = 1.0
    more = ""
    """Further options of a program."""

    def configure(self, groups: list[Group]) -> None:
        socket = f"{self.directory}/s"
        text = (
            f"[unix_http_server]\nfile={socket}\n"
            f"[supervisord]\nlogfile={self.directory}/log\npidfile={self.directory}/pid\nnodaemon=true\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{socket}\n"
        )
        for name, argv, count in groups:
            text += (
                f"[program:{name}]\ncommand={' '.join(argv)}\nnumprocs={count}\nautorestart=true\n"
                "process_name=%(program_name)s_%(process_num)d\n"
                f"stdout_logfile=/dev/null\nstderr_logfile=/dev/null\n{self.more}"
            )
        (self.directory / "supervisord.conf").write_text(text)

    def start(self) -> None:
        self._begin(self.peers / "venv/bin/supervisord", "-n", "-c", self.directory / "supervisord.conf")

    def apply(self) -> None:
        self._call(self.peers / "venv/bin/supervisorctl", "-c", self.directory / "supervisord.conf", "update")


class Pm2(Supervisor):
    """Node; told of children's deaths at once."""

    name = "pm2"

    def __init__(self, directory: Path, peers: Path) -> None:
        super().__init__(directory, peers)
        self.environ |= {"PM2_HOME": f"{directory}/pm2", "PM2_DISABLE_VERSION_CHECK": "1"}
        self._program = peers / "node_modules/.bin/pm2"

    def configure(self, groups: list[Group]) -> None:
        plain = {
            "interpreter": "none",
            "exec_mode": "fork",
            "out_file": "/dev/null",
            "error_file": "/dev/null",
        }
        apps = [
            {"name": name, "script": argv[0], "args": argv[1:], "instances": count, **plain}
            for name, argv, count in groups
        ]
        (self.directory / "eco.config.js").write_text("module.exports=" + json.dumps({"apps": apps}))

    def start(self) -> None:
        self._begin(self._program, "start", self.directory / "eco.config.js")

    def apply(self) -> None:
        self._call(self._program, "startOrReload", self.directory / "eco.config.js")

    def stop(self) -> None:
        self._call(self._program, "kill")

    def pids(self, workers: set[int]) -> list[int]:
        try:
            return family(int((self.directory / "pm2/pm2.pid").read_text()), workers)
        except (FileNotFoundError, ValueError):
            return []


LOOP = """
import json, os, select, signal, subprocess, sys
groups, poll, held = json.load(open(sys.argv[1])), select.epoll(), {}
signal.signal(signal.SIGTERM, lambda *_: sys.exit())

BIRTH

def spawn(argv):
    pid = birth(argv)
    descriptor = os.pidfd_open(pid)
    held[descriptor] = argv, pid
    poll.register(descriptor, select.EPOLLIN)

for argv, count in groups:
    for _ in range(count):
        spawn(argv)
try:
    while True:
        for descriptor, _ in poll.poll():
            argv, pid = held.pop(descriptor)
            os.waitpid(pid, 0)
            os.close(descriptor)
            spawn(argv)
finally:
    for _, pid in held.values():
        os.kill(pid, signal.SIGKILL)
"""

SPAWN = """
def birth(argv):
    return os.posix_spawn(argv[0], argv, {}, setsid=True)
"""

POPEN = """
def birth(argv):
    with open(f"{sys.argv[1]}.{len(held)}.log", "ab") as log:
        child = subprocess.Popen(argv, cwd="/", env={}, stdout=log, stderr=log, start_new_session=True)
    child.returncode = 0  # it is waited for below
    return child.pid
"""


class Bare(Supervisor):
    """The floor: nothing but posix_spawn, pidfds and epoll. It cannot change anything."""

    name = "bare"
    birth = SPAWN

    def configure(self, groups: list[Group]) -> None:
        (self.directory / "bare.json").write_text(json.dumps([(argv, count) for _, argv, count in groups]))

    def start(self) -> None:
        self._begin(sys.executable, "-c", LOOP.replace("BIRTH", self.birth), self.directory / "bare.json")

    def apply(self) -> None:
        return


class Popen(Bare):
    """The loop that one writes: subprocess.Popen with a session and a log for each."""

    name = "popen"
    birth = POPEN


ALL = {kind.name: kind for kind in (Bare, Popen, Stoker, StokerPool, Circus, Supervisord, Pm2)}


def install(peers: Path) -> None:
    """Put the peers into that directory: a virtual environment and node modules."""
    venv.create(peers / "venv", with_pip=True)
    subprocess.run(
        [peers / "venv/bin/pip", "install", "-q", "circus", "supervisor", "setuptools<81"], check=True
    )
    subprocess.run(["npm", "install", "--silent", "--prefix", peers, "pm2"], check=True)
