"""Spans out, by OpenTelemetry's SDK and OTLP: the extra `otel`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import anyio
import anyio.to_thread
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from stoker import __version__
from stoker.cli.sinks.span import Place, Span


class _Basket(SpanProcessor):
    """Keeps what has ended until the batch is whole; a timer of its own would wake the box at rest."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """See SpanProcessor."""
        self.ended.append(span)


class _Ids(RandomIdGenerator):
    """Gives the next span the ids that others know it by already."""

    place: Place | None = None

    def generate_trace_id(self) -> int:
        """See IdGenerator; asked for only where there is no parent."""
        return super().generate_trace_id() if self.place is None else int(self.place.trace, 16)

    def generate_span_id(self) -> int:
        """See IdGenerator."""
        place, self.place = self.place, None
        return super().generate_span_id() if place is None else int(place.span, 16)


class Exporter:
    """Sends spans, one batch after the other, to where OpenTelemetry's own variables say."""

    def __init__(self) -> None:
        self._basket, self._ids, self._exporter = _Basket(), _Ids(), OTLPSpanExporter()
        resource = Resource.create({"service.name": "stoker", "service.version": __version__})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(self._basket)
        self._tracer = provider.get_tracer("stoker", __version__)
        self._turn = anyio.Lock()
        self._arriving = True

    async def send(self, spans: Sequence[Span]) -> None:
        """Send them; what does not arrive is lost, which is said once."""
        if spans:
            async with self._turn:
                await anyio.to_thread.run_sync(partial(self._send, spans), abandon_on_cancel=True)

    def _send(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self._record(span, _context(span.place))
        batch, self._basket.ended = self._basket.ended, []
        if not batch:
            return  # OTEL_TRACES_SAMPLER wants none of them
        arrived = self._exporter.export(batch) is SpanExportResult.SUCCESS
        if self._arriving and not arrived:
            sys.stderr.write("stoker: spans do not arrive; see OTEL_EXPORTER_OTLP_ENDPOINT\n")
        self._arriving = arrived

    def _record(self, span: Span, parent: Context | None) -> None:
        self._ids.place = span.place
        made = self._tracer.start_span(
            span.name,
            context=parent,
            kind=SpanKind.SERVER if span.server else SpanKind.INTERNAL,
            attributes=dict(span.attributes),
            start_time=_nanoseconds(span.begin),
        )
        for step in span.steps:
            self._record(step, set_span_in_context(made))
        for moment in span.moments:
            made.add_event(moment.name, dict(moment.attributes), _nanoseconds(moment.at))
        if span.trouble:
            made.set_status(Status(StatusCode.ERROR, span.trouble))
        made.end(end_time=_nanoseconds(span.end))


def _context(place: Place | None) -> Context | None:
    """The caller's span as the parent of the next one."""
    if place is None or not place.parent:
        return None
    sampled = TraceFlags(TraceFlags.SAMPLED)
    caller = SpanContext(int(place.trace, 16), int(place.parent, 16), is_remote=True, trace_flags=sampled)
    return set_span_in_context(NonRecordingSpan(caller))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
