"""The router's own hop in its callers' traces: a span for each request whose trace context says `sampled`.

While somebody collects spans, the worker is told the span's id as its parent, in place of the caller's: same
length, same place. Requests without a context, or whose caller does not sample, pass as they are, and while
nobody collects, nothing is looked at. Pure but for chance: ids are drawn.
"""

from __future__ import annotations

from random import getrandbits
from time import monotonic

from stoker_router.access import Entry, Mark, Trail, agent_of, asked
from stoker_router.wishes import trace_parent

_TRACE, _SPAN, _FLAGS = slice(3, 35), slice(36, 52), slice(53, 55)
_SAMPLED = 1


def marked(data: bytes, *, begun: bool) -> tuple[bytes, Mark] | None:
    """The request, and who it is in its trace; None where no span is wanted. `begun`: its context is one that
    we have just given it, so that it has no caller there."""
    found = trace_parent(data)
    if found is None or not int(found[1][_FLAGS], 16) & _SAMPLED:
        return None
    parent = found[1].decode()
    if begun:
        return data, Mark(parent[_TRACE], "", parent[_SPAN])
    span = f"{getrandbits(64) or 1:016x}"
    start = found.start(1)
    changed = b"%b%b%b" % (data[: start + _SPAN.start], span.encode(), data[start + _SPAN.stop :])
    return changed, Mark(parent[_TRACE], parent[_SPAN], span)


def span_of(trail: Trail, entry: Entry, mark: Mark) -> dict[str, object]:
    """A request that has ended, as fields of a RequestSpan."""
    return {
        **asked(trail.head),
        "trace": mark.trace,
        "parent": mark.parent,
        "span": mark.span,
        "service": entry.service,
        "arrived": entry.arrived,
        "waited": max(0.0, entry.waited),
        "began": trail.began,
        "ended": monotonic(),
        "status": entry.status,
        "client": entry.client,
        "agent": agent_of(trail.head),
        "worker": entry.worker,
        "tries": entry.tries,
        "failed": trail.failed,
    }
