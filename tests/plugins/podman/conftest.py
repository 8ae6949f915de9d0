"""A podman of the tests' own: its service, its store and its images in a directory that is thrown away."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CONTAINERS = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
STORAGE = """\
[storage]
driver = "{driver}"
graphroot = "{root}"
runroot = "{run}"
"""
PATIENCE = 20.0


@dataclass(frozen=True)
class Podman:
    """A service that listens on `socket`; `command` runs podman's command line on the same store."""

    socket: str
    environ: dict[str, str]

    def command(self, *words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            ["podman", *words],
            env=self.environ,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def containers(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.command("ps", "--all", "--format", "json") or "[]")
        return found


def lacking() -> str:
    """Why no container can be run here, "" if one can."""
    if os.geteuid() != 0:
        return "the tests' own podman is run by root"
    missing = [one for one in ("podman", "runc", "busybox") if shutil.which(one) is None]
    return f"{' and '.join(missing)} not installed here" if missing else ""


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    if lacking():
        pytest.skip(lacking())
    place = Path(tempfile.mkdtemp(prefix="pm", dir=os.environ.get("TMPDIR", "/tmp")))
    try:
        yield from _serving(place)
    finally:
        _end_monitors(place)
        _unmount(place)
        shutil.rmtree(place, ignore_errors=True)


def _end_monitors(place: Path) -> None:
    """Of a command that was executed in a container podman keeps the monitor for five minutes."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"conmon") and any(one.startswith(f"{place}/".encode()) for one in words):
                os.kill(int(entry.name), signal.SIGKILL)


def _unmount(place: Path) -> None:
    """podman mounts its store on itself, and leaves it so."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((one for one in mounted if one.startswith(f"{place}/")), reverse=True):
        subprocess.run(["umount", path], check=False)


def _serving(place: Path) -> Iterator[Podman]:
    import resource

    files = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    (place / "containers.conf").write_text(CONTAINERS.format(files=files, processes=16384, runtime="runc"))
    store = {"driver": "overlay", "root": place / "root", "run": place / "run"}
    (place / "storage.conf").write_text(STORAGE.format(**store))
    environ = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(place),
        "TMPDIR": str(place),
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
    }
    socket = str(place / "s")
    with open(place / "service.log", "wb") as log:
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{socket}"],
            env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            cwd=place,  # where a container runs out of memory its monitor leaves a file `oom` here
        )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE
        while not os.path.exists(socket):
            if service.poll() is not None or time.monotonic() > until:
                pytest.fail(f"podman does not serve: {(place / 'service.log').read_text()}")
            time.sleep(0.02)
        engine = Podman(socket, environ)
        _make_images(engine, place)
        yield engine
        engine.command("rm", "--all", "--force", "--time=0")
    finally:
        service.terminate()
        service.wait(PATIENCE)


def _make_images(engine: Podman, place: Path) -> None:
    """`box`: busybox and nothing else; `server`: the same with a command, a variable and a user's file."""
    root = place / "image"
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir(mode=0o777)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in ("sh", "env", "sleep", "id", "cat", "httpd", "ls", "mkdir", "grep", "kill", "echo", "pwd"):
        (root / "bin" / name).symlink_to("busybox")
    packed = subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout
    engine.command("import", "-", "localhost/box:1", stdin=packed)
    serve = (
        'mkdir -p /tmp/w; echo "hello $STOKER_REPLICA" >/tmp/w/index.html; exec httpd -f -p $PORT -h /tmp/w'
    )
    changes = [f"CMD {json.dumps(['/bin/sh', '-c', serve])}", "ENV FROM_IMAGE=yes"]
    engine.command("import", *(f"--change={one}" for one in changes), "-", "localhost/server:1", stdin=packed)
