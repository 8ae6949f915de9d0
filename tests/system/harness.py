"""A real daemon for tests, driven through its command line only."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

STOKER = (sys.executable, "-m", "stoker.cli")


class Box:
    """One daemon in a directory of its own. Use as a context manager: everything it started is gone after."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.file = directory / "stoker.yaml"
        self.socket = directory / "s.sock"
        self.state_dir = directory / "state"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "STOKER_SOCKET": str(self.socket),
            "STOKER_STATE_DIR": str(self.state_dir),
            **environ,
        }
        self.daemon: subprocess.Popen[bytes] | None = None
        self.through: tuple[str, ...] = ()
        """A command that executes the daemon."""

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def write(self, text: str) -> None:
        """Replace the deployment file as an editor does."""
        beside = self.file.with_suffix(".tmp")
        beside.write_text(text)
        beside.replace(self.file)

    def up(self, *args: str) -> None:
        """Start `stoker up` and wait until it answers."""
        self.begin(*args)
        self.until(self._settled, "the daemon answers, and its first configuration is judged", seconds=20)

    def _settled(self) -> bool:
        done = self.run("status", "-o", "json", check=False)
        if done.returncode:
            return False
        config = json.loads(done.stdout)["daemon"]["config"]
        return bool(config["generation"]) or config["state"] == "rejected"

    def begin(self, *args: str) -> None:
        """Start `stoker up` without waiting for anything."""
        with (self.directory / "daemon.out").open("ab") as out:
            self.daemon = subprocess.Popen(
                [*self.through, *STOKER, "up", str(self.file), *args],
                env=self.environ,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        done = subprocess.run(
            [*STOKER, *args],
            env=self.environ,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            assert done.returncode == 0, (
                f"stoker {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def status(self) -> dict[str, Any]:
        """The whole status document."""
        return json.loads(self.run("status", "-o", "json").stdout)

    def service(self, name: str) -> dict[str, Any]:
        """One service of the status document."""
        return next(service for service in self.status()["services"] if service["name"] == name)

    def replicas(self, name: str, *phases: str) -> list[dict[str, Any]]:
        """The replicas of a service, only those in the phases given."""
        return [r for r in self.service(name)["replicas"] if not phases or r["phase"] in phases]

    def ready(self, name: str, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        """Wait until exactly `count` replicas are there and all of them ready; returns them."""
        self.until(
            lambda: len(self.replicas(name)) == count == len(self.replicas(name, "ready")),
            f"{count} ready replicas of {name}",
            seconds,
        )
        return self.replicas(name)

    def until(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        """Wait for a condition; the failure shows what the daemon said."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.output()}")
            if self.daemon is not None and self.daemon.poll() is not None:
                raise AssertionError(f"the daemon ended while waiting for: {what}\n{self.output()}")
            time.sleep(0.05)

    def output(self) -> str:
        """What the daemon has printed, and its present status."""
        log = self.directory / "daemon.out"
        text = log.read_text(errors="replace") if log.exists() else ""
        return text[-4000:] + self.run("status", check=False).stdout

    def get(self, name: str, path: str = "/", timeout: float = 30) -> str:
        """GET from a service's address."""
        with urllib.request.urlopen(self.service(name)["url"] + path, timeout=timeout) as answer:
            return answer.read().decode()

    def kill(self) -> None:
        """SIGKILL the daemon itself."""
        assert self.daemon is not None
        os.kill(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait(10)
        self.daemon = None

    def down(self) -> None:
        """End everything; what does not end in time is killed by pid."""
        if self.daemon is None:
            return
        self.run("down", check=False)
        try:
            self.daemon.wait(40)
        except subprocess.TimeoutExpired:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
            os.kill(self.daemon.pid, signal.SIGKILL)
            self.daemon.wait(10)
            raise
        finally:
            self.daemon = None

    def pids(self) -> list[int]:
        """All living processes that carry this state directory's mark."""
        instance = (self.state_dir / "instance").read_text().strip()
        return marked(f"STOKER_ID={instance}:")


def marked(text: str) -> list[int]:
    """The pids of all processes whose environment holds `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with."""
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)


class Load:
    """Sends requests to an address from some threads until told to stop, and counts what came of them."""

    def __init__(self, url: str, *, threads: int = 4, method: str = "GET") -> None:
        self.url = url
        self.method = method
        self.answered = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, count: int, seconds: float = 30) -> None:
        """Wait until `count` further requests were answered."""
        goal = self.answered + count
        deadline = time.monotonic() + seconds
        while self.answered < goal and not self.failures:
            assert time.monotonic() < deadline, f"{self.answered} of {goal} requests answered"
            time.sleep(0.02)

    def _send(self) -> None:
        while not self._over.is_set():
            request = urllib.request.Request(self.url, method=self.method)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.failures.append(repr(error))
            else:
                with self._lock:
                    self.answered += 1
