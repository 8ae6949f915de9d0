"""The daemon's unix socket: made safely, reached by paths of any length, its peers known by the kernel."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from stoker.api.roles import Role
from stoker.errors import ConflictError, StokerError

LONGEST = 107
"""Bytes that fit into a unix address; longer paths are reached through their opened directory."""
SO_PEERGROUPS = 59
_UCRED = struct.Struct("iII")


class Peer(NamedTuple):
    """The process at the other end, by the kernel's word."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


def peer_of(connection: socket.socket) -> Peer:
    """Who is connected. Raises OSError where the kernel cannot say."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    groups: frozenset[int] = frozenset()
    with suppress(OSError):  # kernels before 4.13 do not tell; the main group is known all the same
        held = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * 4096)
        groups = frozenset(struct.unpack(f"{len(held) // 4}I", held))
    return Peer(pid=pid, uid=uid, gid=gid, groups=groups)


def role_of(peer: Peer, *, uids: frozenset[int], gid: int, operators: int | None = None) -> Role | None:
    """What that peer may do, None for nothing at all. Root and `uids` operate; so do members of the socket's
    group, unless a group of `operators` is named: then the others of the socket's group look only. Pure."""
    if peer.uid == 0 or peer.uid in uids:
        return "operate"
    groups = {peer.gid, *peer.groups}
    if operators is not None and operators in groups:
        return "operate"
    if gid in groups:
        return "operate" if operators is None else "view"
    return None


@contextmanager
def address(path: str) -> Iterator[str]:
    """An address for `path` that fits, valid inside the block. Raises OSError if its directory is missing."""
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def connect(path: str, timeout: float | None = None) -> socket.socket:
    """A connection to the daemon at `path`. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with address(path) as where:
            connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0660 in a directory of 0750 (0700 unless root).

    The socket of a daemon that is gone is replaced. Raises ConflictError where one still answers,
    StokerError where the place cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Private to us and our group; a directory that is already there keeps its mode.
        os.makedirs(os.path.dirname(path) or ".", mode=0o750 if os.geteuid() == 0 else 0o700, exist_ok=True)
        _clear(path)
        with address(path) as where:
            # Nobody else may connect between bind and chmod; changing the umask would race with threads,
            # but before listen() no connection is possible at all.
            listener.bind(where)
            os.chmod(where, 0o660)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise StokerError(
            f"cannot open the socket {path}: {error.strerror or error}; choose another with --socket"
        ) from error
    except StokerError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def remove(path: str, identity: tuple[int, int] | None) -> None:
    """Remove our socket file, unless another daemon's stands there by now."""
    with suppress(OSError):
        if identity is not None and identity == identity_of(path):
            os.unlink(path)


def identity_of(path: str) -> tuple[int, int]:
    """Device and inode of the socket file. Raises OSError."""
    here = os.stat(path)
    return here.st_dev, here.st_ino


def _clear(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StokerError(f"cannot open the socket {path}: a file that is no socket stands there")
    try:
        connection = connect(path, timeout=2)
    except ConnectionRefusedError:
        os.unlink(path)  # nobody listens: left behind by a daemon that is gone
        return
    except FileNotFoundError:
        return
    with connection:
        pid = peer_of(connection).pid
    raise ConflictError(
        f"a daemon (pid {pid}) answers at {path}; end it with `stoker down` or choose another --socket"
    )
