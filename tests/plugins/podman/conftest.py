"""A podman and a docker of the tests' own: service, store and images in a directory that is thrown away."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker_podman.api import Engine

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
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 20.0
SERVE = 'mkdir -p /tmp/w; echo "hello $STOKER_REPLICA" >/tmp/w/index.html; exec httpd -f -p $PORT -h /tmp/w'
SERVER = (f"CMD {json.dumps(['/bin/sh', '-c', SERVE])}", "ENV FROM_IMAGE=yes", "VOLUME /data")
"""What the image `server` says beyond its files."""
CHECK = "HEALTHCHECK --interval=2s --timeout=5s --retries=2 CMD grep well /tmp/state"
"""What the image `checked` says."""


@dataclass(frozen=True)
class Podman:
    """A service that listens on `socket`; `command` runs podman's command line on the same store."""

    socket: str
    environ: dict[str, str]
    inside: tuple[str, ...] = ()

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

    def volumes(self) -> list[str]:
        return self.command("volume", "ls", "--quiet").split()

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
        unmount(place)
        shutil.rmtree(place, ignore_errors=True)


def _end_monitors(place: Path) -> None:
    """Of a command that was executed in a container podman keeps the monitor for five minutes."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"conmon") and any(one.startswith(f"{place}/".encode()) for one in words):
                os.kill(int(entry.name), signal.SIGKILL)


def unmount(place: Path) -> None:
    """podman mounts its store on itself, and leaves it so."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((one for one in mounted if one.startswith(f"{place}/")), reverse=True):
        subprocess.run(["umount", path], check=False)


def environ_of(place: Path, driver: str = "overlay") -> dict[str, str]:
    """Variables for a podman whose store lies there."""
    files = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    (place / "containers.conf").write_text(CONTAINERS.format(files=files, processes=16384, runtime="runc"))
    store = {"driver": driver, "root": place / "root", "run": place / "run"}
    (place / "storage.conf").write_text(STORAGE.format(**store))
    return {
        "PATH": PATH,
        "HOME": str(place),
        "TMPDIR": str(place),
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
    }


def _serving(place: Path) -> Iterator[Podman]:
    environ = environ_of(place)
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
    packed = pack_image(place)
    engine.command("import", "-", "localhost/box:1", stdin=packed)
    changes = (f"--change={one}" for one in SERVER)
    engine.command("import", *changes, "-", "localhost/server:1", stdin=packed)
    (place / "checked").write_text(f"FROM localhost/box:1\n{CHECK}\n")
    engine.command("build", "--format=docker", "--tag=localhost/checked:1", f"--file={place}/checked", ".")


def pack_image(place: Path) -> bytes:
    """Make the files of the image in `place/image`, and a tar file of them."""
    root = place / "image"
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir(mode=0o777)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in ("sh", "env", "sleep", "id", "cat", "httpd", "ls", "mkdir", "grep", "kill", "echo", "pwd"):
        (root / "bin" / name).symlink_to("busybox")
    return subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout


@dataclass(frozen=True)
class Docker:
    """A dockerd that listens on `socket`; its words are in `log`. `inside`: before a command that is to run
    in the network of its own that it has."""

    socket: str
    log: Path
    inside: tuple[str, ...] = ()

    def volumes(self) -> list[str]:
        engine = Engine(self.socket, "", name="docker", remedy="")
        return [one["Name"] for one in anyio.run(engine.call, "GET", "/volumes")["Volumes"] or ()]

    async def make_images(self, packed: bytes) -> None:
        engine = Engine(self.socket, "", name="docker", remedy="")
        for name, changes in (("box", ()), ("server", SERVER), ("checked", (CHECK,))):
            said = bytearray()
            query = {"fromSrc": "-", "repo": f"localhost/{name}", "tag": "1"}
            query |= {"changes": "\n".join(changes)} if changes else {}
            await engine.stream("POST", "/images/create", said.extend, packed, **query)
            assert b"error" not in said, said


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A dockerd of the tests' own. Without a bridge: that would be one of the machine's."""
    yield from _own_docker("--bridge=none", "--iptables=false", "--ip6tables=false")


@pytest.fixture(scope="session")
def bridged_docker() -> Iterator[Docker]:
    """One with a bridge, in a network of its own."""
    missing = [
        one for one in ("unshare", "nsenter", "ip", "iptables") if shutil.which(one, path=PATH) is None
    ]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed here")
    alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    yield from _own_docker(before=alone)


def _own_docker(*options: str, before: tuple[str, ...] = ()) -> Iterator[Docker]:
    missing = [one for one in ("dockerd", "busybox") if shutil.which(one) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"{' and '.join(missing)} not installed here" if missing else "dockerd is run by root")
    place = Path(tempfile.mkdtemp(prefix="dk", dir=os.environ.get("TMPDIR", "/tmp")))
    try:
        yield from _docker(place, options, before)
    finally:
        unmount(place)
        shutil.rmtree(place, ignore_errors=True)


def _docker(place: Path, options: tuple[str, ...], before: tuple[str, ...]) -> Iterator[Docker]:
    """NVIDIA's hook, which dockerd looks for when it starts, is one that does nothing."""
    hook = place / "hooks" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    files = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    socket, log_path = str(place / "s"), place / "log"
    command = [
        *before, "dockerd", f"--host=unix://{socket}", f"--pidfile={place}/pid", f"--data-root={place}/root",
        f"--exec-root={place}/exec", f"--default-ulimit=nofile={files}:{files}", *options,
    ]  # fmt: skip
    environ = {"PATH": f"{hook.parent}:{PATH}", "HOME": str(place), "TMPDIR": str(place)}
    with open(log_path, "wb") as log:
        service = subprocess.Popen(
            command, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        until = time.monotonic() + 3 * PATIENCE
        while not os.path.exists(socket):
            if service.poll() is not None or time.monotonic() > until:
                words = log_path.read_text().strip().rpartition("\n")[2]
                pytest.skip(f"dockerd does not run on this machine: {words}")
            time.sleep(0.02)
        inside = ("nsenter", f"--net=/proc/{service.pid}/ns/net") if before else ()
        engine = Docker(socket, log_path, inside)
        anyio.run(engine.make_images, pack_image(place))
        yield engine
    finally:
        service.terminate()
        service.wait(3 * PATIENCE)


@dataclass(frozen=True)
class Sort:
    """One of the engines, as the tests of both ask for it."""

    name: str
    factory: str
    options: dict[str, Any]
    engine: Podman | Docker


@pytest.fixture(params=["podman", "docker"])
def sort(request: pytest.FixtureRequest) -> Sort:
    """`bridged_docker` is for those that ask for it."""
    engine = request.getfixturevalue(request.param)
    name = request.param.removeprefix("bridged_")
    options = {"socket": engine.socket} | ({"nproc": 16384} if name == "podman" else {})
    return Sort(name, f"stoker_podman.driver:{name.title()}Driver", options, engine)
