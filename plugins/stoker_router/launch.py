"""Starts the router's program so that it outlives whoever starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stoker.errors import RouterError

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
LONGEST_SOCKET_PATH = 107
"""Bytes that fit into sockaddr_un."""


def control_path(runtime_dir: str, instance: str) -> str:
    """Where the program of this instance is spoken to. A runtime directory whose path is too long for a unix
    socket is replaced by a private one under the temporary directory."""
    path = os.path.join(runtime_dir, "router.sock")
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return os.path.join(tempfile.gettempdir(), f"stoker-{os.geteuid()}-{instance}", "router.sock")


def start(path: str, *, instance: str, state_dir: str) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, with a minimal environment, its output in the state
    directory. Raises RouterError."""
    log_path = Path(state_dir) / "logs" / "router.log"
    argv = [sys.executable, "-m", "stoker_router"]
    argv += ["--control", path, "--instance", instance, "--state-dir", state_dir]
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            return subprocess.Popen(
                argv,
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise RouterError(f"cannot start the router: {error}; its log is {log_path}") from error


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", **kept}
