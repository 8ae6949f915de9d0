"""The past of a pool as a few lines of blocks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BLOCKS = "▁▂▃▄▅▆▇█"
SPANS = (120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds that a chart may go back."""
WIDTH = 60


def chart(history: Mapping[str, Any], now: float, since: float) -> Iterator[str]:
    """Load, wanted and ready replicas up to `now` (seconds since the epoch), from `since` or before it on.

    `history` is one service's part of `GET /v1/history`. Each column shows the highest value of its time.
    """
    span = next((span for span in SPANS if span >= now - since), SPANS[-1])
    step, begin = span / WIDTH, now - span
    load, levels = history["load"], history["levels"]
    busy = [0.0] * WIDTH
    for end, seconds, *parts in zip(load["t"], load["s"], load["in_flight"], load["queued"], strict=True):
        for column in _columns(end - seconds, end, begin, step):
            busy[column] = max(busy[column], sum(parts))
    target, ready = (_steps(levels["t"], levels[name], now, begin, step) for name in ("target", "ready"))
    most = max([1.0, *target, *ready])
    for name, values, top in (
        ("load", busy, max([1.0, *busy])),
        ("target", target, most),
        ("ready", ready, most),
    ):
        yield f"{name:<8}{_blocks(values, top)}  {values[-1]:g} now, {max(values):g} at most"
    ago = f"{span / 60:g} min ago"
    yield f"{'':<8}{ago}{'now':>{WIDTH - len(ago)}}"


def _steps(
    times: Sequence[float], values: Sequence[float], now: float, begin: float, step: float
) -> list[float]:
    """A level that stays as it is until it changes."""
    found = [0.0] * WIDTH
    for at, until, value in zip(times, [*times[1:], now][: len(times)], values, strict=True):
        for column in _columns(at, until, begin, step):
            found[column] = max(found[column], float(value))
    if values:
        found[-1] = float(values[-1])
    return found


def _columns(start: float, end: float, begin: float, step: float) -> range:
    """The columns that a stretch of time reaches into."""
    first, last = math.floor((start - begin) / step), math.ceil((end - begin) / step)
    return range(max(0, first), min(WIDTH, last))


def _blocks(values: Sequence[float], top: float) -> str:
    return "".join(BLOCKS[min(7, int(7.99 * value / top))] if value > 0 else "·" for value in values)
