"""Events to a file and to a webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from api.fakes import FakeDaemon
from stoker.cli import launch
from stoker.cli.sinks.event_log import EventLog, event_log
from stoker.cli.sinks.webhook import PATIENCE, Courier, Target, post, secret_of, signed, webhook
from stoker.errors import StokerError
from stoker.model.event import Event, Notice

URL = "https://ops.example/hook"


def happened(number: int, severity: Any = "warning") -> Event:
    return Notice(message=f"n{number}", severity=severity, id=f"e{number}", wall=1_700_000_000.0, at=1.0)


class Receiver:
    """Answers with what it is given, in turn, and then always 204."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.got: list[tuple[float, dict[str, Any], dict[str, str]]] = []

    def __call__(self, url: str, body: bytes, headers: Any) -> tuple[int, str]:
        self.got.append((trio.current_time(), json.loads(body), dict(headers)))
        status = self.answers.pop(0) if self.answers else 204
        return status, f"it answered {status}"


def deliver(receiver: Receiver, *events: Event, target: Target | None = None) -> tuple[list[bool], list[str]]:
    """What came of each event, and what was said, on a virtual clock."""
    said: list[str] = []

    async def run() -> list[bool]:
        courier = Courier(target or Target(url=URL), post=receiver, wall=lambda: 5.0, say=said.append)
        return [await courier.deliver(event) for event in events]

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0)), said


def test_an_event_is_tried_again_until_it_arrives_with_the_same_id() -> None:
    receiver = Receiver(0, 503, 429)
    arrived, said = deliver(receiver, happened(1), happened(2))
    assert arrived == [True, True]
    times = [at for at, _, _ in receiver.got]
    assert [round(b - a, 3) for a, b in pairwise(times)] == [1, 2, 4, 0]
    assert [document["message"] for _, document, _ in receiver.got] == ["n1", "n1", "n1", "n1", "n2"]
    ids = [headers["webhook-id"] for _, _, headers in receiver.got]
    assert len(set(ids)) == 2
    assert ["tried again" in said[0], "arrive again" in said[1], len(said)] == [True, True, 2]


def test_an_event_that_is_refused_for_good_does_not_hold_the_next() -> None:
    receiver = Receiver(400)
    arrived, said = deliver(receiver, happened(1), happened(2))
    assert arrived == [False, True]
    assert "given up" in said[1]


def test_an_event_that_does_not_arrive_in_time_is_given_up() -> None:
    receiver = Receiver(*[503] * 100)
    (arrived,), _ = deliver(receiver, happened(1))
    assert not arrived
    assert receiver.got[-1][0] - receiver.got[0][0] <= PATIENCE
    assert len(receiver.got) > 10


def test_the_signature_is_that_of_standard_webhooks() -> None:
    secret = secret_of("whsec_" + base64.b64encode(b"key").decode() + "\n")
    headers = signed(secret, "evt_1", 1700000000, b'{"a":1}')
    digest = hmac.new(b"key", b'evt_1.1700000000.{"a":1}', hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert "webhook-signature" not in signed(None, "evt_1", 0, b"")
    assert secret_of(" plain \n") == b"plain"


@pytest.mark.parametrize(("least", "expected"), [("info", 3), ("warning", 2), ("error", 1)])
def test_only_what_is_worth_a_message_is_sent(least: str, expected: int) -> None:
    events = [happened(1, "info"), happened(2, "warning"), happened(3, "error")]
    assert sum(Target(url=URL, least=least).wants(event) for event in events) == expected


@contextmanager
def server(*answers: int) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(answers[len(got) - 1] if len(got) <= len(answers) else 204)
            self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    made = HTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/hook", got
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def test_over_a_real_connection_and_no_redirect_is_followed() -> None:
    with server(302, 500) as (url, got):
        assert post(url, b"{}", {"webhook-id": "1"})[0] == 302
        assert post(url, b"{}", {"webhook-id": "1"})[0] == 500
        assert post(url, b"{}", {"webhook-id": "1"}) == (204, "")
    assert [path for path, _, _ in got] == ["/hook"] * 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        status, words = post(f"http://127.0.0.1:{free.getsockname()[1]}/", b"", {})
    assert status == 0
    assert "refused" in words


async def _observe_until(observer: Any, daemon: FakeDaemon, done: Any) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observer, daemon)
            while not done():
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


def test_a_daemons_troubles_reach_the_webhook(tmp_path: Path) -> None:
    daemon = FakeDaemon()
    daemon.kept.append(happened(6, "error"))
    with server() as (url, got):
        trio.run(_observe_until, webhook(Target(url=url, secret=b"k")), daemon, lambda: got)
    ((_, headers, body),) = got
    assert json.loads(body)["message"] == "n6"
    assert headers["webhook-signature"].startswith("v1,")


def test_every_event_is_a_line_of_json(tmp_path: Path) -> None:
    path, daemon = tmp_path / "events.jsonl", FakeDaemon()
    trio.run(
        _observe_until,
        event_log(str(path)),
        daemon,
        lambda: path.exists() and path.read_text().count("\n") == 5,
    )
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [
        "e1",
        "e2",
        "e3",
        "e4",
        "e5",
    ]


def test_the_log_may_be_moved_away_and_a_full_disk_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log" / "events.jsonl"
    log = EventLog(str(path))
    log.write({"n": 0})
    log.write({"n": 1})
    assert capsys.readouterr().err.count("cannot be written") == 1
    path.parent.mkdir()
    log.write({"n": 2})
    path.rename(tmp_path / "events.jsonl.1")
    log.write({"n": 3})
    log.close()
    assert path.read_text() == '{"n":3}\n'
    assert (tmp_path / "events.jsonl.1").read_text() == '{"n":2}\n'


def test_options_become_observers_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    assert launch.sinks_for({"webhook_level": "warning"}) == ()
    assert len(launch.sinks_for({"event_log": "e.jsonl", "webhook": URL})) == 2
    with pytest.raises(StokerError, match="http"):
        launch.sinks_for({"webhook": "ops.example"})
    with pytest.raises(StokerError, match="secret cannot be read"):
        launch.sinks_for({"webhook": URL, "webhook_secret_file": str(tmp_path / "none")})
    arguments = launch.arguments_of({"event_log": "e", "webhook": URL, "webhook_secret_file": None})
    assert arguments == [f"--event-log={Path('e').absolute()}", f"--webhook={URL}"]
