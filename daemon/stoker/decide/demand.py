"""From load samples to what a policy reads: exact means over a stretch of time. Pure.

The router sends a sample per interval while a service is busy and one last sample of zeros when it comes
to rest. So silence has two meanings: after zeros it is idle time (covered, zero load), after activity it
is missing data (not covered; `LoadWindow.age` grows). No data is not zero load.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from stoker.model.load import LoadSample, LoadWindow, Usage

FINE_SECONDS = 120.0
"""How long samples are kept as they came; older ones are merged into coarser ones."""
KEPT_SECONDS = 3600.0
_FINE_STEP = 0.5
_COARSE_STEP = 10.0
_CONTIGUOUS = 0.05
"""A gap this short (seconds) between two samples is the router's own rounding, not missing data."""
_MOST_BUCKETS = 1000
_LEAST_COVERED = 1e-6
_BUCKET_RATIO = 2.5
"""Empty buckets are not sent, so the lower end of one is not known: ladders step by about this much."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts since the history began. `latency`: completions by upper bound of total time in seconds."""

    arrivals: int = 0
    completions: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[float, int] = field(default_factory=dict)
    latency_sum: float = 0.0
    """Seconds that all completed requests took, waiting included."""


def at_rest(sample: LoadSample) -> bool:
    """Whether nothing was in flight or queued when the sample ended: what follows it is idle time."""
    return sample.in_flight == 0 and sample.queued == 0


def window(
    samples: Sequence[LoadSample],
    seconds: float,
    now: float,
    *,
    usage: Sequence[Usage] = (),
    older: Sequence[LoadSample] = (),
) -> LoadWindow:
    """Return the load over the `seconds` before `now`; `samples` are of one service, oldest first.

    A sample that the window cuts counts in proportion. `usage` are readings of the whole pool, oldest
    first (see `pool_usage`). `older` are samples from before the window, read only for the last arrival.
    Without any sample the answer covers 0 seconds.
    """
    cpu = gpu = None
    if usage:
        cpu = _mean([reading.cpu for reading in usage if now - seconds < reading.at <= now])
        gpu = _mean([r.gpu for r in usage if r.gpu is not None and now - seconds < r.at <= now])
    if not samples:
        return LoadWindow(cpu=cpu, gpu=gpu)
    newest = samples[-1]
    in_flight = queued = arrivals = completions = service = 0.0
    for sample, part in _parts(samples, now - seconds, now):
        in_flight += part * sample.in_flight_seconds
        queued += part * sample.queued_seconds
        arrivals += part * sample.arrivals
        completions += part * sample.completions
        service += part * sample.service_seconds
    covered = max(_covered(samples, now - seconds, now), _LEAST_COVERED if at_rest(newest) else 0.0)
    per_second = 1.0 / covered if covered else 0.0
    return LoadWindow(
        seconds=covered,
        in_flight=in_flight * per_second,
        queued=queued * per_second,
        rps=arrivals * per_second,
        service_time=service / completions if completions else 0.0,
        completions=completions,
        in_flight_now=newest.in_flight,
        queued_now=newest.queued,
        last_arrival=_last_arrival(samples) or _last_arrival(older),
        cpu=cpu,
        gpu=gpu,
        age=0.0 if at_rest(newest) else max(0.0, now - newest.end),
    )


def _last_arrival(samples: Sequence[LoadSample]) -> float | None:
    for sample in reversed(samples):
        if sample.arrivals:
            return sample.end
    return None


def percentiles(
    samples: Sequence[LoadSample], seconds: float, now: float
) -> tuple[float | None, float | None]:
    """Return the median and 99th percentile of total time in seconds, (None, None) if nothing completed.

    Interpolated inside the buckets of the latency histograms; a request beyond the last finite bound
    counts as that bound.
    """
    counts: dict[float, float] = {}
    for sample, part in _parts(samples, now - seconds, now):
        for bound, count in sample.latency.items():
            counts[bound] = counts.get(bound, 0.0) + part * count
    return _quantile(counts, 0.5), _quantile(counts, 0.99)


def pool_usage(readings: Collection[Usage], at: float) -> Usage | None:
    """Return the mean over a pool's ready workers as one reading, None if there is none."""
    if not readings:
        return None
    return Usage(
        cpu=sum(reading.cpu for reading in readings) / len(readings),
        memory=sum(reading.memory for reading in readings) // len(readings),
        gpu=_mean([reading.gpu for reading in readings if reading.gpu is not None]),
        at=at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHistory:
    """The last hour of one service's load in bounded memory: two minutes as measured, the rest in steps of
    ten seconds. A value: `add` returns the next history."""

    fine: tuple[LoadSample, ...] = ()
    coarse: tuple[LoadSample, ...] = ()
    usage: tuple[Usage, ...] = ()
    totals: Totals = field(default_factory=Totals)

    def add(self, sample: LoadSample) -> LoadHistory:
        """Return the history with that sample; one that is older than the newest (a router that was
        replaced) only counts in the totals."""
        totals = _count(self.totals, sample)
        if self.fine and sample.end < self.fine[-1].end:
            return replace(self, totals=totals)
        fine, coarse = _append(self.fine, sample, _FINE_STEP), self.coarse
        aged = 0
        while fine[aged].end < sample.end - FINE_SECONDS:
            coarse = _append(coarse, fine[aged], _COARSE_STEP)
            aged += 1
        if aged:
            fine = fine[aged:]
            coarse = _since(coarse, sample.end - KEPT_SECONDS)[-_MOST_BUCKETS:]
        return LoadHistory(fine=fine[-_MOST_BUCKETS:], coarse=coarse, usage=self.usage, totals=totals)

    def silent_at(self, seconds: float) -> float | None:
        """When so many seconds will have passed without a sample; None: at rest none is due."""
        if not self.fine or at_rest(self.fine[-1]):
            return None
        return self.fine[-1].end + seconds

    def add_usage(self, reading: Usage | None) -> LoadHistory:
        """Return the history with a reading of the whole pool (`pool_usage`); None changes nothing."""
        if reading is None:
            return self
        kept = [old for old in self.usage if reading.at - KEPT_SECONDS < old.at < reading.at]
        return replace(self, usage=(*kept, reading)[-_MOST_BUCKETS:])

    @property
    def samples(self) -> tuple[LoadSample, ...]:
        """All that is kept, oldest first."""
        return self.coarse + self.fine

    def window(self, seconds: float, now: float) -> LoadWindow:
        """The load over the last `seconds`, up to an hour."""
        if self.fine and self.fine[0].start <= now - seconds:
            return window(self.fine, seconds, now, usage=self.usage, older=self.coarse)
        return window(self.samples, seconds, now, usage=self.usage)

    def percentiles(self, seconds: float, now: float) -> tuple[float | None, float | None]:
        """Median and 99th percentile of total time over the last `seconds`."""
        return percentiles(self.samples, seconds, now)


def _parts(samples: Sequence[LoadSample], since: float, until: float) -> Iterator[tuple[LoadSample, float]]:
    """The samples that lie in the stretch, newest first, each with the part of it (0..1) that does."""
    for sample in reversed(samples):
        if sample.end <= since:
            return
        inside = min(sample.end, until) - max(sample.start, since)
        if sample.duration <= 0:
            yield sample, 1.0
        elif inside > 0:
            yield sample, min(1.0, inside / sample.duration)


def _since(samples: tuple[LoadSample, ...], time: float) -> tuple[LoadSample, ...]:
    """Those that end after `time`; the oldest stand in front."""
    gone = 0
    while gone < len(samples) and samples[gone].end <= time:
        gone += 1
    return samples[gone:] if gone else samples


def _covered(samples: Sequence[LoadSample], since: float, until: float) -> float:
    """Seconds of the stretch that are known: inside a sample, or idle after one that ended at rest."""
    covered, right = 0.0, until
    for sample in reversed(samples):
        if right <= since:
            break
        if at_rest(sample):
            covered += max(0.0, right - max(sample.end, since))
        start, end = max(sample.start, since), min(sample.end, right)
        covered += max(0.0, end - start)
        right = min(right, sample.start)
    return covered


def _append(kept: tuple[LoadSample, ...], sample: LoadSample, step: float) -> tuple[LoadSample, ...]:
    """`kept` with one more, merged into its last where together they span at most `step` seconds and
    nothing between them is unknown."""
    if kept and sample.end - kept[-1].start <= step:
        last = kept[-1]
        if at_rest(last) or sample.start - last.end <= _CONTIGUOUS:
            return (*kept[:-1], _merge(last, sample))
    return (*kept, sample)


def _merge(first: LoadSample, second: LoadSample) -> LoadSample:
    return LoadSample(
        service=second.service,
        start=min(first.start, second.start),
        end=second.end,
        in_flight=second.in_flight,
        queued=second.queued,
        in_flight_seconds=first.in_flight_seconds + second.in_flight_seconds,
        queued_seconds=first.queued_seconds + second.queued_seconds,
        arrivals=first.arrivals + second.arrivals,
        completions=first.completions + second.completions,
        service_seconds=first.service_seconds + second.service_seconds,
        wait_seconds=first.wait_seconds + second.wait_seconds,
        oldest_wait=max(first.oldest_wait, second.oldest_wait),
        codes=_sum(first.codes, second.codes),
        latency=_sum(first.latency, second.latency),
        workers=second.workers,
    )


def _count(totals: Totals, sample: LoadSample) -> Totals:
    return Totals(
        arrivals=totals.arrivals + sample.arrivals,
        completions=totals.completions + sample.completions,
        codes=_sum(totals.codes, sample.codes),
        latency=_sum(totals.latency, sample.latency),
        latency_sum=totals.latency_sum + sample.service_seconds + sample.wait_seconds,
    )


def _sum(first: Mapping[_Key, int], second: Mapping[_Key, int]) -> Mapping[_Key, int]:
    if not second:
        return first
    return {key: first.get(key, 0) + second.get(key, 0) for key in {**first, **second}}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _quantile(counts: Mapping[float, float], share: float) -> float | None:
    total = sum(counts.values())
    if total <= 0:
        return None
    wanted, seen, previous = share * total, 0.0, 0.0
    for bound in sorted(counts):
        count = counts[bound]
        if math.isinf(bound):
            break
        if count > 0 and seen + count >= wanted:
            lower = max(previous, bound / _BUCKET_RATIO)
            return min(bound, lower + (bound - lower) * (wanted - seen) / count)
        seen += count
        previous = bound
    return previous
