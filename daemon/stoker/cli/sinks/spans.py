"""What the daemon does as OpenTelemetry spans: a trace for each start and each end of a replica.

The seam is the stream of events, so no request waits for it. How they go out is said by OpenTelemetry's own
variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES`, ...).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio.to_thread

from stoker import __version__
from stoker.api.facade import DaemonFacade
from stoker.api.narrate import sentence
from stoker.errors import StokerError
from stoker.model import event as facts
from stoker.model.event import ReplicaEvent
from stoker.runtime.options import Observer

Attributes = dict[str, str | int | Sequence[str]]
Send = Callable[["Span"], None]
START, END = "replica start", "replica end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a replica's life; `begin`, `end`: seconds since the epoch. `trouble`: why it failed."""

    name: str
    begin: float
    end: float
    attributes: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)
    steps: tuple[Span, ...] = ()
    trouble: str = ""


@dataclass(slots=True)
class _Course:
    """A start or an end under way: the steps so far, and the one that is being taken."""

    name: str
    began: float
    step: str
    since: float
    attributes: Attributes
    steps: list[Span] = field(default_factory=list)

    def go_on(self, step: str, at: float) -> None:
        self.steps.append(Span(name=self.step, begin=self.since, end=at))
        self.step, self.since = step, at

    def span(self, at: float, trouble: str = "") -> Span:
        last = Span(name=self.step, begin=self.since, end=at, trouble=trouble)
        steps = (*self.steps, last)
        made = Span(name=self.name, begin=self.began, end=at, attributes=self.attributes, steps=steps)
        return replace(made, trouble=trouble)


class Courses:
    """Joins events into spans. Pure but for what it remembers: the replicas that start or end now."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Course] = {}

    def fold(self, event: facts.Event) -> Iterator[Span]:
        """The spans that are complete with this event."""
        if not isinstance(event, ReplicaEvent):
            return
        course = self._under_way.get(event.replica)
        starting = course is not None and course.name == START
        match event:
            case facts.ReplicaBecameReady() if starting:
                yield self._end(event)
            case facts.SpawnFailed() | facts.WorkerExited() if starting:
                yield self._end(event, sentence(event))
            case facts.WorkerExited() if course:
                yield self._end(event)
            case facts.ReplicaForgotten() | facts.ReplicaResumed():
                self._under_way.pop(event.replica, None)
            case _:
                self._go_on(event, course)

    def _go_on(self, event: ReplicaEvent, course: _Course | None) -> None:
        match event:
            case facts.ReplicaAdded():
                self._begin(event, START, "wait for a place")["stoker.revision"] = event.revision
            case facts.StartRequested():
                if course is None or course.name != START:
                    self._begin(event, START, "spawn")
                else:
                    course.go_on("spawn", event.wall)
                devices = [taken.uuid for taken in event.reservations]
                self._under_way[event.replica].attributes["stoker.devices"] = devices
            case facts.WorkerSpawned() if course:
                course.attributes["process.pid"] = event.handle.pid
                course.go_on("start up", event.wall)
            case facts.DrainRequested() if course is None:
                self._begin(event, END, "drain")
            case facts.StopSignalled() if course is None:
                self._begin(event, END, "stop")
            case facts.StopSignalled() if course and course.name == END:
                course.go_on("stop", event.wall)

    def _begin(self, event: ReplicaEvent, name: str, step: str) -> Attributes:
        deployment, _, service = event.service.rpartition("/")
        attributes: Attributes = {
            "stoker.deployment": deployment,
            "stoker.service": service,
            "stoker.replica": event.replica,
        }
        self._under_way[event.replica] = _Course(name, event.wall, step, event.wall, attributes)
        return attributes

    def _end(self, event: ReplicaEvent, trouble: str = "") -> Span:
        return self._under_way.pop(event.replica).span(event.wall, trouble)


def spans() -> Observer:
    """An observer that sends them until the daemon ends. Raises StokerError where the extra is missing."""
    try:
        send = _exporter()
    except ImportError as error:
        raise StokerError(f"--spans takes the extra: pip install 'stoker[otel]' ({error})") from error

    async def follow(facade: DaemonFacade) -> None:
        courses = Courses()
        async for event in facade.events(facade.beginning):
            for span in courses.fold(event):
                await anyio.to_thread.run_sync(partial(send, span), abandon_on_cancel=True)

    return follow


def _exporter() -> Send:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Basket(SpanProcessor):
        """Keeps what has ended until the trace is whole; a timer of its own would wake the box at rest."""

        def __init__(self) -> None:
            self.ended: list[ReadableSpan] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.ended.append(span)

    basket, exporter = Basket(), OTLPSpanExporter()
    resource = Resource.create({"service.name": "stoker", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(basket)
    tracer = provider.get_tracer("stoker", __version__)
    arriving = True

    def send(span: Span) -> None:
        nonlocal arriving
        _record(tracer, span)
        batch, basket.ended = basket.ended, []
        arrived = exporter.export(batch) is SpanExportResult.SUCCESS
        if arriving and not arrived:
            sys.stderr.write("stoker: spans do not arrive; see OTEL_EXPORTER_OTLP_ENDPOINT\n")
        arriving = arrived

    return send


def _record(tracer: Any, span: Span, parent: Any = None) -> None:
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    made = tracer.start_span(
        span.name, context=parent, attributes=dict(span.attributes), start_time=round(span.begin * 1e9)
    )
    for step in span.steps:
        _record(tracer, step, set_span_in_context(made))
    if span.trouble:
        made.set_status(Status(StatusCode.ERROR, span.trouble))
    made.end(end_time=round(span.end * 1e9))
