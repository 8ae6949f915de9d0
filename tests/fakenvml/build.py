"""Build the fake driver library when a test first needs it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


class CannotBuildError(Exception):
    """There is no compiler or no make; the message says which."""


@functools.cache
def library(*, old: bool = False) -> Path:
    """The directory that holds libnvidia-ml.so.1, built first if it is not there; `old` is the one with
    the symbols of a 470-series driver. Safe to call from several processes at once. Raises
    CannotBuildError."""
    made = _build()
    return made / "old470" if old else made


@functools.cache
def _build() -> Path:
    for tool in ("make", os.environ.get("CC", "cc")):
        if shutil.which(tool) is None:
            raise CannotBuildError(f"the fake NVML library needs {tool}, which is not installed")
    into = _writable()
    with (into / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "--silent", "-C", str(HERE), f"BUILD={into}"],
            capture_output=True, text=True, check=False, env=_plain_environment(),
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"make in {HERE} failed:\n{done.stdout}{done.stderr}")
    return into


def _writable() -> Path:
    """`build/` beside the sources, or a place of our own where that cannot be written."""
    beside = HERE / "build"
    with contextlib.suppress(OSError):
        beside.mkdir(exist_ok=True)
    if os.access(beside, os.W_OK):
        return beside
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted((HERE / "src").iterdir())))
    own = Path(tempfile.gettempdir()) / f"fakenvml-{os.getuid()}-{digest.hexdigest()[:12]}"
    own.mkdir(mode=0o700, exist_ok=True)
    return own


def _plain_environment() -> dict[str, str]:
    """Without the variables by which an outer make would talk to ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


if __name__ == "__main__":
    sys.stdout.write(f"{library()}\n")
