"""The last hour as JSON: one list per figure, a quarter of what one object per point would be. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.api.facade import LevelPoint, LoadPoint, ServiceHistory
from stoker.model.service import ServiceKey


def history_document(histories: Mapping[ServiceKey, ServiceHistory], offset: float) -> dict[str, Any]:
    """`services` of `GET /v1/history`. `offset` is what makes seconds since the epoch of monotonic ones.

    `load`: `t` is the end of each stretch, `s` its length in seconds; in_flight and queued are exact means,
    p50 and p99 milliseconds or null. `levels`: `t` is when the counts came into being.
    """
    return {
        key: {"load": load_lists(found.load, offset), "levels": level_lists(found.levels, offset)}
        for key, found in histories.items()
    }


def load_lists(points: Sequence[LoadPoint], offset: float) -> dict[str, list[float | None]]:
    """Points of load, list by list."""
    return {
        "t": [round(point.at + offset, 2) for point in points],
        "s": [round(point.seconds, 2) for point in points],
        "in_flight": [_short(point.in_flight) for point in points],
        "queued": [_short(point.queued) for point in points],
        "rps": [_short(point.rps) for point in points],
        "p50": [_short(point.p50_ms) for point in points],
        "p99": [_short(point.p99_ms) for point in points],
    }


def level_lists(points: Sequence[LevelPoint], offset: float) -> dict[str, list[float]]:
    """Counts of replicas, list by list."""
    return {
        "t": [round(point.at + offset, 2) for point in points],
        "target": [point.target for point in points],
        "ready": [point.ready for point in points],
        "replicas": [point.replicas for point in points],
    }


def _short(value: float | None) -> float | None:
    """Three digits are what a plot shows."""
    if value is None or value == int(value):
        return value if value is None else int(value)
    return float(f"{value:.3g}")
