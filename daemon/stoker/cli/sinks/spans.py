"""What the daemon does as OpenTelemetry spans: a trace for each start and each end of a replica. And the
router's hop in the traces of its callers (`request_spans`).

The seams are the stream of events and what the router tells of requests that have ended, so no request waits
for it. How they go out is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES`, ...).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio

from stoker.api.facade import DaemonFacade
from stoker.api.narrate import sentence
from stoker.cli.sinks.request_spans import request_span
from stoker.cli.sinks.span import Attributes, Span
from stoker.errors import StokerError
from stoker.model import event as facts
from stoker.model.event import ReplicaEvent
from stoker.runtime.options import Observer

if TYPE_CHECKING:
    from stoker.cli.sinks.span_export import Exporter

START, END = "replica start", "replica end"
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0
"""Seconds between two attempts to be told of requests; doubles from one to the next."""


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
        from stoker.cli.sinks.span_export import Exporter

        exporter = Exporter()
    except ImportError as error:
        raise StokerError(f"--spans takes the extra: pip install 'stoker[otel]' ({error})") from error

    async def follow(facade: DaemonFacade) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_follow_requests, facade, exporter)
            await _follow_events(facade, exporter)

    return follow


async def _follow_events(facade: DaemonFacade, exporter: Exporter) -> None:
    courses = Courses()
    async with aclosing(facade.events(facade.beginning)) as events:
        async for event in events:
            for span in courses.fold(event):
                await exporter.send([span])


async def _follow_requests(facade: DaemonFacade, exporter: Exporter) -> None:
    """Whoever is to be asked may not run yet, or not now; a router that tells none may be replaced."""
    pause = FIRST_PAUSE
    while True:
        try:
            async with aclosing(facade.spans()) as batches:
                async for batch in batches:
                    pause = FIRST_PAUSE
                    if batch.dropped:
                        lost = f"{batch.dropped} spans of requests were dropped"
                        sys.stderr.write(f"stoker: {lost}: more come than the collector takes\n")
                    offset = time.time() - anyio.current_time()
                    await exporter.send([request_span(request, offset) for request in batch.spans])
        except StokerError:
            pause = min(2 * pause, LONGEST_PAUSE)
        await anyio.sleep(pause)
