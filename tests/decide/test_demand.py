"""Windows over load samples: exact means, proportional edges, idle time apart from missing data."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.demand import LoadHistory, at_rest, percentiles, pool_usage, window
from stoker.model.load import LoadSample, Usage


def sample(start, end, in_flight=0, queued=0, **more):
    """A sample during which the counts were constant."""
    seconds = end - start
    steady = {"in_flight_seconds": in_flight * seconds, "queued_seconds": queued * seconds}
    return LoadSample(
        service="d/s", start=start, end=end, in_flight=in_flight, queued=queued, **(steady | more)
    )


def history_of(*samples):
    history = LoadHistory()
    for each in samples:
        history = history.add(each)
    return history


def test_without_any_sample_there_is_no_data():
    assert window([], 60, 100).seconds == 0
    assert LoadHistory().window(60, 100).seconds == 0


def test_means_are_weighted_by_time():
    found = window([sample(0, 1, in_flight=4), sample(1, 4, in_flight=8, queued=2)], 60, 4)
    assert found.seconds == pytest.approx(4)
    assert found.in_flight == pytest.approx(7)
    assert found.queued == pytest.approx(1.5)
    assert (found.in_flight_now, found.queued_now) == (8, 2)


def test_a_sample_that_the_window_cuts_counts_in_proportion():
    cut = sample(0, 10, in_flight=2, arrivals=40, completions=20, service_seconds=10.0)
    found = window([cut, sample(10, 12, in_flight=5, arrivals=2)], 4, 12)
    assert found.seconds == pytest.approx(4)
    assert found.in_flight == pytest.approx((2 * 2 + 5 * 2) / 4)
    assert found.rps == pytest.approx((8 + 2) / 4)
    assert found.service_time == pytest.approx(0.5)


def test_silence_after_zeros_is_idle_time():
    found = window([sample(0, 10, in_flight=6), sample(10, 11)], 30, 40)
    assert found.seconds == pytest.approx(30)
    assert found.in_flight == pytest.approx(0)
    assert found.age == 0
    assert window([sample(0, 10, in_flight=6), sample(10, 11)], 40, 40).in_flight == pytest.approx(1.5)


def test_silence_after_activity_is_missing_data():
    busy = [sample(0, 10, in_flight=6)]
    found = window(busy, 20, 25)
    assert found.seconds == pytest.approx(5)
    assert found.in_flight == pytest.approx(6)
    assert found.age == pytest.approx(15)
    assert window(busy, 20, 40).seconds == 0
    assert window(busy, 20, 40).age == pytest.approx(30)


def test_a_gap_between_samples_is_idle_only_after_zeros():
    after_rest = [sample(0, 1), sample(9, 10, in_flight=5)]
    after_work = [sample(0, 1, in_flight=5), sample(9, 10, in_flight=5)]
    assert window(after_rest, 10, 10).seconds == pytest.approx(10)
    assert window(after_rest, 10, 10).in_flight == pytest.approx(0.5)
    assert window(after_work, 10, 10).seconds == pytest.approx(2)
    assert window(after_work, 10, 10).in_flight == pytest.approx(5)


def test_one_sample_of_zeros_is_already_knowledge():
    assert window([sample(5, 5)], 10, 5).seconds > 0
    assert window([sample(5, 5)], 10, 8).seconds == pytest.approx(3)


def test_the_last_arrival_is_remembered_beyond_the_window():
    kept = [sample(0, 1, in_flight=1, arrivals=3), sample(1, 2)]
    assert window(kept, 10, 500).last_arrival == 1
    assert window([sample(0, 1)], 10, 5).last_arrival is None


def test_usage_is_the_mean_of_the_readings_in_the_window():
    history = history_of(sample(0, 1))
    for at, cpu, gpu in [(1.0, 8.0, None), (10.0, 1.0, 0.5), (15.0, 2.0, None)]:
        history = history.add_usage(Usage(cpu=cpu, gpu=gpu, at=at))
    found = history.add_usage(None).window(10, 16)
    assert found.cpu == pytest.approx(1.5)
    assert found.gpu == pytest.approx(0.5)
    late = history.window(10, 100)
    assert late.cpu is None
    assert late.gpu is None


def test_a_pool_uses_what_its_workers_use_on_average():
    found = pool_usage([Usage(cpu=1.0, memory=100, gpu=0.4), Usage(cpu=3.0, memory=300)], 7.0)
    assert found == Usage(cpu=2.0, memory=200, gpu=0.4, at=7.0)
    assert pool_usage([], 7.0) is None


def test_percentiles_interpolate_inside_buckets():
    latency = {0.1: 50, 0.2: 49, 1.0: 1}
    p50, p99 = percentiles([sample(0, 1, latency=latency)], 60, 1)
    assert p50 == pytest.approx(0.1)
    assert p99 == pytest.approx(0.2)
    assert percentiles([sample(0, 1)], 60, 1) == (None, None)
    assert percentiles([sample(0, 1, latency=latency)], 60, 500) == (None, None)


def test_a_lone_bucket_is_not_stretched_to_zero():
    p50, p99 = percentiles([sample(0, 1, latency={10.0: 100})], 60, 1)
    assert 4 <= p50 <= 10
    assert p50 < p99 <= 10


def test_what_took_longer_than_the_last_bound_counts_as_that_bound():
    assert percentiles([sample(0, 1, latency={0.1: 1, math.inf: 9})], 60, 1) == (0.1, 0.1)


@given(
    st.dictionaries(
        st.sampled_from([0.005, 0.05, 0.5, 5.0, math.inf]), st.integers(0, 50), min_size=1, max_size=5
    )
)
def test_percentiles_are_ordered_and_inside_the_buckets(latency):
    p50, p99 = percentiles([sample(0, 1, latency=latency)], 60, 1)
    if not sum(latency.values()):
        assert (p50, p99) == (None, None)
        return
    assert 0 <= p50 <= p99 <= max((bound for bound in latency if math.isfinite(bound)), default=0)


def test_the_history_of_a_busy_afternoon_stays_small_and_exact():
    history = LoadHistory()
    for step in range(3 * 3600):
        level = 1 + step % 3
        history = history.add(
            sample(
                step, step + 1, in_flight=level, arrivals=2, completions=2, codes={"2xx": 2}, latency={0.1: 2}
            )
        )
    now = 3 * 3600
    assert len(history.samples) < 600
    assert history.samples[0].start >= now - 3700
    assert history.totals.arrivals == 2 * now
    assert history.totals.codes == {"2xx": 2 * now}
    assert history.totals.latency == {0.1: 2 * now}
    for seconds in (60, 600, 3000):
        found = history.window(seconds, now)
        assert found.seconds == pytest.approx(seconds)
        assert found.in_flight == pytest.approx(2, rel=0.01)
        assert found.rps == pytest.approx(2)


def test_rapid_samples_are_merged():
    history = history_of(*(sample(step / 100, (step + 1) / 100, in_flight=3) for step in range(6000)))
    assert len(history.samples) <= 240
    assert history.window(30, 60).in_flight == pytest.approx(3)


def test_merging_never_bridges_missing_data():
    history = history_of(sample(0, 0.1, in_flight=5), sample(0.3, 0.4, in_flight=5))
    assert history.window(1, 0.4).seconds == pytest.approx(0.2)
    assert history.window(1, 0.4).in_flight == pytest.approx(5)


def test_a_sample_from_the_past_only_counts():
    history = history_of(sample(10, 11, in_flight=2, arrivals=1), sample(3, 4, in_flight=9, arrivals=5))
    assert history.window(60, 11).in_flight == pytest.approx(2)
    assert history.totals.arrivals == 6


def test_rest_is_nothing_running_and_nothing_waiting():
    assert at_rest(sample(0, 1))
    assert not at_rest(sample(0, 1, queued=1))
    assert not at_rest(sample(0, 1, in_flight=1))


levels = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20)


@given(levels, st.integers(1, 60), st.integers(0, 30))
def test_the_window_is_the_integral_of_the_load(steps, seconds, after):
    """Against a plain sum over quarter-second cells of the same step function."""
    samples, start = [], 0.0
    for quarters, in_flight, queued in steps:
        samples.append(sample(start, start + quarters / 4, in_flight, queued))
        start += quarters / 4
    now = start + after / 4
    cells = [
        (each.in_flight, each.queued) for each in samples for _ in range(round((each.end - each.start) * 4))
    ]
    cells += [(0, 0)] * after if at_rest(samples[-1]) else [None] * after
    seen = [cell for cell in cells[-seconds:] if cell is not None]
    found = window(samples, seconds / 4, now)
    assert found.seconds == pytest.approx(len(seen) / 4, abs=1e-5)
    if seen:
        assert found.in_flight == pytest.approx(sum(cell[0] for cell in seen) / len(seen))
        assert found.queued == pytest.approx(sum(cell[1] for cell in seen) / len(seen))


@given(levels)
def test_merging_loses_nothing(steps):
    samples, start = [], 0.0
    for tenths, in_flight, queued in steps:
        samples.append(sample(start, start + tenths / 10, in_flight, queued, arrivals=in_flight))
        start += tenths / 10
    raw, kept = window(samples, 3600, start), history_of(*samples).window(3600, start)
    assert kept.seconds == pytest.approx(raw.seconds)
    assert kept.in_flight == pytest.approx(raw.in_flight)
    assert kept.queued == pytest.approx(raw.queued)
    assert kept.rps == pytest.approx(raw.rps)
