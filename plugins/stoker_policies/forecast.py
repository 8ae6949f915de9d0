"""Demand some seconds ahead, and how wrong one's own forecasts were: head-room that is learned. Pure.

Demand is the number of slots that would be in use if none were short: requests in flight while nothing
queues, else what arrived, held for the mean service time. So a queue never inflates it.

All functions take and give `Memory`, JSON data. They never change a list in place: a memory that was handed
out stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Memory = dict[str, Any]

STEP = 5.0
"""Seconds between two forecasts that are kept, to be compared with what came."""
MEMORY = 3600.0
"""Seconds over which past errors fade."""
SMOOTHING = (10.0, 60.0, 300.0)
"""Seconds of the exponential means of demand that serve as forecasts."""
EXPERTS = len(SMOOTHING) + 4
_PRIOR = 1.5
"""Standard errors of head-room before anything is learned."""
_LEARNED = 24
"""Errors after which the prior goes."""
_BINS, _ZERO, _FINENESS, _UNIT = 104, 44, 8.0, 0.5
"""Errors are counted in bins that grow with the error: about 6 % of one near zero, 12 % far from it."""
_IDLE_WEIGHT = 0.02
"""What a forecast counts for that no request met."""
_WEIGHT_LIMIT = 1e9
_SHORTEST = 1e-3
"""Seconds; a service time of zero would leave nothing to divide by."""


def fresh(now: float) -> Memory:
    """What is known at the first look."""
    return {
        "at": now, "age": 0.0, "weight": 0.0, "seconds": 0.0, "slow": 0.0, "fast": 0.0, "demand": 0.0,
        "recent": [], "smooth": [], "peak": 0.0, "arrived": 0.0, "next": now, "pending": [], "seen": 0,
        "counts": [[0.0] * _BINS] * EXPERTS, "loss": [0.0] * EXPERTS, "expert": 1, "head": [_PRIOR] * EXPERTS,
        "scale": 1.0,
    }  # fmt: skip


def service_time(memory: Memory) -> float:
    """Mean seconds a request holds a slot, over about the last 500; 1 before the first."""
    return max(_SHORTEST, memory["seconds"] / memory["weight"]) if memory["weight"] > 0 else 1.0


def measure(memory: Memory, dt: float, horizon: float, smoothing: float, **seen: float) -> None:
    """Take `dt` seconds in. `seen`: arrivals, completions, service_seconds, in_flight (mean of the requests
    in replicas and queue), queued (at the end). `smoothing`: seconds of wait that nobody minds."""
    if seen["completions"] > 0:
        fade = 0.998 ** seen["completions"]
        memory["weight"] = memory["weight"] * fade + seen["completions"]
        memory["seconds"] = memory["seconds"] * fade + seen["service_seconds"]
    mean = service_time(memory)
    rate = seen["arrivals"] / dt
    memory["age"] += dt
    slow, fast = max(60.0, 2 * horizon, 2 * mean), max(10.0, min(horizon, 30.0))
    memory["slow"] += (1 - math.exp(-dt / min(slow, memory["age"]))) * (rate - memory["slow"])
    memory["fast"] += (1 - math.exp(-dt / min(fast, memory["age"]))) * (rate - memory["fast"])
    if seen["queued"] > 0:
        left = math.exp(-dt / mean)
        memory["demand"] = memory["demand"] * left + rate * (1 - left) * mean
    else:
        memory["demand"] = seen["in_flight"]
    level = _recent_mean(memory, dt, smoothing)
    memory["peak"] = max(memory["peak"], level)
    memory["arrived"] += seen["arrivals"]
    if memory["smooth"]:
        memory["smooth"] = [
            old + (1 - math.exp(-dt / tau)) * (level - old)
            for old, tau in zip(memory["smooth"], SMOOTHING, strict=True)
        ]
    else:
        memory["smooth"] = [level] * len(SMOOTHING)


def _recent_mean(memory: Memory, dt: float, span: float) -> float:
    """Mean demand over the last `span` seconds: bursts that a good wait absorbs are none."""
    recent = [[dt, memory["demand"]], *memory["recent"]]
    covered, total, kept = 0.0, 0.0, 0
    for seconds, value in recent:
        if covered >= span - 1e-9:
            break
        covered += seconds
        total += seconds * value
        kept += 1
    memory["recent"] = recent[:kept]
    memory["level"] = total / covered
    return total / covered


def rest(memory: Memory, seconds: float) -> None:
    """So long nothing came and nobody looked: forecasts of nothing, that were right, and fading."""
    if seconds <= 0:
        return
    memory["scale"] *= math.exp(min(seconds / MEMORY, 10.0))
    weight = _IDLE_WEIGHT * seconds / STEP * memory["scale"]
    memory["counts"] = [
        [*counts[:_ZERO], counts[_ZERO] + weight, *counts[_ZERO + 1 :]] for counts in memory["counts"]
    ]


def forecasts(memory: Memory, horizon: float) -> list[float]:
    """Demand `horizon` seconds ahead by each expert: three smoothed means, and what is left of the present
    requests plus what will have come, at four opinions of the rate."""
    mean = service_time(memory)
    left = math.exp(-horizon / mean)
    stays, comes = memory["level"] * left, mean * (1 - left)
    slow, fast = memory["slow"], memory["fast"]
    rates = (slow, max(slow, fast), fast, fast + max(0.0, fast - slow) * 0.5)
    return [*memory["smooth"], *(stays + rate * comes for rate in rates)]


def learn(memory: Memory, now: float, horizon: float, risk: float, expected: Sequence[float]) -> None:
    """Once a `STEP`: keep the present forecasts, compare those that are due with what came."""
    if now + 1e-9 < memory["next"]:
        return
    memory["next"] = now + STEP
    met, weight = memory["peak"], memory["arrived"] + _IDLE_WEIGHT
    memory["peak"], memory["arrived"] = memory["level"], 0.0
    memory["scale"] *= math.exp(STEP / MEMORY)
    due = [entry for entry in memory["pending"] if entry[0] <= now - horizon]
    kept = [entry for entry in memory["pending"] if entry[0] > now - horizon]
    memory["pending"] = [*kept, [now, list(expected), memory["head"]]]
    for _, before, heads in due:
        _score(memory, before, heads, met, weight, risk)
    if memory["seen"] >= _LEARNED and due:
        memory["head"] = [_quantile(counts, risk) for counts in memory["counts"]]
        best = min(range(EXPERTS), key=memory["loss"].__getitem__)
        if memory["loss"][best] < 0.95 * memory["loss"][memory["expert"]]:
            memory["expert"] = best
    if memory["scale"] > _WEIGHT_LIMIT:
        memory["counts"] = [[count / memory["scale"] for count in counts] for counts in memory["counts"]]
        memory["scale"] = 1.0


def _score(
    memory: Memory, before: Sequence[float], heads: Sequence[float], met: float, weight: float, *rest: float
) -> None:
    """Count each expert's error, and what it would have cost: too little per request, too much per hour."""
    (risk,) = rest
    short, idle = _IDLE_WEIGHT * (1 - risk) / risk * weight, _IDLE_WEIGHT
    counts, loss = list(memory["counts"]), list(memory["loss"])
    for i, forecast in enumerate(before):
        spread = math.sqrt(forecast + 1)
        missing = met - forecast - heads[i] * spread
        loss[i] = loss[i] * 0.998 + (missing * short if missing > 0 else -missing * idle)
        place = round(math.asinh((met - forecast) / spread / _UNIT) * _FINENESS) + _ZERO
        row = list(counts[i])
        row[max(0, min(_BINS - 1, place))] += weight * memory["scale"]
        counts[i] = row
    memory["counts"], memory["loss"], memory["seen"] = counts, loss, memory["seen"] + 1


def _quantile(counts: Sequence[float], risk: float) -> float:
    """The error that the given share of requests exceeded, interpolated inside its bin."""
    left = risk * sum(counts)
    place = _BINS
    for count in reversed(counts):
        place -= 1
        if count >= left > 0:
            return _error(place + 0.5 - left / count)
        left -= count
    return 0.0


def _error(place: float) -> float:
    return math.sinh((place - _ZERO) / _FINENESS) * _UNIT
