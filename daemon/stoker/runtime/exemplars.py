"""Of the traced requests the newest of each length: what /metrics names as exemplars."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stoker.api.facade import Exemplar
from stoker.model.service import ServiceKey
from stoker.model.trace import SpanBatch

FINENESS = 4
"""Lengths of a doubling that are told apart: finer than a histogram's buckets."""


class Exemplars:
    """Filled while somebody reads the spans of requests."""

    def __init__(self) -> None:
        self._newest: dict[ServiceKey, dict[int, Exemplar]] = {}

    def take(self, batch: SpanBatch, offset: float) -> None:
        """Requests that have ended. `offset`: from monotonic seconds to those since the epoch."""
        for span in batch.spans:
            seconds = max(span.ended - span.arrived, 1e-6)
            length = math.floor(math.log2(seconds) * FINENESS)
            found = self._newest.setdefault(span.service, {})
            found[length] = Exemplar(trace=span.trace, seconds=seconds, at=span.ended + offset)

    def of(self, services: Mapping[ServiceKey, object]) -> dict[ServiceKey, tuple[Exemplar, ...]]:
        """Those of these services; the others are forgotten."""
        self._newest = {key: found for key, found in self._newest.items() if key in services}
        return {key: tuple(found.values()) for key, found in self._newest.items()}
