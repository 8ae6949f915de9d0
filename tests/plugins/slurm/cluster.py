"""A real Slurm cluster of two nodes on this machine: munged, slurmctld, two slurmd, GPUs that are none.

Everything listens on loopback, on free ports, and lives in one directory. It needs root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CONF = """
ClusterName=stoker
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={place}/munge.sock
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool.%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerNode=100
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SlurmdTimeout={patience}
KillWait=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=8000 Gres=gpu:a100:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=8000 Gres=gpu:a100:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GRES = """
NodeName=n1 Name=gpu Type=a100 File={place}/gpu[0-1]
NodeName=n2 Name=gpu Type=a100 File={place}/gpu[2-3]
"""


def missing() -> str:
    """Why there can be none here, "" if there can."""
    if os.geteuid() != 0:
        return "a Slurm cluster needs root"
    away = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"needs Slurm: there is no {away[0]}" if away else ""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Cluster:
    """Two nodes, n1 and n2, with 16 processors and two GPUs each. `patience`: seconds after which a node that
    does not answer is down."""

    def __init__(self, place: Path, *, patience: int = 5) -> None:
        self.place = place
        self.environ = {"PATH": _path(), "SLURM_CONF": str(place / "slurm.conf"), "LANG": "C.UTF-8"}
        self._patience = patience
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        self.place.chmod(0o755)
        (self.place / "state").mkdir()
        key = self.place / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for number in range(4):
            os.mknod(self.place / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        values = {
            "place": self.place,
            "host": socket.gethostname().partition(".")[0],
            "ports": _free_ports(3),
            "patience": self._patience,
        }
        (self.place / "slurm.conf").write_text(CONF.format(**values))
        (self.place / "gres.conf").write_text(GRES.format(**values))
        munge = ["munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}"]
        munge += [f"--socket={self.place}/munge.sock", f"--pid-file={self.place}/munge.pid"]
        munge += [f"--log-file={self.place}/munge.log", f"--seed-file={self.place}/munge.seed"]
        try:
            self._begin("munged", *munge)
            _until((self.place / "munge.sock").exists, "munged")
            self._begin("slurmctld", "slurmctld", "-D")
            for node in ("n1", "n2"):
                self.begin_node(node)
            _until(lambda: self.states() == {"n1": "idle", "n2": "idle"}, f"two idle nodes in {self.place}")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def run(self, *argv: str) -> str:
        """Output of one of Slurm's commands."""
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of each node; {} while slurmctld does not answer."""
        argv = ["sinfo", "-h", "-N", "-o", "%N %t"]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=30, check=False)
        return dict(line.split() for line in done.stdout.splitlines())

    def begin_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._begin(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """SIGKILL for a node's slurmd. What it has started lives on, as on a node that is cut off."""
        process = self._running.pop(node)
        process.kill()
        process.wait()

    def end(self) -> None:
        """End all of it."""
        for name in reversed(list(self._running)):
            process = self._running.pop(name)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _begin(self, name: str, *argv: str) -> None:
        with (self.place / f"{name}.out").open("ab") as output:
            self._running[name] = subprocess.Popen(
                argv, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
