"""A span before it is OpenTelemetry's: what both kinds of ours are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Attributes = dict[str, str | int | float | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span stands in a trace that others know: ids in hexadecimal, `parent` is "" where it is the
    first."""

    trace: str
    parent: str
    span: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened in it; `at`: seconds since the epoch."""

    name: str
    at: float
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time; `begin`, `end`: seconds since the epoch. `trouble`: why it failed. `place`: None for
    a trace of its own. `server`: it is somebody's call that was answered."""

    name: str
    begin: float
    end: float
    attributes: Mapping[str, str | int | float | Sequence[str]] = field(default_factory=dict)
    steps: tuple[Span, ...] = ()
    moments: tuple[Moment, ...] = ()
    trouble: str = ""
    place: Place | None = None
    server: bool = False
