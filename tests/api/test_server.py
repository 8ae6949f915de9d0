"""The socket: who may use it, who may open it, what is left of it."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from api.fakes import FakeDaemon, Served, served
from api.wire import ask, get
from stoker.api.server import refusal
from stoker.api.unixsocket import Peer, address, connect, listen, peer_of, role_of
from stoker.errors import ConflictError, StokerError


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_socket_is_for_owner_and_group_in_a_directory_for_them(live: Served) -> None:
    assert mode(live.socket) == 0o660
    assert mode(Path(live.socket).parent) == (0o750 if os.geteuid() == 0 else 0o700)


def test_the_socket_file_goes_with_the_daemon(daemon: FakeDaemon, tmp_path: Path) -> None:
    with served(daemon, tmp_path / "s.sock") as running:
        assert get(running.socket, "/v1/status")
    assert not (tmp_path / "s.sock").exists()


def test_the_socket_of_a_dead_daemon_is_replaced(daemon: FakeDaemon, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with served(daemon, path) as running:
        assert get(running.socket, "/v1/status")


def test_a_living_daemon_is_not_pushed_aside(live: Served) -> None:
    with pytest.raises(ConflictError, match=rf"pid {os.getpid()}"):
        listen(live.socket)
    assert get(live.socket, "/v1/status")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(StokerError, match="no socket"):
        listen(str(path))
    assert path.read_text() == "precious"


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StokerError, match="--socket"):
        listen(str(tmp_path / "file" / "s.sock"))


def test_a_newer_daemons_socket_is_not_removed_by_the_older_one(daemon: FakeDaemon, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with served(daemon, path):
        path.unlink()
        newer = listen(str(path))
    assert path.exists()
    newer.close()


def test_paths_longer_than_a_unix_address(daemon: FakeDaemon, tmp_path: Path) -> None:
    path = tmp_path / ("deep" * 20) / ("deeper" * 10) / "s.sock"
    assert len(str(path)) > 107
    with served(daemon, path) as running:
        assert get(running.socket, "/v1/status")["daemon"]["pid"] == 1
    assert not path.exists()


def test_short_paths_are_used_as_they_are() -> None:
    with address("/run/stoker/stoker.sock") as where:
        assert where == "/run/stoker/stoker.sock"


def test_the_kernel_says_who_the_peer_is(tmp_path: Path) -> None:
    listener = listen(str(tmp_path / "s.sock"))
    listener.setblocking(True)
    client = connect(str(tmp_path / "s.sock"))
    server, _ = listener.accept()
    peer = peer_of(server)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert set(os.getgroups()) <= peer.groups | {peer.gid}
    for one in (client, server, listener):
        one.close()


@pytest.mark.parametrize(
    ("peer", "expected", "with_operators"),
    [
        (Peer(pid=1, uid=0, gid=0), "operate", "operate"),
        (Peer(pid=1, uid=1000, gid=1000), "operate", "operate"),
        (Peer(pid=1, uid=1001, gid=1001), None, None),
        (Peer(pid=1, uid=1001, gid=500), "operate", "view"),
        (Peer(pid=1, uid=1001, gid=1001, groups=frozenset({4, 500})), "operate", "view"),
        (Peer(pid=1, uid=1001, gid=1001, groups=frozenset({500, 600})), "operate", "operate"),
        (Peer(pid=1, uid=1001, gid=600), None, "operate"),
        (Peer(pid=1, uid=1001, gid=1001, groups=frozenset({4, 5})), None, None),
    ],
)
def test_who_may_talk_to_the_daemon(peer: Peer, expected: str | None, with_operators: str | None) -> None:
    assert role_of(peer, uids=frozenset({1000}), gid=500) == expected
    assert role_of(peer, uids=frozenset({1000}), gid=500, operators=600) == with_operators


def test_the_refusal_says_who_was_refused() -> None:
    answer = refusal(Peer(pid=7, uid=1001, gid=1001))
    assert answer.status_code == 403
    assert b"uid 1001" in bytes(answer.body)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_stranger_gets_one_refusal_and_no_data(daemon: FakeDaemon, tmp_path: Path) -> None:
    """The socket's mode would stop a stranger already; here it is opened up to see the second wall."""
    path = tmp_path / "run" / "s.sock"
    ask_as_stranger = stranger(path)  # before the server's thread exists: forking and threads do not mix
    with served(daemon, path) as live:
        for place in (path, *list(path.parents)[:-2]):
            os.chmod(place, mode(place) | 0o007)
        answer = ask_as_stranger()
        assert answer.startswith(b"HTTP/1.1 403"), answer
        assert b"services" not in answer
        assert ask(live.socket, "GET", "/healthz")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_member_of_the_sockets_group_may_only_look_where_operators_are_named(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "s.sock"
    change = LOOK.replace(b"GET /v1/status", b"POST /v1/down").replace(b"keep-alive", b"close")
    ask_as_member = stranger(path, gid=0, request=LOOK + change)
    with served(daemon, path, operators=65533) as live:
        for place in (path, *list(path.parents)[:-2]):
            os.chmod(place, mode(place) | 0o077)
        looked, _, changed = ask_as_member().partition(b"HTTP/1.1 403")
        assert looked.startswith(b"HTTP/1.1 200"), looked
        assert b"role operate" in changed
        assert daemon.calls == []
        assert ask(live.socket, "POST", "/v1/down")[0] == 200, "root operates"


LOOK = b"GET /v1/status HTTP/1.1\r\nhost: stoker\r\nconnection: keep-alive\r\n\r\n"


def stranger(path: Path, *, gid: int = 65533, request: bytes = LOOK) -> Callable[[], bytes]:
    """A child process of another user; calling the result lets it ask for the status and gives its answer."""
    go_reading, go_writing = os.pipe()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b""
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(65532)
            os.read(go_reading, 1)
            with connect(str(path), 5) as connection:
                connection.sendall(request)
                while piece := connection.recv(4096):
                    answer += piece
        except BaseException as error:  # noqa: BLE001 - the child may only leave by _exit
            answer = answer or repr(error).encode()
        finally:
            os.write(writing, answer[:16000])
            os._exit(0)
    os.close(writing)

    def run() -> bytes:
        os.write(go_writing, b"!")
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        os.close(go_reading)
        os.close(go_writing)
        return answer

    return run


def test_many_clients_at_once(live: Served) -> None:
    found: list[int] = []

    def work() -> None:
        found.extend(ask(live.socket, "GET", "/v1/status")[0] for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 80
