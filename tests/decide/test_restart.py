"""Backoff: at once after a stable run, then doubling, bounded, with the same jitter every time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.restart import JITTER, LOOP_PAUSE, STABLE, after_exit, after_permanent_failure
from stoker.model.service import Restart

RULE = Restart(backoff=1, max_backoff=60, crash_loop=5)


def test_the_documented_rhythm() -> None:
    failures, delays, loops = 0, [], []
    for _ in range(9):
        verdict = after_exit(RULE, failures, served=0, key="web-a")
        failures = verdict.failures
        delays.append(verdict.delay)
        loops.append(verdict.crash_loop)
    for delay, plain in zip(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert plain * (1 - JITTER) <= delay <= plain * (1 + JITTER)
    assert loops == [False] * 4 + [True] * 5


@pytest.mark.parametrize(
    ("failures", "served", "expected"),
    [
        (0, 0.0, 1),
        (3, STABLE - 0.1, 4),
        (3, STABLE, 1),
        (6, 15.9, 7),  # it had waited 16 s: shorter than that is not stable
        (6, 16.0, 1),
        (9, 60.0, 1),
    ],
)
def test_a_stable_run_starts_the_count_afresh(failures: int, served: float, expected: int) -> None:
    assert after_exit(RULE, failures, served=served, key="k").failures == expected


def test_without_backoff_restarts_are_immediate_until_it_is_a_crash_loop() -> None:
    rule = Restart(backoff=0, crash_loop=3)
    delays = [after_exit(rule, failures, served=0, key="k").delay for failures in range(4)]
    assert delays == [0, 0, LOOP_PAUSE, LOOP_PAUSE]


def test_a_start_that_cannot_succeed_goes_straight_to_the_slow_rhythm() -> None:
    verdict = after_permanent_failure(RULE, 0)
    assert (verdict.failures, verdict.delay, verdict.crash_loop) == (1, 60, False)
    assert after_permanent_failure(RULE, 4).crash_loop


def test_replicas_that_fail_together_do_not_come_back_together() -> None:
    delays = {after_exit(RULE, 3, served=0, key=f"web-{n}").delay for n in range(20)}
    assert len(delays) == 20


@given(
    failures=st.integers(0, 10_000),
    served=st.floats(0, 1e6),
    backoff=st.floats(0, 100),
    most=st.floats(0, 1000),
)
def test_bounds_hold_for_any_rule(failures: int, served: float, backoff: float, most: float) -> None:
    rule = Restart(backoff=backoff, max_backoff=most)
    verdict = after_exit(rule, failures, served=served, key="k")
    assert 0 <= verdict.delay <= max(most * (1 + JITTER), LOOP_PAUSE)
    assert verdict == after_exit(rule, failures, served=served, key="k")
