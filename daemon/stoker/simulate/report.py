"""What a run came to, in the figures and the shape of `stoker simulate -o json`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from stoker.simulate.bound import clairvoyant
from stoker.simulate.replay import Case, Outcome
from stoker.simulate.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One service's row. Times in seconds; `peak`: replicas starting or ready at one time, at most."""

    name: str
    policy: str
    requests: int
    slo_miss_ratio: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    replica_seconds: float
    starts: int
    peak: int
    unserved: int
    bound_replica_seconds: float
    """What a schedule would cost that knows the future and lets nobody wait too long."""

    def document(self) -> dict[str, object]:
        """As JSON data, times to the microsecond."""
        return {
            key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


def figures(outcome: Outcome) -> Figures:
    """Sum an outcome up. A request that was never served counts as a miss, with its wait up to the end."""
    trace, limit = outcome.case.trace, outcome.case.slo_wait
    pairs = list(zip(trace.arrivals, trace.services, outcome.waits, strict=True))
    waits = [min(wait, max(0.0, outcome.ended - arrival)) for arrival, _, wait in pairs]
    latencies = sorted(wait + pair[1] for wait, pair in zip(waits, pairs, strict=True))
    misses = sum(wait > limit for wait in outcome.waits)
    waits.sort()
    spec = outcome.case.spec
    return Figures(
        name=spec.name,
        policy=" + ".join(rule.metric for rule in spec.scaling.policies),
        requests=len(trace),
        slo_miss_ratio=misses / len(trace) if len(trace) else 0.0,
        wait_p50_s=percentile(waits, 0.50),
        wait_p95_s=percentile(waits, 0.95),
        wait_p99_s=percentile(waits, 0.99),
        latency_p50_s=percentile(latencies, 0.50),
        latency_p95_s=percentile(latencies, 0.95),
        latency_p99_s=percentile(latencies, 0.99),
        replica_seconds=outcome.tally.replica_seconds,
        starts=outcome.tally.starts,
        peak=outcome.tally.peak,
        unserved=sum(math.isinf(wait) for wait in outcome.waits),
        bound_replica_seconds=_bound(outcome.case),
    )


@lru_cache(maxsize=16)
def _known_bound(
    trace: Trace, slots: int | None, slo_wait: float, startup: float, min_replicas: int
) -> float:
    return clairvoyant(trace, slots=slots, slo_wait=slo_wait, startup=startup, min_replicas=min_replicas)


def _bound(case: Case) -> float:
    scaling = case.spec.scaling
    return _known_bound(case.trace, case.spec.slots, case.slo_wait, case.startup, scaling.min_replicas)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of the (sorted) values lies, interpolated; 0 of none."""
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
