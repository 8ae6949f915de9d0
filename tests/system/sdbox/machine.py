"""A real systemd as PID 1 of namespaces of its own, over the host's own files: a box to test units in.

Needs root, systemd and util-linux, no download and no package. It writes to a tmpfs layer, has processes,
network, /run, /tmp and cgroups of its own (these below the caller's), and leaves the host as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TOOLS = ("bash", "hostname", "ip", "mount", "nsenter", "pivot_root", "setpriv", "unshare")
ENTER = Path(__file__).with_name("enter.sh")
CGROUP_ROOT = Path("/sys/fs/cgroup")
UNSHARED = ("--cgroup", "--mount", "--pid", "--uts", "--ipc", "--net")
JOIN = 'n=$1; shift; while [ $n -gt 0 ]; do echo $$ >"$1/cgroup.procs"; shift; n=$((n-1)); done; exec "$@"'
"""Shell that enters the groups first, so that the cgroup namespace begins there: N GROUP... COMMAND..."""
BOOT_TIMEOUT = 30.0
SHUTDOWN_TIMEOUT = 20.0


class MachineError(Exception):
    """The box did not boot; the message holds what its console showed."""


def obstacle() -> str:
    """Why no box can be made here, "" if nothing is known to speak against it."""
    if os.geteuid() != 0:
        return "sdbox needs root"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"sdbox needs {', '.join(missing)}"
    if not Path("/lib/systemd/systemd").exists():
        return "sdbox needs systemd installed (it need not run)"
    return ""


class Machine:
    """One machine in a box. `show` lists host directories that it sees, read-only, at the same path."""

    def __init__(self, name: str, show: Iterable[Path] = ()) -> None:
        self._name = name
        self._show = [str(path) for path in show]
        self._home = Path(tempfile.mkdtemp(prefix=f"sdbox-{name}-"))
        self._console = self._home / "console.log"
        self._groups = _cgroups(f"{name}-{os.getpid()}")
        self._outer: subprocess.Popen[bytes] | None = None
        self._pid1 = 0

    @property
    def root(self) -> Path:
        """The box's file system, as the host sees it."""
        return Path(f"/proc/{self._pid1}/root")

    def boot(self) -> None:
        """Start systemd and wait until it is up. Raises MachineError with the console's text."""
        (self._home / "mount").mkdir()
        for group in self._groups.values():
            _make_group(group)
        groups = [str(len(self._groups)), *map(str, self._groups.values())]
        # Gone with this process, whatever happens to it; PID 1 of the box goes with unshare.
        bound = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", JOIN, "sh", *groups]
        unshare = ["unshare", "--kill-child", "--fork", "--propagation", "private", *UNSHARED]
        inner = ["bash", str(ENTER), str(self._home / "mount"), " ".join(self._groups), *self._show]
        with self._console.open("wb") as console:
            self._outer = subprocess.Popen(
                [*bound, *unshare, *inner],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._until(self._is_systemd)
        self._until(self._is_up)

    def run(self, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside. Raises CalledProcessError with its stderr in the notes."""
        root = f"/proc/{self._pid1}/root"
        enter = f"nsenter -t {self._pid1} -m -u -i -n -p -C --root={root} --wd={root}".split()
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        done = subprocess.run(
            [*enter, *clean, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
            error.add_note(f"{done.stdout}{done.stderr}")
            raise error
        return done

    def shut_down(self) -> None:
        """End everything inside and remove every trace."""
        if self._outer is not None:
            if self._pid1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid1, signal.SIGRTMIN + 4)  # systemd's "power off"
            try:
                self._outer.wait(SHUTDOWN_TIMEOUT if self._pid1 else 0)
            except subprocess.TimeoutExpired:
                self._outer.kill()  # takes PID 1 with it, and that the whole namespace
                self._outer.wait()
        for group in self._groups.values():
            for path in sorted((group, *(p for p in group.rglob("*") if p.is_dir())), reverse=True):
                with contextlib.suppress(OSError):  # a group whose last process is only just gone
                    path.rmdir()
        shutil.rmtree(self._home)

    def _is_systemd(self) -> bool:
        assert self._outer is not None
        with contextlib.suppress(OSError, ValueError):
            children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
            pid = int(children[0]) if children else 0
            if pid and Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                self._pid1 = pid
                return (self.root / "run/systemd/private").exists()
        return False

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() == "running"

    def _until(self, condition: Callable[[], bool]) -> None:
        assert self._outer is not None
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not condition():
            if self._outer.poll() is not None or time.monotonic() > deadline:
                raise MachineError(
                    f"systemd did not come up:\n{self._console.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.02)


def _cgroups(name: str) -> dict[str, Path]:
    """The box's group in each hierarchy: always a child of our own, so that it stays in our accounting."""
    groups: dict[str, Path] = {}
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        own = next(line[3:] for line in _own_groups() if line.startswith("0::"))
        return {"v2": CGROUP_ROOT / own.strip("/") / f"sdbox-{name}"}
    for line in _own_groups():
        _, controllers, own = line.split(":", 2)
        mounted = {"": "unified", "name=systemd": "systemd"}.get(controllers, controllers)
        if (CGROUP_ROOT / mounted).is_dir():
            groups[mounted] = CGROUP_ROOT / mounted / own.strip("/") / f"sdbox-{name}"
    return groups


def _make_group(group: Path) -> None:
    group.mkdir(exist_ok=True)
    if group.parent.joinpath("cpuset.cpus").exists() and group.joinpath("cgroup.clone_children").exists():
        for file in ("cpuset.cpus", "cpuset.mems"):  # v1: a new group may use no processor at all
            (group / file).write_text((group.parent / file).read_text())
        (group / "cgroup.clone_children").write_text("1")


def _own_groups() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()
