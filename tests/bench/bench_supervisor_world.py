"""What the supervisor benchmark sees of the world: births and deaths of workers, and what a process costs.

The supervisors' own idea of their state is never asked.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Birth:
    """`at` is monotonic seconds by the worker's own clock."""

    tag: str
    pid: int
    at: float


class World:
    """Workers tell of their birth through a FIFO; their deaths are seen through pidfds."""

    def __init__(self, directory: Path) -> None:
        self.fifo = directory / "births"
        os.mkfifo(self.fifo)
        self._reader = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._keeper = os.open(self.fifo, os.O_WRONLY)  # so that it never ends
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._pids: dict[int, int] = {}
        self.births: list[Birth] = []
        self.alive: dict[int, tuple[str, int]] = {}
        """pid -> tag and pidfd, oldest first."""

    def look(self, timeout: float = 0.0) -> None:
        """Take in what has happened, waiting at most so long for something to happen."""
        for descriptor, _ in self._poll.poll(timeout * 1000):
            if descriptor == self._reader:
                *lines, self._rest = (self._rest + os.read(self._reader, 1 << 16)).split(b"\n")
                for line in lines:
                    self._born(*line.decode().split())
            else:
                self._poll.unregister(descriptor)
                del self.alive[self._pids.pop(descriptor)]
                os.close(descriptor)

    def until(self, true: Callable[[], bool], timeout: float) -> bool:
        """Look until the condition holds; False if it does not in time."""
        deadline = time.monotonic() + timeout
        while not true():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.look(min(left, 0.25))
        return True

    def settle(self, seconds: float) -> None:
        """Look for so long."""
        self.until(lambda: False, seconds)

    def first(self, tag: str, since: int) -> Birth | None:
        """The first birth of that tag after the first `since` births."""
        return next((birth for birth in self.births[since:] if birth.tag == tag), None)

    def end(self) -> None:
        """SIGKILL to whatever has told of its birth and still lives."""
        while self.alive:
            for _, pidfd in self.alive.values():
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.settle(0.05)
        os.close(self._reader)
        os.close(self._keeper)

    def _born(self, tag: str, pid: str, nanoseconds: str) -> None:
        self.births.append(Birth(tag, int(pid), int(nanoseconds) / 1e9))
        try:
            pidfd = os.pidfd_open(int(pid))
        except ProcessLookupError:
            return
        self.alive[int(pid)] = (tag, pidfd)
        self._pids[pidfd] = int(pid)
        self._poll.register(pidfd, select.POLLIN)


def worker_program(directory: Path, name: str = "birth") -> str:
    """Compile a worker."""
    program = directory / name
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
    return str(program)


@dataclass(frozen=True)
class Cost:
    """What processes have used until now: seconds on a CPU, voluntary switches, and bytes resident,
    plainly and with shared pages divided among their users."""

    processes: int
    cpu: float
    wake_ups: int
    rss: int
    pss: int


def cost_of(pids: Iterable[int]) -> Cost:
    """Add up the cost of processes; those that are gone cost nothing."""
    cpu = wake_ups = rss = pss = count = 0
    for pid in pids:
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                cpu += int((thread / "schedstat").read_text().split()[0])
                wake_ups += _field((thread / "status").read_text(), "voluntary_ctxt_switches:")
            memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        count += 1
        rss += _field(memory, "Rss:") * 1024
        pss += _field(memory, "Pss:") * 1024
    return Cost(count, cpu / 1e9, wake_ups, rss, pss)


def _field(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def family(pid: int, without: Iterable[int] = ()) -> list[int]:
    """A process and all its descendants except those and theirs."""
    spared = set(without)
    found, ahead = [], [pid]
    while ahead:
        current = ahead.pop()
        if current in spared:
            continue
        found.append(current)
        for path in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                ahead += map(int, path.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
