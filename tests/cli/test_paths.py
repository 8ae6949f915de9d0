from __future__ import annotations

import pytest

from stoker.cli import paths

ROOT, USER = 0, 1000


@pytest.mark.parametrize(
    ("option", "environ", "uid", "expected"),
    [
        ("/x/a.sock", {"STOKER_SOCKET": "/y.sock", "XDG_RUNTIME_DIR": "/run/user/1"}, USER, "/x/a.sock"),
        (None, {"STOKER_SOCKET": "/y.sock", "XDG_RUNTIME_DIR": "/run/user/1"}, USER, "/y.sock"),
        (None, {"XDG_RUNTIME_DIR": "/run/user/1"}, USER, "/run/user/1/stoker/stoker.sock"),
        (None, {"XDG_RUNTIME_DIR": "/run/user/0/"}, ROOT, "/run/user/0/stoker/stoker.sock"),
        (None, {}, ROOT, "/run/stoker/stoker.sock"),
        (None, {}, USER, "/tmp/stoker-1000/stoker.sock"),
    ],
)
def test_where_a_daemon_opens_its_socket(
    option: str | None, environ: dict[str, str], uid: int, expected: str
) -> None:
    assert paths.daemon_socket(option, environ, uid) == expected


def test_a_command_also_looks_for_the_systems_daemon_unless_told_where() -> None:
    assert paths.client_sockets(None, {"XDG_RUNTIME_DIR": "/run/user/1"}, USER) == [
        "/run/user/1/stoker/stoker.sock",
        "/run/stoker/stoker.sock",
    ]
    assert paths.client_sockets(None, {}, ROOT) == ["/run/stoker/stoker.sock"]
    assert paths.client_sockets("/x.sock", {}, USER) == ["/x.sock"]
    assert paths.client_sockets(None, {"STOKER_SOCKET": "/y.sock"}, USER) == ["/y.sock"]


@pytest.mark.parametrize(
    ("option", "environ", "uid", "expected"),
    [
        ("/x", {"STOKER_STATE_DIR": "/y"}, USER, "/x"),
        (None, {"STOKER_STATE_DIR": "/y", "XDG_STATE_HOME": "/z"}, USER, "/y"),
        (None, {"XDG_STATE_HOME": "/z"}, ROOT, "/z/stoker"),
        (None, {"HOME": "/root"}, ROOT, "/var/lib/stoker"),
        (None, {"HOME": "/people/u"}, USER, "/people/u/.local/state/stoker"),
    ],
)
def test_where_the_state_is(option: str | None, environ: dict[str, str], uid: int, expected: str) -> None:
    assert paths.state_directory(option, environ, uid) == expected


def test_the_runtime_directory_follows_from_the_state_directory_alone() -> None:
    assert paths.runtime_directory("/var/lib/stoker", {}, ROOT) == "/var/lib/stoker/run"
    long = "/tmp/" + "x" * 90
    short = paths.runtime_directory(long, {}, ROOT)
    assert short.startswith("/run/stoker/")
    assert len(short) <= paths.LONGEST_RUNTIME
    assert short == paths.runtime_directory(long, {"OTHER": "1"}, ROOT)
    assert short != paths.runtime_directory(long + "y", {}, ROOT)
