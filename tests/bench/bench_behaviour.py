"""What becomes of process trees, crash loops, stubborn workers and the environment: facts, not times.

    python tests/bench/bench_supervisor_daemon.py --install --peers DIR       # the peers, once
    python tests/bench/bench_behaviour.py [NAME...] --peers DIR [--loop 30]

One worker with a tree: a child in its group (g), one in a session of its own (s), a daemon that has forked
twice (d), and another that has put on an environment of its own as well (w). Seen from outside: who of it is
left after a kill -9 of the worker, after a stop in good order, and after a kill -9 of the supervisor, its
restart and a stop; how many workers run at a time in between; what reaches a worker that was not declared for
it; how often one is started that dies after 20 ms. `-best` names are peers with their options for this on;
`stoker-bare` is Stoker where it can make no cgroup. Needs a C compiler, and root for `stoker-bare`.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench_supervisor_peers import Circus, Pm2, Stoker, Supervisor, Supervisord
from bench_supervisor_world import World, worker_program

RESULTS = Path(__file__).parent / "results"
SECRET = "AN_OPERATORS_TOKEN"
LATEST = 60.0
"""Seconds after which a worker that ignores SIGTERM counts as never ended."""


class DefaultStoker(Stoker):
    """With its own pauses between restarts."""

    pause = None


class BareStoker(DefaultStoker):
    """In a mount namespace without cgroups."""

    name = "stoker-bare"

    def start(self) -> None:
        hidden = 'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$@"'
        places = ["--socket", self.directory / "s", "--state-dir", self.directory / "state"]
        program = [self.program, *places, "up", self.directory / "stoker.yaml"]
        self._begin("unshare", "-m", "sh", "-c", hidden, "sh", *program)


class BestCircus(Circus):
    """Stops children as well."""

    name = "circus-best"
    more = "stop_children = True"


class BestSupervisord(Supervisord):
    """Signals go to the group."""

    name = "supervisord-best"
    more = "stopasgroup=true\nkillasgroup=true\n"


ALL = {
    kind.name: kind
    for kind in (DefaultStoker, BareStoker, Circus, BestCircus, Supervisord, BestSupervisord, Pm2)
}  # fmt: skip


class Scene:
    """A supervisor with one worker, in a directory of its own. All that it started is gone afterwards."""

    def __init__(self, kind: type[Supervisor], peers: Path, wishes: Iterable[str]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="b-")
        directory = Path(self._place.name)
        self.world = World(directory)
        self.supervisor = kind(directory, peers)
        self.supervisor.environ[SECRET] = "leak-me"
        self._argv = [worker_program(directory, "tree"), str(self.world.fifo), "t", *wishes]

    def __enter__(self) -> "Scene":
        self.supervisor.configure([("t", self._argv, 1)])
        self.supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.clean_up()
        self.world.end()
        self._place.cleanup()

    def leaders(self) -> list[int]:
        """The pids of the workers themselves."""
        return [pid for pid, (tag, _) in self.world.alive.items() if tag == "t"]

    def kinds(self, pids: Iterable[int]) -> str:
        """Which of these processes live, by their letters; L is the worker itself."""
        tags = [self.world.alive[pid][0] for pid in pids if pid in self.world.alive]
        return " ".join(sorted(tag.partition("/")[2] or "L" for tag in tags)) or "none"

    def whole(self, count: int = 5) -> set[int]:
        """Wait until a tree of so many is there; returns it."""
        if not self.world.until(lambda: len(self.world.alive) >= count, 30):
            raise RuntimeError(f"no tree: {self.kinds(self.world.alive)}")
        self.world.settle(0.5)
        return set(self.world.alive)

    def stop(self) -> None:
        """In good order, until nothing ends any more."""
        self.supervisor.stop()
        self.world.until(lambda: not self.world.alive, 20)
        self.world.settle(1.0)  # and its own end

    def groups(self) -> int:
        """How many cgroup directories of Stoker's are there; nobody else here makes any."""
        instance = Path(self._place.name, "state", "instance")
        name = f"stoker-{instance.read_text().strip()}" if instance.exists() else "\0"
        return sum(name in found for found, _, _ in os.walk("/sys/fs/cgroup"))

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor alone."""
        pid = self.supervisor.pids(set(self.world.alive))[0]
        os.kill(pid, signal.SIGKILL)
        if pid == self.supervisor.process.pid:
            self.supervisor.process.wait()
        self.world.settle(1.0)


def hygiene(scene: Scene) -> dict[str, object]:
    """What a worker was given."""
    scene.whole()
    (pid,) = scene.leaders()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    session = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[3]
    environ = [one for one in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if one]
    ignored = int(status["SigIgn"], 16)
    names = [signal.Signals(number + 1).name for number in range(31) if ignored >> number & 1]
    return {
        "variables": len(environ),
        "the supervisor's secret": "leaks" if any(SECRET.encode() in one for one in environ) else "no",
        "ignored signals": " ".join(names) or "none",
        "session of its own": "yes" if int(session) == pid else "no",
        "descriptors beyond 2": sum(int(name) > 2 for name in os.listdir(f"/proc/{pid}/fd")),
    }


def killed_worker(scene: Scene) -> dict[str, object]:
    """kill -9 of the worker, then a stop."""
    old = scene.whole()
    os.kill(scene.leaders()[0], signal.SIGKILL)
    scene.world.until(lambda: sum(birth.tag == "t" for birth in scene.world.births) >= 2, 15)
    scene.world.settle(1.5)
    left = scene.kinds(old)
    scene.stop()
    return {"left by a killed worker": left, "left after a stop": scene.kinds(scene.world.alive)}


def killed_supervisor(scene: Scene) -> dict[str, object]:
    """kill -9 of the supervisor, its restart, then a stop."""
    scene.whole()
    scene.kill_supervisor()
    scene.supervisor.start()
    scene.world.settle(4.0)
    workers = len(scene.leaders())
    scene.stop()
    left = scene.kinds(scene.world.alive)
    return {"workers after its kill -9 and restart": workers, "left after that and a stop": left}


def stubborn(scene: Scene) -> dict[str, object]:
    """A worker that ignores SIGTERM."""
    scene.whole(1)
    scene.world.settle(2.0)
    began = time.monotonic()
    scene.supervisor.stop()
    ended = scene.world.until(lambda: not scene.world.alive, LATEST)
    took = f"{time.monotonic() - began:.1f} s" if ended else f"never ({LATEST:.0f} s)"
    return {"a stubborn one ends after": took}


def crash_loop(scene: Scene, seconds: float) -> dict[str, object]:
    """A worker that dies after 20 ms."""
    scene.whole(1)
    first = scene.world.births[0].at
    scene.world.settle(seconds)
    births = [birth.at - first for birth in scene.world.births]
    return {
        f"crash loop: starts in {seconds:.0f} s": len(births),
        "the last of them at": f"{births[-1]:.1f} s",
    }


def all_of(kind: type[Supervisor], peers: Path, loop: float) -> dict[str, object]:
    """Every scene with one contender."""
    scenes: list[tuple[Callable[[Scene], dict[str, object]], list[str]]] = [
        (hygiene, ["tree"]),
        (killed_worker, ["tree"]),
        (killed_supervisor, ["tree"]),
        (stubborn, ["stubborn"]),
        (lambda scene: crash_loop(scene, loop), ["die=20"]),
    ]
    found: dict[str, object] = {}
    left = 0
    for play, wishes in scenes:
        with Scene(kind, peers, wishes) as scene:
            found |= play(scene)
            if scene.world.alive:
                scene.stop()
            scene.world.settle(1.0)
            left += scene.groups()
    found["cgroup directories left"] = left
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    parser.add_argument("--peers", type=Path, default=RESULTS / "peers", help="where the peers are installed")
    parser.add_argument("--loop", type=float, default=30.0, help="seconds of the crash loop")
    parser.add_argument("--out", type=Path, default=RESULTS / "behaviour.json")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ALL):
        parser.error(f"no contender {', '.join(unknown)}")
    results = {}
    for name in given.names or ALL:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = all_of(ALL[name], given.peers.resolve(), given.loop)
    print("| | " + " | ".join(results) + " |\n" + "|---" * (len(results) + 1) + "|")
    for fact in next(iter(results.values())):
        print(f"| {fact} | " + " | ".join(str(found[fact]) for found in results.values()) + " |")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
