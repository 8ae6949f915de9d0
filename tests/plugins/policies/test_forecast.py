"""What is kept for speed says the same as all samples, looked through one by one."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_policies import forecast


def plain(samples, demand, mean, wait):
    """The load that a promised wait asks for, as the module defines it. `samples`: (seconds, demand) of each,
    newest first."""
    found, seconds, area = demand * mean / (mean + wait), 0.0, 0.0
    for place, (span, held) in enumerate(samples[:64], 1):
        seconds, area = seconds + span, area + span * held
        if place in {1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64}:
            found = max(found, (demand * mean + area) / (mean + seconds + wait))
    return found


def plain_mean(samples, span):
    """Mean demand of the newest samples that cover `span` seconds."""
    seconds = area = 0.0
    for length, held in samples[:64]:
        if seconds >= span - 1e-9:
            break
        seconds, area = seconds + length, area + length * held
    return area / seconds


@given(
    count=st.integers(1, 200),
    seed=st.integers(0, 1 << 20),
    scale=st.sampled_from([0.3, 7.0, 400.0, 3e5]),
    wait=st.sampled_from([0.5, 2.0, 30.0]),
)
def test_a_load_is_the_same_by_totals_and_by_samples(count, seed, scale, wait):
    source, memory, samples, came = random.Random(seed), forecast.fresh(0.0), [], []
    for _ in range(count):
        dt, held, arrivals = source.choice((0.5, 1.0, 1.0, 5.0)), source.random() * scale, source.randrange(9)
        forecast.measure(
            memory, dt, 20.0, wait,
            arrivals=arrivals, completions=0, service_seconds=0.0, in_flight=held, queued=0,
        )  # fmt: skip
        samples.insert(0, (dt, held))
        came.insert(0, arrivals)
        assert memory["load"] == pytest.approx(plain(samples, held, 1.0, wait), rel=1e-7)
        assert memory["level"] == pytest.approx(plain_mean(samples, max(1.0, wait)), rel=1e-7)
    fitting = [i for i in range(min(count, 64) + 1) if sum(span for span, _ in samples[:i]) <= 10.0]
    assert forecast.came_within(memory, 10.0) == pytest.approx(sum(came[: fitting[-1]]))
    assert json.loads(json.dumps(memory)) == memory


def test_a_memory_that_was_handed_out_stays_what_it_was():
    memory = forecast.fresh(0.0)
    seen = {"arrivals": 3, "completions": 2, "service_seconds": 4.0, "queued": 0}
    for second in range(40):
        before, written = dict(memory), json.dumps(memory)
        forecast.measure(memory, 1.0, 20.0, 2.0, in_flight=float(second % 7), **seen)
        forecast.learn(memory, float(second), 20.0, 0.08)
        assert json.dumps(before) == written


def test_the_forecast_in_use_is_that_of_its_expert():
    memory = forecast.fresh(0.0)
    for second in range(90):
        forecast.measure(
            memory, 1.0, 20.0, 2.0,
            arrivals=second % 5, completions=2, service_seconds=3.0, in_flight=second % 7, queued=0,
        )  # fmt: skip
    for expert in range(forecast.EXPERTS):
        memory["expert"] = expert
        assert forecast.forecast(memory, 20.0) == forecast.forecasts(memory, 20.0)[expert]
