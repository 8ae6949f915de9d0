"""Who may ask: hosts, other sites, tokens. Pure parts here, the same over real sockets below."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from api.fakes import FakeDaemon, Served
from api.wire import Connection
from stoker.api import tcp
from stoker.api.app import build
from stoker.api.guard import BURST, FAILURES, PERIOD, ROLE_HEADER, Guard, Refusals, foreign, known_host
from stoker.api.openapi import ENDPOINTS
from stoker.api.problems import BadRequestError
from stoker.api.roles import Allowance, Role, may
from stoker.api.server import LARGEST_HEAD, serve_tcp
from stoker.errors import ConflictError, StokerError

TOKEN = "correct-horse-battery-staple"
VIEW = "only-looking-at-the-horse"
TOKENS: dict[str, Role] = {TOKEN: "operate", VIEW: "view"}


@pytest.mark.parametrize(
    "host",
    [
        "stoker",
        "localhost:7070",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:7070",
        "box",
        "BOX.lan",
        "",
        "a.localhost",
    ],
)
def test_hosts_that_can_be_ours(host: str) -> None:
    assert known_host(host, frozenset({"box.lan"}))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7070", "127.0.0.1.evil.example", "[::1", "a.b.localhost.evil"]
)
def test_a_name_that_somebody_else_points_here_is_refused(host: str) -> None:
    assert not known_host(host, frozenset({"box.lan"}))


@pytest.mark.parametrize(
    ("headers", "method", "expected"),
    [
        ({}, "POST", False),
        ({"origin": "http://localhost:7070"}, "POST", False),
        ({"origin": "http://evil.example"}, "POST", True),
        ({"origin": "http://localhost:8080"}, "POST", True),
        ({"origin": "null"}, "POST", True),
        ({"sec-fetch-site": "same-origin"}, "POST", False),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, "GET", False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "GET", False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "POST", True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", True),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, "GET", True),
    ],
)
def test_what_a_browser_sends_for_another_site(headers: dict[str, str], method: str, expected: bool) -> None:
    assert foreign({"host": "localhost:7070", **headers}, method) is expected


def test_guessing_tokens_is_slow() -> None:
    clock = [0.0]
    refusals = Refusals(lambda: clock[0])
    for _ in range(FAILURES):
        assert not refusals.many
        refusals.add()
    assert refusals.many
    clock[0] = PERIOD
    assert not refusals.many


# --- the token's file -------------------------------------------------------------------------------------


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    made = tcp.token(str(tmp_path))
    assert len(made) >= 40
    assert tcp.token(str(tmp_path)) == made
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["token"]
    assert tcp.tokens(str(tmp_path)) == {made: "operate", tcp.token(str(tmp_path), "view"): "view"}
    assert stat.S_IMODE((tmp_path / "view-token").stat().st_mode) == 0o600


def test_a_token_that_others_can_read_is_none(tmp_path: Path) -> None:
    tcp.token(str(tmp_path))
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(StokerError, match="chmod 600"):
        tcp.token(str(tmp_path))


def test_an_empty_token_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0o600)
    with pytest.raises(StokerError, match="remove it"):
        tcp.token(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:7070", ("127.0.0.1", 7070)),
        (":7070", ("127.0.0.1", 7070)),
        ("7070", ("127.0.0.1", 7070)),
        ("[::1]:7070", ("::1", 7070)),
        ("box:0", ("box", 0)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert tcp.split_address(text) == expected


@pytest.mark.parametrize("text", ["", "box", "box:http", "1.2.3.4:70000", "box:-1"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(BadRequestError, match="HOST:PORT"):
        tcp.split_address(text)


def test_a_host_that_is_none_is_said() -> None:
    for host in ("no..such", "x" * 300, "\0"):
        with pytest.raises(ConflictError, match="cannot listen"):
            tcp.listen(f"{host}:0")


def test_a_port_that_is_taken_is_said() -> None:
    with closing(tcp.listen("127.0.0.1:0")) as taken, pytest.raises(ConflictError, match="in use"):
        tcp.listen(f"127.0.0.1:{taken.getsockname()[1]}")


# --- over sockets -----------------------------------------------------------------------------------------


@contextmanager
def on_tcp(daemon: FakeDaemon, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The daemon on a TCP port, running in another thread."""
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        listener = tcp.listen("127.0.0.1:0")
        started, scopes = threading.Event(), []

        async def run() -> None:
            async with anyio.create_task_group() as group:
                scopes.append(group.cancel_scope)
                await group.start(partial(serve_tcp, build(daemon), listener, TOKENS, tls=tls))
                started.set()

        future = portal.start_task_soon(run)
        assert started.wait(10)
        try:
            yield listener.getsockname()[1]
        finally:
            portal.call(scopes[0].cancel)
            future.result(timeout=10)


@pytest.fixture
def port(daemon: FakeDaemon) -> Iterator[int]:
    with on_tcp(daemon) as port:
        yield port


def ask(port: int, method: str, path: str, **headers: str) -> tuple[int, dict[str, Any], bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def test_without_the_token_only_the_page_is_there(port: int, daemon: FakeDaemon) -> None:
    assert ask(port, "GET", "/")[0] == 200
    assert ask(port, "GET", "/healthz")[0] == 200
    for path in ("/v1/status", "/v1/live", "/v1", "/metrics", "/v1/openapi.json", "/page/../v1/status"):
        status, headers, _ = ask(port, "GET", path)
        assert status in {401, 404}, path
    assert headers["content-type"] == "application/problem+json"
    assert ask(port, "POST", "/v1/down")[0] == 401
    assert ask(port, "POST", "/v1/down", authorization="Bearer wrong")[0] == 401
    assert ask(port, "POST", "/v1/down", authorization=f"Basic {TOKEN}")[0] == 401
    assert daemon.calls == []


def test_with_the_token_everything_is(port: int, daemon: FakeDaemon) -> None:
    status, _, body = ask(port, "GET", "/v1/status", authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert json.loads(body)["daemon"]["pid"] == 1
    assert ask(port, "POST", "/v1/down", authorization=f"Bearer {TOKEN}")[0] == 200
    assert daemon.calls == [("down",)]


def test_the_token_for_looking_changes_nothing(port: int, daemon: FakeDaemon) -> None:
    status, headers, _ = ask(port, "GET", "/v1/status", authorization=f"Bearer {VIEW}")
    assert (status, headers[ROLE_HEADER]) == (200, "view")
    assert ask(port, "GET", "/v1/status", authorization=f"Bearer {TOKEN}")[1][ROLE_HEADER] == "operate"
    for entry in ENDPOINTS:
        if entry.method != "GET":
            answer = ask(port, entry.method, entry.path, authorization=f"Bearer {VIEW}")
            assert answer[0] == 403, entry.path
            assert b"role operate" in answer[2]
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
        assert ask(port, method, "/v1/down", authorization=f"Bearer {VIEW}")[0] in {400, 403}, method
    assert daemon.calls == []


@pytest.mark.anyio
async def test_whoever_asks_without_end_is_told_to_wait() -> None:
    served: list[str] = []
    answers: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["client"][0])

    async def send(message: Any) -> None:
        answers.append(message)

    guard = Guard(app, now=lambda: 7.0, tokens=TOKENS)
    for peer in ["10.0.0.1"] * (int(BURST) + 1) + ["10.0.0.2"]:
        head = [(b"host", b"box"), (b"authorization", f"Bearer {VIEW}".encode())]
        await guard(
            {"type": "http", "method": "GET", "path": "/v1/status", "headers": head, "client": (peer, 1)},
            lambda: None,
            send,
        )
    assert served == ["10.0.0.1"] * int(BURST) + ["10.0.0.2"]
    assert answers[0]["status"] == 429
    assert (b"retry-after", b"1") in answers[0]["headers"]


def test_an_allowance_fills_again_and_is_each_peers_own() -> None:
    clock = [0.0]
    allowance = Allowance(lambda: clock[0], rate=2, burst=3, most=2)
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
    assert allowance.take("b")
    clock[0] = 0.5
    assert [allowance.take("a") for _ in range(2)] == [True, False]
    clock[0] = 100
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False], "no more than the burst"
    assert allowance.take("b")
    assert allowance.take("c"), "the third pushes out whoever was silent longest"
    assert allowance.take("a")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_is_for_both_roles(method: str) -> None:
    assert may("view", method)
    assert may("operate", method)


def test_too_many_wrong_tokens_are_told_to_wait(port: int) -> None:
    answers = [ask(port, "GET", "/v1/status", authorization="Bearer guess")[0] for _ in range(FAILURES + 1)]
    assert answers == [401] * (FAILURES - 1) + [429] * 2
    assert ask(port, "GET", "/v1/status", authorization=f"Bearer {TOKEN}")[0] == 200, "its holders get in"


def test_other_sites_are_refused_with_the_token_too(port: int, daemon: FakeDaemon) -> None:
    good = f"Bearer {TOKEN}"
    assert ask(port, "POST", "/v1/down", authorization=good, origin="http://evil.example")[0] == 403
    assert ask(port, "GET", "/v1/status", authorization=good, host="evil.example")[0] == 421
    assert ask(port, "POST", "/v1/down", authorization=good, origin=f"http://127.0.0.1:{port}")[0] == 200
    assert daemon.calls == [("down",)]


def test_a_forwarded_socket_is_no_door_for_other_sites(live: Served, daemon: FakeDaemon) -> None:
    """What `ssh -L` brings to a desk: the kernel sees the right user, the request comes from any page."""
    for headers in (
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        with closing(Connection(live.socket)) as connection:
            connection.request("POST", "/v1/down", headers=headers)
            assert connection.getresponse().status in {403, 421}
    assert daemon.calls == []


def test_a_head_without_end_is_ended(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
        answer = b""
        with suppress(OSError):  # it may close while we still write
            for _ in range(100):
                connection.sendall(b"x-more: " + b"y" * LARGEST_HEAD + b"\r\n")
                answer = answer or connection.recv(4096)
        assert answer[:12] in {b"HTTP/1.1 431", b""}
        with suppress(OSError):
            assert connection.recv(4096) == b""


def test_a_client_that_goes_in_the_middle_of_its_request_is_no_bug(
    port: int, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST /v1/set HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 50\r\n\r\n"
    for _ in range(5):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
            connection.sendall(head.encode() + b'{"values"')
    assert ask(port, "GET", "/v1/status", authorization=f"Bearer {TOKEN}")[0] == 200
    assert daemon.calls == []
    assert caplog.records == []


def test_rubbish_is_answered_and_the_next_one_is_served(port: int) -> None:
    for rubbish in (
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(4096)[:12] in {b"HTTP/1.1 400", b"HTTP/1.0 400", b""}
    assert ask(port, "GET", "/healthz")[0] == 200
