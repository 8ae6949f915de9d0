"""A real Ray cluster on loopback, in a directory that is thrown away."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("cluster.py")


class ClusterError(Exception):
    """It did not come up."""


class RayCluster:
    """A cluster and what a process must have in its environment to join it."""

    def __init__(self, place: Path, nodes: int, gpus: int) -> None:
        (place / "ray").mkdir()
        self.environ = {
            "RAY_TMPDIR": str(place),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "HOME": str(place),
        }
        self._log = open(place / "log", "wb")  # noqa: SIM115 - as long as the cluster
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(nodes), str(gpus)], env={**os.environ, **self.environ},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        said = self._process.stdout.readline()  # type: ignore[union-attr]
        if not said:
            self.close()
            raise ClusterError((place / "log").read_text())
        self.address = json.loads(said)["address"]

    def tell(self, words: str) -> None:
        """`kill N`, or `add`."""
        self._process.stdin.write(f"{words}\n".encode())  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        assert self._process.stdout.readline()  # type: ignore[union-attr]

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The cluster's head does not answer meanwhile; what runs on the nodes runs on."""
        [head] = [pid for pid in self._family() if _name(pid) == "gcs_server"]
        os.kill(head, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(head, signal.SIGCONT)

    def _family(self) -> list[int]:
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/stat")
            if self.environ["RAY_TMPDIR"].encode() in _read(path.parent / "cmdline")
        ]

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.stdout.close()  # type: ignore[union-attr]
            self._log.close()


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _name(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/comm")).decode().strip()


TRIES = 4


@contextlib.contextmanager
def cluster(nodes: int, gpus: int) -> Iterator[RayCluster]:
    """Tried again: Ray gives a node 30 s to come up, and a busy machine may need more."""
    for attempt in range(TRIES):
        place = Path(tempfile.mkdtemp(prefix="ry", dir="/tmp"))  # short: Ray makes unix sockets below it
        try:
            made = RayCluster(place, nodes, gpus)
        except ClusterError:
            shutil.rmtree(place, ignore_errors=True)
            if attempt == TRIES - 1:
                raise
            continue
        try:
            yield made
        finally:
            made.close()
            shutil.rmtree(place, ignore_errors=True)
        return


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray", reason="pip install 'stoker[ray]'")
    with cluster(nodes=0, gpus=2) as made:
        yield made
