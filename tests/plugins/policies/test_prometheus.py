"""Scaling on a query: what is made of each answer a Prometheus may give, and of none."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest

from stoker.model.load import Decision, LoadWindow, PoolState, Reading
from stoker.model.service import Command, PolicySpec, Scaling, ServiceSpec
from stoker.plugin.ports import MeasuringPolicy, PolicyInput
from stoker_policies.prometheus import Prometheus, QueryError

pytestmark = pytest.mark.anyio


def rule(url: str = "http://127.0.0.1:9", query: str = "jobs", **more: Any) -> PolicySpec:
    params = {"url": url, "query": query, **more}
    return PolicySpec(metric="prometheus", target=4, params=tuple(sorted(params.items())))


def decide(reading: Reading | None, asked: PolicySpec | None = None) -> Decision:
    spec = ServiceSpec(
        deployment="d", name="s", launch=Command(("x",)), working_dir="/", scaling=Scaling(max_replicas=9)
    )
    return Prometheus().decide(
        PolicyInput(
            service=spec,
            policy=asked or rule(),
            window=lambda _seconds: LoadWindow(),
            pool=PoolState(ready=2, target=2),
            now=100.0,
            reading=reading,
        )
    )


@pytest.mark.parametrize(("value", "count"), [(0.0, 0), (0.5, 1), (4.0, 1), (4.1, 2), (13.0, 4), (-3.0, 0)])
def test_the_answer_over_the_target_rounded_up(value: float, count: int) -> None:
    decision = decide(Reading(value=value, at=95.0))
    assert decision.valid
    assert decision.target == count
    assert f"query answered {value:g} / target 4" in decision.reason


def test_without_an_answer_the_scale_is_held() -> None:
    never, stale = decide(None), decide(Reading(value=9.0, at=40.0))
    assert (never.valid, never.target) == (False, 2)
    assert (stale.valid, stale.target) == (False, 2)
    assert stale.reason == "no answer from Prometheus for 60 s"
    assert decide(Reading(value=9.0, at=40.0), rule(period=60.0)).valid, "it is asked once a minute only"


class Server:
    """Answers every query with what the test says."""

    def __init__(self) -> None:
        self.status, self.answer, self.queries = 200, b"", list[str]()
        server = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.queries.append(f"{self.path} {form['query'][0]}")
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(server.answer)))
                self.end_headers()
                self.wfile.write(server.answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def vector(self, *values: str) -> None:
        rows = [{"metric": {"i": str(i)}, "value": [1.5, value]} for i, value in enumerate(values)]
        self.answer = json.dumps(
            {"status": "success", "data": {"resultType": "vector", "result": rows}}
        ).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


async def test_it_asks_the_server(server: Server) -> None:
    assert isinstance(Prometheus(), MeasuringPolicy)
    server.vector("12.5")
    assert await Prometheus().measure(rule(server.url + "/", 'sum(jobs{a="b"})')) == 12.5
    assert server.queries == ['/api/v1/query sum(jobs{a="b"})']
    server.answer = b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "7"]}}'
    assert await Prometheus().measure(rule(server.url)) == 7.0


@pytest.mark.parametrize(
    ("values", "said"),
    [((), "found nothing"), (("1", "2"), "found 2 series"), (("NaN",), "is nan"), (("+Inf",), "is inf")],
)
async def test_what_is_not_one_number_is_said(server: Server, values: tuple[str, ...], said: str) -> None:
    server.vector(*values)
    with pytest.raises(QueryError, match=said):
        await Prometheus().measure(rule(server.url))


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (
            400,
            b'{"status": "error", "error": "parse error at char 3"}',
            "answered 400: parse error at char 3",
        ),
        (502, b"Bad Gateway", "answered 502: Bad Gateway"),
        (200, b"<html>", "does not answer as a Prometheus does"),
        (200, b'{"data": []}', "does not answer as a Prometheus does"),
        (200, b'{"data": {"resultType": "matrix", "result": []}}', "is a matrix"),
    ],
)
async def test_an_answer_that_is_none_is_said(server: Server, status: int, answer: bytes, said: str) -> None:
    server.status, server.answer = status, answer
    with pytest.raises(QueryError, match=said):
        await Prometheus().measure(rule(server.url))


async def test_nobody_there_is_said() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(QueryError, match=f"{url}.*refused"):
            await Prometheus().measure(rule(url))


@contextmanager
def real_prometheus(folder: Path) -> Iterator[str]:
    """A Prometheus of the test's own that scrapes nobody."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "prometheus.yml").write_text("{}")
    argv = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*argv, f"--web.listen-address={address}"], stdout=log, stderr=log) as process,
    ):
        try:
            yield f"http://{address}"
        finally:
            process.terminate()


@pytest.mark.system
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (apt install prometheus)")
async def test_a_real_prometheus_answers(tmp_path: Path) -> None:
    with real_prometheus(tmp_path) as url:
        with anyio.fail_after(30):
            while not await anyio.to_thread.run_sync(_ready, url):
                await anyio.sleep(0.1)
        assert await Prometheus().measure(rule(url, "vector(3) * 4")) == 12.0
        assert await Prometheus().measure(rule(url, "scalar(vector(2))")) == 2.0
        with pytest.raises(QueryError, match="parse error"):
            await Prometheus().measure(rule(url, "sum("))
        with pytest.raises(QueryError, match="found nothing"):
            await Prometheus().measure(rule(url, "no_such_metric"))


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
