"""Replicas by the clock: within the times, outside, ahead of them, over a night, where clocks change."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.model.load import Decision, LoadWindow, PoolState
from stoker.model.service import Command, PolicySpec, Scaling, ServiceSpec
from stoker.plugin.ports import PolicyInput
from stoker_policies.schedule import Schedule

BERLIN = "Europe/Berlin"
WORK = {"start": "0 8 * * mon-fri", "end": "0 18 * * mon-fri", "timezone": BERLIN}
NIGHT = {"start": "0 22 * * *", "end": "0 6 * * *", "timezone": BERLIN}


def at(moment: str, timezone: str = BERLIN) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(timezone)).timestamp()


def ask(
    wall: float, startup: float | None = None, target: float | None = 4, **params: str | float
) -> Decision:
    spec = ServiceSpec(
        deployment="d",
        name="s",
        launch=Command(("run",)),
        working_dir="/",
        scaling=Scaling(min_replicas=0, max_replicas=10),
    )
    rule = PolicySpec(metric="schedule", target=target, params=tuple(sorted(params.items())))
    return Schedule().decide(
        PolicyInput(
            service=spec,
            policy=rule,
            window=lambda _seconds: LoadWindow(),
            pool=PoolState(startup_seconds=startup),
            now=1000.0,
            wall=wall,
        )
    )


@pytest.mark.parametrize(
    ("moment", "count", "reason"),
    [
        ("2026-11-23T07:59:59", 0, "schedule: none until Mon 08:00"),
        ("2026-11-23T08:00:00", 4, "schedule: 4 from Mon 08:00 to Mon 18:00"),
        ("2026-11-23T17:59:59", 4, "schedule: 4 from Mon 08:00 to Mon 18:00"),
        ("2026-11-23T18:00:00", 0, "schedule: none until Tue 08:00"),
        ("2026-11-27T18:00:00", 0, "schedule: none until Mon 08:00"),
        ("2026-11-28T12:00:00", 0, "schedule: none until Mon 08:00"),
    ],
)
def test_the_working_week(moment: str, count: int, reason: str) -> None:
    decision = ask(at(moment), **WORK)
    assert (decision.target, decision.reason, decision.valid) == (count, reason, True)


@pytest.mark.parametrize(
    ("moment", "count"), [("21:59", 0), ("22:00", 4), ("00:30", 4), ("05:59", 4), ("06:00", 0)]
)
def test_over_midnight(moment: str, count: int) -> None:
    assert ask(at(f"2026-11-23T{moment}:00"), **NIGHT).target == count


def test_the_next_look_is_at_the_boundary() -> None:
    inside = ask(at("2026-11-23T17:59:00"), **WORK)
    assert inside.wake_at == pytest.approx(1060.0, abs=0.1)
    outside = ask(at("2026-11-23T07:59:30"), **WORK)
    assert outside.wake_at == pytest.approx(1030.0, abs=0.1)


def test_replicas_are_ready_when_the_times_begin() -> None:
    early = at("2026-11-23T07:59:00")
    assert ask(early, startup=59.0, **WORK).target == 0
    decision = ask(early, startup=60.0, **WORK)
    assert decision.target == 4
    assert decision.reason == "schedule: 4 from Mon 08:00 to Mon 18:00, 60 s ahead"
    assert ask(early, startup=60.0, lead=0.0, **WORK).target == 0
    assert ask(early, lead=90.0, **WORK).target == 4


def test_a_start_that_takes_for_ever_does_not_keep_replicas_for_ever() -> None:
    assert ask(at("2026-11-28T12:00:00"), startup=1e9, **WORK).target == 0


def test_the_end_is_not_moved_by_the_lead() -> None:
    decision = ask(at("2026-11-23T17:59:30"), startup=60.0, **WORK)
    assert decision.target == 4
    assert decision.wake_at == pytest.approx(1030.0, abs=0.1)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])  # clocks go forward, clocks go back
def test_the_days_on_which_clocks_change(day: str) -> None:
    assert ask(at(f"{day}T08:30:00"), **(WORK | {"start": "0 8 * * *", "end": "0 18 * * *"})).target == 4
    assert ask(at(f"{day}T07:30:00"), **(WORK | {"start": "0 8 * * *", "end": "0 18 * * *"})).target == 0


@given(st.integers(min_value=0, max_value=4_000_000_000), st.sampled_from([WORK, NIGHT]))
def test_something_changes_at_the_next_look_and_not_before(wall: int, times: dict[str, str]) -> None:
    now = ask(float(wall), **times)
    assert now.wake_at is not None
    wait = now.wake_at - 1000.0
    assert wait > 0
    assert ask(wall + wait - 1.0, **times).target == now.target
    assert ask(wall + wait + 1.0, **times).target != now.target


def test_one_replica_where_no_number_is_given() -> None:
    assert ask(at("2026-11-23T12:00:00"), target=None, **WORK).target == 1
