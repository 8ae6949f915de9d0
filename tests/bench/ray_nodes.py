"""A Ray cluster whose nodes are network namespaces with addresses of their own, for bench_ray_nodes.py.

The box with the daemon and Ray's head is one namespace too, with the bridge that joins all: the machine's own
network is not touched. What runs ends with who made it. Needs root, ray, and ip, nsenter, setpriv, unshare.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NET = "10.77.0"
BOX = f"{NET}.1"
PORT = 6379
FAST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
RAY = str(Path(sys.executable).with_name("ray"))


class Host:
    """One network namespace, with a directory and shared memory of its own for Ray, held by a process that
    does nothing."""

    def __init__(self, directory: Path) -> None:
        apart = ["unshare", "--net", "--mount", "--propagation=private"]
        words = ["setpriv", "--pdeathsig", "KILL", *apart, "sleep", "infinity"]
        own = os.stat("/proc/self/ns/net").st_ino
        self._holder = subprocess.Popen(words, start_new_session=True)
        while self.space == own:
            time.sleep(0.01)
        self.run("ip", "link", "set", "lo", "up")
        for path in (str(directory), "/dev/shm"):
            self.run("mount", "-t", "tmpfs", "tmpfs", path)

    @property
    def pid(self) -> int:
        """Of who holds it."""
        return self._holder.pid

    @property
    def space(self) -> int:
        """What tells its namespace from others."""
        return os.stat(f"/proc/{self.pid}/ns/net").st_ino

    @property
    def inside(self) -> tuple[str, ...]:
        """A command that executes another one in it."""
        return ("nsenter", "--net", "--mount", f"--target={self.pid}", "--")

    def run(self, *words: str) -> None:
        subprocess.run([*self.inside, *words], check=True)

    def processes(self) -> list[int]:
        """All in it but its holder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "ns" / "net").stat().st_ino == self.space and int(entry.name) != self.pid:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def end(self) -> None:
        """Everything in it, and itself."""
        for _ in range(20):
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
            if not self.processes():
                break
        self._holder.kill()
        self._holder.wait()


class Cluster:
    """`count` nodes with four slots each, and a head without any."""

    def __init__(self, place: Path, count: int) -> None:
        (place / "ray").mkdir()
        self._place, self._parts = place, []
        self.environ = {
            "RAY_TMPDIR": str(place), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "120",
        }  # fmt: skip
        self.address = f"{BOX}:{PORT}"
        self.box = Host(place / "ray")
        self.box.run("ip", "link", "add", "br0", "type", "bridge")
        self.box.run("ip", "addr", "add", f"{BOX}/24", "dev", "br0")
        self.box.run("ip", "link", "set", "br0", "up")
        self.nodes = [self._join(number) for number in range(count)]
        head = ["--head", f"--port={PORT}", f"--system-config={json.dumps(FAST)}"]
        self._ray(self.box, BOX, [*head, "--include-dashboard=false", "--num-cpus=0"])
        self._until_nodes(1)
        for number, node in enumerate(self.nodes):
            slots = json.dumps({"slot": 4})
            words = [f"--address={self.address}", "--num-cpus=1", f"--resources={slots}"]
            self._ray(node, self.address_of(number), words)
        self._until_nodes(count + 1)

    def address_of(self, number: int) -> str:
        return f"{NET}.{number + 2}"

    def _join(self, number: int) -> Host:
        host, link = Host(self._place / "ray"), f"node{number}"
        self.box.run(
            "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)
        )
        self.box.run("ip", "link", "set", link, "master", "br0", "up")
        host.run("ip", "addr", "add", f"{self.address_of(number)}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def _ray(self, host: Host, address: str, words: list[str]) -> None:
        common = [f"--node-ip-address={address}", "--object-store-memory=80000000", "--num-gpus=0", "--block"]
        with (self._place / "log").open("ab") as log:
            part = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *host.inside, RAY, "start", *words, *common],
                env={**os.environ, **self.environ, "HOME": str(self._place)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._parts.append(part)

    def _until_nodes(self, count: int) -> None:
        until = time.monotonic() + 90
        while self.alive() < count:
            if time.monotonic() > until:
                raise SystemExit(f"Ray does not come up:\n{(self._place / 'log').read_text()[-3000:]}")
            time.sleep(0.2)

    def alive(self) -> int:
        """Nodes that Ray takes for alive."""
        text = (
            "import ray._private.services as s, sys; from ray._raylet import GcsClient\n"
            "print(sum(n.state == 0 for n in GcsClient(address=sys.argv[1]).get_all_node_info().values()))"
        )
        done = subprocess.run(
            [*self.box.inside, sys.executable, "-c", text, self.address], capture_output=True, text=True,
            env={**os.environ, **self.environ}, check=False, timeout=60,
        )  # fmt: skip
        return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.split() else 0

    def cut(self, number: int) -> None:
        """Take its cable away; everything there goes on."""
        self.box.run("ip", "link", "set", f"node{number}", "down")

    def heal(self, number: int) -> None:
        """Plug it in again."""
        self.box.run("ip", "link", "set", f"node{number}", "up")

    def kill(self, number: int) -> None:
        """Power off: the cable first, so that nobody is told by a closed connection."""
        self.cut(number)
        self.nodes[number].end()

    def close(self) -> None:
        for host in (*self.nodes, self.box):
            if Path(f"/proc/{host.pid}/ns/net").exists():
                host.end()
        for part in self._parts:
            part.wait(20)
