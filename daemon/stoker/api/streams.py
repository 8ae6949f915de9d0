"""Answers without an end: they stop when the client goes, when their source ends or when the daemon does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stoker.api.facade import DaemonFacade
from stoker.api.narrate import event_document
from stoker.model.event import Event
from stoker.model.load import RequestBatch, RequestRecord

JSON_LINES = "application/x-ndjson"
SSE = "text/event-stream"


class EndlessResponse(StreamingResponse):
    """A stream that `closing` ends in good order, so that a client sees an end and no broken connection."""

    def __init__(self, content: AsyncIterator[bytes], closing: anyio.Event, *, media_type: str) -> None:
        super().__init__(content, media_type=media_type, headers={"cache-control": "no-store"})
        self._closing = closing
        self._complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = anyio.Event()

        async def wait(end: Callable[[], Awaitable[None]], then: anyio.Event | None) -> None:
            await end()
            if then is not None:
                then.set()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(wait, partial(self.listen_for_disconnect, receive), gone)
            group.start_soon(wait, self._closing.wait, None)
            await self.stream_response(send)
            self._complete = True
            group.cancel_scope.cancel()
        if not self._complete and not gone.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def server_sent_events(facade: DaemonFacade, after: str) -> AsyncIterator[bytes]:
    """Events after that id as SSE messages; the id of each lets a client come back with Last-Event-ID."""
    yield b": the daemon's events\n\n"
    async with aclosing(facade.events(after)) as events:
        async for event in events:
            yield _message(event)


async def request_lines(
    batches: AsyncGenerator[Sequence[RequestRecord], None], offset: float
) -> AsyncIterator[bytes]:
    """Requests as JSON lines; `offset`: from monotonic seconds to those since the epoch. An empty line says
    that recording has begun; {"dropped": N} that N more had ended and were not told."""
    yield b"\n"
    async with aclosing(batches):
        async for batch in batches:
            yield b"".join(_request_line(record, offset) for record in batch)
            if isinstance(batch, RequestBatch) and batch.dropped:
                yield json.dumps({"dropped": batch.dropped}).encode() + b"\n"


def _request_line(record: RequestRecord, offset: float) -> bytes:
    document = {
        "service": record.service,
        "arrived": round(record.arrived + offset, 6),
        "wait_s": round(record.waited, 6),
        "service_s": round(record.held, 6),
        "status": record.status,
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _message(event: Event) -> bytes:
    document = event_document(event)
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return f"id: {event.id}\nevent: {document['type']}\ndata: {data}\n\n".encode(errors="replace")


def start_of(facade: DaemonFacade, tail: int | None) -> str:
    """The id after which a reader begins that wants the last `tail` events (None: all that are kept)."""
    if tail is None:
        return ""
    kept = facade.recent_events()
    return kept[-tail - 1].id if tail < len(kept) else ""
