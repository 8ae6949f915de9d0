"""Demand some seconds ahead, and how wrong one's own forecasts were: head-room that is learned. Pure.

Demand is the number of slots that would be in use if none were short: requests in flight while nothing
queues, else what arrived, held for the mean service time. So a queue never inflates it.

What a promised wait asks for is less than the peaks of demand: with c slots, a demand of x above c makes
x - c requests queue, and every second more x - c over the service time. They all start within the wait w
as long as the mean of demand over the last t seconds, for each t, stays below c (s + t + w) / (s + t), s
being the service time (which counts the demand of this instant). The largest c that any t asks for is the
`load` that forecasts are measured by.

All functions take and give `Memory`, JSON data. They never change a list in place: a memory that was handed
out stays what it was.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice
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
_REMEMBERED = 64
"""Samples of demand that are kept one by one."""
_STRETCH = 8
_LARGE = 1e6
"""Totals begin anew above this: their differences must stay exact."""
_SPANS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""How many of them means are taken of."""
_ABOVE_TOP = 1.05
_BLIND = 60.0
"""Seconds in which forecasts have nothing to go by; their errors teach nothing."""
_LEARNING = 30.0
"""Seconds before which the highest load that was seen says nothing."""
_SHORTEST = 1e-3
"""Seconds; a service time of zero would leave nothing to divide by."""


def fresh(now: float) -> Memory:
    """What is known at the first look."""
    return {
        "at": now, "age": 0.0, "weight": 0.0, "seconds": 0.0, "slow": 0.0, "fast": 0.0, "demand": 0.0,
        "totals": [[0.0, 0.0, 0.0]], "older": [], "level": 0.0, "load": 0.0, "top": 0.0,
        "smooth": [], "peak": 0.0, "arrived": 0.0, "next": now, "pending": [], "seen": 0,
        "counts": [[0.0] * _BINS] * EXPERTS, "loss": [0.0] * EXPERTS, "expert": 1, "head": [_PRIOR] * EXPERTS,
        "scale": 1.0,
    }  # fmt: skip


def service_time(memory: Memory) -> float:
    """Mean seconds a request holds a slot, over about the last 500; 1 before the first."""
    return max(_SHORTEST, memory["seconds"] / memory["weight"]) if memory["weight"] > 0 else 1.0


def measure(memory: Memory, dt: float, horizon: float, wait: float, **seen: float) -> None:
    """Take `dt` seconds in. `seen`: arrivals, completions, service_seconds, in_flight (mean of the requests
    in replicas and queue), queued (at the end). `wait`: seconds of it that are promised."""
    arrivals, completions = seen["arrivals"], seen["completions"]
    if completions > 0:
        fade = 0.998**completions
        memory["weight"] = memory["weight"] * fade + completions
        memory["seconds"] = memory["seconds"] * fade + seen["service_seconds"]
    mean = service_time(memory)
    rate = arrivals / dt
    before = memory["age"]
    age = memory["age"] = before + dt
    slow, fast = max(60.0, 2 * horizon, 2 * mean), max(10.0, min(horizon, 30.0))
    memory["slow"] += (1 - math.exp(-dt / min(slow, age))) * (rate - memory["slow"])
    memory["fast"] += (1 - math.exp(-dt / min(fast, age))) * (rate - memory["fast"])
    if seen["queued"] > 0:
        left = math.exp(-dt / mean)
        memory["demand"] = memory["demand"] * left + rate * (1 - left) * mean
    else:
        memory["demand"] = seen["in_flight"]
    _remember(memory, dt, arrivals)
    level = memory["level"] = _recent_mean(memory, max(1.0, min(wait, 30.0)))
    load = memory["load"] = _load(memory, mean, wait)
    memory["peak"] = max(memory["peak"], load)
    memory["top"] = max(memory["top"] * math.exp(-dt / MEMORY), level)
    memory["arrived"] += arrivals
    if memory["smooth"]:
        memory["smooth"] = [
            level + _kept(age - dt, age, tau) * (old - level)
            for old, tau in zip(memory["smooth"], SMOOTHING, strict=True)
        ]
    else:
        memory["smooth"] = [level] * len(SMOOTHING)


def _kept(before: float, after: float, tau: float) -> float:
    """How much of an exponential mean stays while its age grows: a young one is the plain mean of all."""
    if before >= tau >= SMOOTHING[0]:
        return math.exp((before - after) / tau)
    before, after = max(before, SMOOTHING[0]), max(after, SMOOTHING[0])
    return min(1.0, before / min(after, tau)) * math.exp((max(tau, before) - max(tau, after)) / tau)


def _remember(memory: Memory, dt: float, arrivals: float) -> None:
    """Totals of seconds, demand and arrivals up to now. The newest are in `totals`, oldest first; `older`
    are full stretches of them, newest first: so one more sample copies few of those before."""
    recent = memory["totals"]
    seconds, area, came = recent[-1]
    newest = [seconds + dt, area + dt * memory["demand"], came + arrivals]
    if len(recent) < _STRETCH:
        memory["totals"] = [*recent, newest]
        return
    former = [recent, *memory["older"][: _REMEMBERED // _STRETCH]]
    if area > _LARGE:
        former = [[[t - seconds, a - area, c - came] for t, a, c in stretch] for stretch in former]
        newest = [dt, dt * memory["demand"], arrivals]
    memory["totals"], memory["older"] = [newest], former


def _back(memory: Memory) -> Iterator[Sequence[float]]:
    """The totals up to now, then those of one sample before, and so on."""
    return chain(reversed(memory["totals"]), *map(reversed, memory["older"]))


def _recent_mean(memory: Memory, span: float) -> float:
    """Mean demand over the last `span` seconds: bursts that a good wait absorbs are none."""
    totals = _back(memory)
    now, total, _ = next(totals)
    seconds, area, _ = next(totals)
    while now - seconds < span - 1e-6:
        before = next(totals, None)
        if before is None:
            break
        seconds, area, _ = before
    return (total - area) / (now - seconds)


def _load(memory: Memory, mean: float, wait: float) -> float:
    """Slots that were needed for nobody to have waited longer than `wait`: see above."""
    recent, former = memory["totals"], memory["older"]
    newest = len(recent) - 1
    now, total, _ = recent[-1]
    demand, reach = memory["demand"] * mean, mean + wait
    found: float = demand / reach
    for place in _SPANS[: bisect_right(_SPANS, newest + _STRETCH * len(former))]:
        if place <= newest:
            seconds, area, _ = recent[newest - place]
        else:
            stretch, left = divmod(place - newest - 1, _STRETCH)
            seconds, area, _ = former[stretch][-1 - left]
        asked = (demand + total - area) / (reach + now - seconds)
        found = max(found, asked)
    return found


def came_within(memory: Memory, seconds: float) -> float:
    """Requests that came in the last `seconds`, up to a minute."""
    totals = _back(memory)
    now, _, came = next(totals)
    found = 0.0
    for began, _, before in islice(totals, _REMEMBERED):
        if now - began > seconds + 1e-6:
            break
        found = came - before
    return found


def bounded(memory: Memory, expected: float, wanted: float) -> float:
    """`wanted`, but without what no hour has seen: errors that were learned at a low load, or while it grew,
    say too much at a high one."""
    if memory["age"] <= _LEARNING:
        return wanted
    most: float = memory["top"] * _ABOVE_TOP + 0.5
    return min(wanted, max(expected, most))


def rest(memory: Memory, seconds: float) -> None:
    """So long nothing came and nobody looked: forecasts of nothing, that were right, and fading."""
    if seconds <= 0:
        return
    memory["scale"] *= math.exp(min(seconds / MEMORY, 10.0))
    weight = _IDLE_WEIGHT * seconds / STEP * memory["scale"]
    memory["counts"] = [
        [*counts[:_ZERO], counts[_ZERO] + weight, *counts[_ZERO + 1 :]] for counts in memory["counts"]
    ]


def forecast(memory: Memory, horizon: float) -> float:
    """Demand `horizon` seconds ahead by the expert in use."""
    expert = memory["expert"]
    if expert < len(SMOOTHING):
        smooth: float = memory["smooth"][expert]
        return smooth
    return forecasts(memory, horizon)[expert]


def forecasts(memory: Memory, horizon: float) -> list[float]:
    """Demand `horizon` seconds ahead by each expert: three smoothed means, and what is left of the present
    requests plus what will have come, at four opinions of the rate."""
    mean = service_time(memory)
    left = math.exp(-horizon / mean)
    stays, comes = memory["level"] * left, mean * (1 - left)
    slow, fast = memory["slow"], memory["fast"]
    rates = (slow, max(slow, fast), fast, fast + max(0.0, fast - slow) * 0.5)
    return [*memory["smooth"], *(stays + rate * comes for rate in rates)]


def learn(memory: Memory, now: float, horizon: float, risk: float) -> None:
    """Once a `STEP`: keep the present forecasts, compare those that are due with what came."""
    if now + 1e-9 < memory["next"]:
        return
    memory["next"] = now + STEP
    met, weight = memory["peak"], memory["arrived"] + _IDLE_WEIGHT
    memory["peak"], memory["arrived"] = memory["load"], 0.0
    memory["scale"] *= math.exp(STEP / MEMORY)
    due = [entry for entry in memory["pending"] if entry[0] <= now - horizon]
    kept = [entry for entry in memory["pending"] if entry[0] > now - horizon]
    if memory["age"] >= _BLIND:
        kept.append([now, forecasts(memory, horizon), memory["head"]])
    memory["pending"] = kept
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
        if not count:
            continue
        if count >= left > 0:
            return _error(place + 0.5 - left / count)
        left -= count
    return 0.0


def _error(place: float) -> float:
    return math.sinh((place - _ZERO) / _FINENESS) * _UNIT
