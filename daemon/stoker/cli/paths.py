"""Where the daemon's socket and state are: options, environment, then the platform's conventions."""

from __future__ import annotations

import os
from collections.abc import Mapping

SYSTEM_SOCKET = "/run/stoker/stoker.sock"
SYSTEM_STATE = "/var/lib/stoker"
LONGEST_RUNTIME = 80
"""Bytes of a runtime directory's path under which sockets in it still fit into a unix address."""


def daemon_socket(option: str | None, environ: Mapping[str, str], uid: int) -> str:
    """Where a daemon that is started now opens its socket. Pure."""
    return _absolute(option or environ.get("STOKER_SOCKET") or f"{runtime_base(environ, uid)}/stoker.sock")


def client_sockets(option: str | None, environ: Mapping[str, str], uid: int) -> list[str]:
    """Where a command looks for the daemon, best first: an explicit place alone, else the user's own,
    then the system's. Pure."""
    if explicit := option or environ.get("STOKER_SOCKET"):
        return [_absolute(explicit)]
    return list(dict.fromkeys([daemon_socket(None, environ, uid), SYSTEM_SOCKET]))


def runtime_base(environ: Mapping[str, str], uid: int) -> str:
    """The directory for sockets. Pure."""
    if base := environ.get("XDG_RUNTIME_DIR"):
        return f"{base.rstrip('/')}/stoker"
    return "/run/stoker" if uid == 0 else f"/tmp/stoker-{uid}"


def state_directory(option: str | None, environ: Mapping[str, str], uid: int) -> str:
    """Where a daemon keeps what must survive it. Pure."""
    if explicit := option or environ.get("STOKER_STATE_DIR"):
        return _absolute(explicit)
    if base := environ.get("XDG_STATE_HOME"):
        return f"{base.rstrip('/')}/stoker"
    if uid == 0:
        return SYSTEM_STATE
    return _absolute(f"{environ.get('HOME', '~')}/.local/state/stoker")


def runtime_directory(state_dir: str, environ: Mapping[str, str], uid: int) -> str:
    """Where a daemon's inner sockets go. It follows from the state directory alone, so that the next
    daemon on the same state finds the router again. Pure."""
    beside = f"{state_dir}/run"
    if len(os.fsencode(beside)) <= LONGEST_RUNTIME:
        return beside
    import hashlib

    return f"{runtime_base(environ, uid)}/{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]}"


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
