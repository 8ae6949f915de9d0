"""The client against answers that no good daemon gives."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoker.cli.client import Client
from stoker.cli.exits import ApiError, NoDaemonError
from stoker.errors import StokerError

Answer = Callable[[bytes], Client]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answer]:
    """A server that reads one request and answers with these bytes, whatever was asked."""
    path = str(tmp_path / "s.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    def start(answer: bytes) -> Client:
        threads.append(threading.Thread(target=serve, args=(answer,)))
        threads[-1].start()
        return Client([path], timeout=5)

    yield start
    for thread in threads:
        thread.join(5)
    listener.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b'content-length: 9\r\n\r\n{"a": 1}\n',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4;x=y\r\n: 1}\r\n0\r\n\r\n',
        HEAD + b'\r\n{"a": 1}',
    ],
    ids=["length", "chunked", "until the end"],
)
def test_bodies(answering: Answer, answer: bytes) -> None:
    assert answering(answer).get("/") == {"a": 1}


def test_lines_come_whole_whatever_the_pieces(answering: Answer) -> None:
    answer = HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\na\nb\r\n5\r\nc\n\nde\r\n0\r\n\r\n"
    assert list(answering(answer).lines("/")) == ["a", "bc", "", "de"]


def test_a_stream_that_breaks_off_just_ends(answering: Answer) -> None:
    assert list(answering(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\na\n\r\nff\r\nxx").lines("/")) == [
        "a"
    ]


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1", b"nonsense\r\n\r\n", HEAD, HEAD + b"content-length: 99\r\n\r\n{", HEAD + b"x"],
    ids=["nothing", "half a line", "no HTTP", "no end of head", "short body", "cut header"],
)
def test_a_daemon_that_goes_in_the_middle_is_no_daemon(answering: Answer, answer: bytes) -> None:
    with pytest.raises(NoDaemonError, match="ended"):
        answering(answer).get("/")


def test_a_refusal_without_a_reason(answering: Answer) -> None:
    with pytest.raises(ApiError, match="503 without a reason"):
        answering(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").get("/")


def test_a_daemon_that_never_answers_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(StokerError, match="does not answer"):
            Client([str(path)], timeout=0.05).get("/v1/status")


def test_a_query_is_encoded(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    seen: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536))
                connection.sendall(HEAD + b"content-length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        assert Client([path]).get("/v1/x", of="a b/ü&c", none=None, n=3) == {}
        thread.join(5)
    assert seen[0].startswith(b"GET /v1/x?of=a+b%2F%C3%BC%26c&n=3 HTTP/1.1\r\n")


def test_the_first_socket_that_is_there_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    assert Client([str(tmp_path / "a"), str(tmp_path / "b")]).socket == str(tmp_path / "b")
    assert Client([str(tmp_path / "a"), str(tmp_path / "c")]).socket == str(tmp_path / "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_socket_that_may_not_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        with pytest.raises(StokerError, match="no permission"):
            Client([str(path)]).get("/v1/status")
