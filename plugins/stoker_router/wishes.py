"""What a request asks of its service in its own header fields, as far as the service listens to them. Pure.

Read from the head that goes to the worker, only for services that have such rules: all others pay nothing.
"""

from __future__ import annotations

import re
import secrets
from math import inf
from typing import NamedTuple

from stoker_router.table import RouteConfig

MOST_PRIORITY = 100
"""Priorities beyond this, up or down, count as this."""
USUAL_URGENCY = 3
"""RFC 9218's urgency of what does not say."""

_WHOLE = re.compile(rb"[+-]?[0-9]{1,6}")
_URGENCY = re.compile(rb"(?:^|[,\s])u=([0-7])(?:$|[,;\s])")
_SECONDS = re.compile(rb"[0-9]{1,7}(?:\.[0-9]{1,9})?")
_TRACE_PARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
_TRACE_FIELDS = re.compile(rb"\r\n(?:traceparent|tracestate):[^\r]*", re.IGNORECASE)


def field(name: str) -> re.Pattern[bytes]:
    """What finds that field's value (group 1) in a head."""
    return re.compile(rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r]*?)[ \t]*(?=\r\n)", re.IGNORECASE)


_PARENT = field("traceparent")
_ACCEPT = field("accept")


def trace_parent(data: bytes) -> re.Match[bytes] | None:
    """Where (group 1) a head, perhaps with a body after it, says which trace it belongs to; None if it does
    not, or not as W3C wants it."""
    found = _PARENT.search(data, 0, data.find(b"\r\n\r\n") + 2)
    return found if found is not None and _TRACE_PARENT.fullmatch(found[1]) else None


class Wishes(NamedTuple):
    """The rules of one service."""

    priority: re.Pattern[bytes] | None
    timeout: re.Pattern[bytes] | None
    start_trace: bool

    def priority_of(self, head: bytes) -> int:
        """How much before others (0) it is to be served."""
        found = self.priority.search(head) if self.priority is not None else None
        return _priority(found[1]) if found is not None else 0

    def patience_of(self, head: bytes) -> float:
        """Seconds that it is worth waiting for, infinite if it does not say."""
        found = self.timeout.search(head) if self.timeout is not None else None
        return float(found[1]) if found is not None and _SECONDS.fullmatch(found[1]) else inf

    def traced(self, data: bytes) -> bytes:
        """A head, perhaps with the beginning of a body, with a trace context; a bad one begins anew."""
        if not self.start_trace or trace_parent(data) is not None:
            return data
        end = data.find(b"\r\n\r\n")
        head = _TRACE_FIELDS.sub(b"", data[:end])
        parent = b"00-%b-%b-01" % (secrets.token_hex(16).encode(), secrets.token_hex(8).encode())
        return b"%b\r\ntraceparent: %b%b" % (head, parent, data[end:])


def wishes_of(route: RouteConfig) -> Wishes | None:
    """The rules of a service, None if it has none."""
    priority = field(route.priority_header) if route.priority_header else None
    timeout = field(route.timeout_header) if route.timeout_header else None
    start = route.trace == "start"
    return Wishes(priority, timeout, start) if priority or timeout or start else None


def _priority(text: bytes) -> int:
    """A whole number, or RFC 9218's urgency, of which 0 is the highest."""
    if _WHOLE.fullmatch(text):
        return max(-MOST_PRIORITY, min(MOST_PRIORITY, int(text)))
    urgency = _URGENCY.search(text)
    return USUAL_URGENCY - int(urgency[1]) if urgency is not None else 0


def likes_pages(head: bytes) -> bool:
    """Whether who asks is a browser that shows a page: it accepts HTML, and no JSON before that."""
    accept = _ACCEPT.search(head, 0, head.find(b"\r\n\r\n") + 2)
    if accept is None:
        return False
    kinds = accept[1].lower()
    page, data = kinds.find(b"text/html"), kinds.find(b"application/json")
    return page >= 0 and (data < 0 or page < data)
