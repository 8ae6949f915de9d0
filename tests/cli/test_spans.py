"""Spans: joined from events, and received by a collector as OTLP."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import anyio
import pytest

from api.fakes import FakeDaemon
from stoker.cli.sinks.request_spans import request_span
from stoker.cli.sinks.span import Place, Span
from stoker.cli.sinks.spans import Courses, spans
from stoker.errors import RouterError
from stoker.model import event as facts
from stoker.model.device import Reservation
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.trace import FailedTry, RequestSpan, SpanBatch

WHO: dict[str, Any] = {"replica": "infer-1", "service": "rag/infer"}
HANDLE = WorkerHandle(driver="process", pid=42)


def told(*events: facts.Event) -> list[Span]:
    """The spans of events that happen a second apart, from 1000 on."""
    courses = Courses()
    dated = [replace(event, wall=1000.0 + n) for n, event in enumerate(events)]
    return [span for event in dated for span in courses.fold(event)]


START = (
    facts.ReplicaAdded(**WHO, revision="9f"),
    facts.ReplicaHeld(**WHO, reason="no GPU"),
    facts.StartRequested(**WHO, reservations=(Reservation(uuid="GPU-1"),)),
    facts.WorkerSpawned(**WHO, endpoint="127.0.0.1:1", handle=HANDLE),
)
READY = facts.ReplicaBecameReady(**WHO)


def test_a_start_is_a_span_with_its_steps() -> None:
    (span,) = told(*START, READY)
    assert (span.name, span.begin, span.end, span.trouble) == ("replica start", 1000, 1004, "")
    steps = [(step.name, step.begin, step.end) for step in span.steps]
    assert steps == [("wait for a place", 1000, 1002), ("spawn", 1002, 1003), ("start up", 1003, 1004)]
    assert span.attributes == {
        "stoker.deployment": "rag", "stoker.service": "infer", "stoker.replica": "infer-1",
        "stoker.revision": "9f", "stoker.devices": ["GPU-1"], "process.pid": 42,
    }  # fmt: skip


def test_a_start_that_failed_says_why() -> None:
    failed = facts.WorkerExited(**WHO, status=ExitStatus(code=3, detail="no weights"))
    (span,) = told(*START, failed)
    assert span.trouble == "infer-1 exited: exit code 3: no weights"
    assert span.steps[-1].name == "start up"
    again = told(*START, failed, facts.StartRequested(**WHO, reservations=()), START[-1], READY)
    assert [one.trouble == "" for one in again] == [False, True], "the next try is a span of its own"


def test_an_end_is_a_span_and_being_killed_by_the_stop_is_no_trouble() -> None:
    stop = facts.StopSignalled(**WHO)
    ended = facts.WorkerExited(**WHO, status=ExitStatus(signal=9))
    (span,) = told(facts.DrainRequested(**WHO, reason="scaled down"), stop, ended)
    assert (span.name, [step.name for step in span.steps]) == ("replica end", ["drain", "stop"])
    assert span.trouble == ""


def test_a_crash_of_a_ready_replica_and_what_concerns_none_are_no_spans() -> None:
    crash = facts.WorkerExited(**WHO, status=ExitStatus(signal=11))
    assert told(READY, crash, facts.Notice(message="x"), facts.ReplicaForgotten(**WHO)) == []


REQUEST = RequestSpan(
    trace="0af7651916cd43dd8448eb211c80319c", span="00f067aa0ba902b7", parent="b7ad6b7169203331",
    service="rag/infer", arrived=10.0, waited=2.0, began=13.0, ended=14.0, status=200, method="POST",
    path="/v1", host="box", client="10.0.0.9", agent="", worker="infer-1", tries=1,
)  # fmt: skip


def test_a_request_is_a_span_with_its_wait() -> None:
    span = request_span(REQUEST, 1000.0)
    assert (span.name, span.begin, span.end, span.trouble, span.server) == (
        "POST infer", 1010, 1014, "", True,
    )  # fmt: skip
    assert span.place == Place(REQUEST.trace, REQUEST.parent, REQUEST.span)
    assert [(step.name, step.begin, step.end) for step in span.steps] == [("wait for a worker", 1010, 1012)]
    assert [(moment.name, moment.at) for moment in span.moments] == [("answer begun", 1013)]
    assert span.attributes == {
        "http.request.method": "POST", "http.response.status_code": 200, "url.path": "/v1",
        "server.address": "box", "client.address": "10.0.0.9", "stoker.deployment": "rag",
        "stoker.service": "infer", "stoker.replica": "infer-1", "stoker.wait": 2.0, "stoker.tries": 1,
    }  # fmt: skip


def test_a_request_that_failed_says_where_and_why() -> None:
    tries = (FailedTry(11.0, "infer-1", "the worker closed the connection"),)
    lost = replace(REQUEST, status=502, waited=0.0, began=0.0, failed=tries)
    span = request_span(lost, 1000.0)
    assert (span.trouble, span.steps) == ("the worker closed the connection", ())
    (failed,) = span.moments
    assert (failed.name, failed.at) == ("try failed", 1011)
    assert failed.attributes == {"stoker.replica": "infer-1", "reason": "the worker closed the connection"}
    assert request_span(replace(lost, status=504, failed=()), 0.0).trouble == "status 504"
    gone = request_span(replace(lost, status=0, failed=()), 0.0)
    assert ([moment.name for moment in gone.moments], gone.trouble) == (["client went away"], "")
    assert request_span(replace(lost, status=429), 0.0).trouble == "", "the caller's doing"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue[bytes]]:
    """Takes OTLP over HTTP on a port of its own."""
    received: Queue[bytes] = Queue()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            received.put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Take) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


@pytest.mark.anyio
async def test_a_collector_gets_them(collector: Queue[bytes]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    daemon = FakeDaemon(kept=[replace(e, id=f"e{n}", wall=1000.0 + n) for n, e in enumerate((*START, READY))])
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(spans(), daemon)
            body = await anyio.to_thread.run_sync(collector.get)
            group.cancel_scope.cancel()
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "stoker"
    found = {span.name: span for span in resource.scope_spans[0].spans}
    assert set(found) == {"replica start", "wait for a place", "spawn", "start up"}
    whole = found.pop("replica start")
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (1000 * 10**9, 1004 * 10**9)
    assert {span.parent_span_id for span in found.values()} == {whole.span_id}
    assert {span.trace_id for span in found.values()} == {whole.trace_id}


class TracingDaemon(FakeDaemon):
    """Tells the spans it was given, once it has a router."""

    asked = 0

    async def spans(self) -> AsyncGenerator[SpanBatch, None]:
        self.asked += 1
        if self.asked == 1:
            raise RouterError("there is no router yet")
        yield SpanBatch()
        yield SpanBatch((REQUEST,), dropped=3)
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_a_collector_gets_requests_under_the_span_of_their_caller(
    collector: Queue[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(spans(), TracingDaemon(kept=[]))
            body = await anyio.to_thread.run_sync(collector.get)
            group.cancel_scope.cancel()
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    found = {span.name: span for span in resource.scope_spans[0].spans}
    assert set(found) == {"POST infer", "wait for a worker"}
    whole, wait = found["POST infer"], found["wait for a worker"]
    assert whole.trace_id.hex() == wait.trace_id.hex() == REQUEST.trace
    assert (whole.span_id.hex(), whole.parent_span_id.hex()) == (REQUEST.span, REQUEST.parent)
    assert wait.parent_span_id == whole.span_id
    assert whole.kind == whole.SPAN_KIND_SERVER
    assert whole.end_time_unix_nano - whole.start_time_unix_nano == 4 * 10**9
    assert [event.name for event in whole.events] == ["answer begun"]
    assert "3 spans of requests were dropped" in capsys.readouterr().err
