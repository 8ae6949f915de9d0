"""The API on TCP, only where it is asked for: a listener, and a token in a file for its owner alone."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import stat
from contextlib import suppress

from stoker.api.problems import BadRequestError
from stoker.api.roles import ROLES, Role
from stoker.errors import ConflictError, StokerError

TOKEN_FILES: dict[Role, str] = {"operate": "token", "view": "view-token"}


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT, :PORT or PORT; without a host this box alone. Raises BadRequestError. Pure."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdigit() or int(port) > 65535:
        raise BadRequestError(f"cannot listen on {text!r}: write HOST:PORT, such as 127.0.0.1:7070")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """HOST:PORT with the brackets that IPv6 needs. Pure."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def loopback(host: str) -> bool:
    """Whether nobody but this box reaches that host. Pure."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(address: str) -> socket.socket:
    """A listening socket there. Raises BadRequestError or ConflictError."""
    host, port = split_address(address)
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
            listener.listen(128)
            listener.settimeout(0)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConflictError(f"cannot listen on {address}: {why}; choose another place to listen") from error
    return listener


def token_path(state_dir: str, role: Role = "operate") -> str:
    """Where the token of that role lies."""
    return os.path.join(state_dir, TOKEN_FILES[role])


def tokens(state_dir: str) -> dict[str, Role]:
    """What each token of the daemon with that state is good for. Raises StokerError."""
    return {token(state_dir, role): role for role in ROLES}


def token(state_dir: str, role: Role = "operate") -> str:
    """The token of the daemon with that state, made when it is first asked for; mode 0600. Raises StokerError
    where it cannot be kept or lies open to others."""
    path = token_path(state_dir, role)
    try:
        with suppress(FileExistsError):
            _write(path, secrets.token_urlsafe(32))
        with open(path, encoding="ascii") as file:
            open_to_others = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            found = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StokerError(f"cannot keep a token at {path}: {error}") from error
    if open_to_others:
        raise StokerError(f"others can read {path}: chmod 600 it, or remove it for a new token")
    if len(found) < 16:
        raise StokerError(f"{path} holds no token of 16 characters or more; remove it for a new one")
    return found


def _write(path: str, text: str) -> None:
    """Whole or not at all, and never over one that is there. Raises FileExistsError."""
    if os.path.exists(path):
        raise FileExistsError(path)
    fresh = f"{path}.{os.getpid()}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
        os.link(fresh, path)
    finally:
        os.unlink(fresh)
