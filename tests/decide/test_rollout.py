"""Updates by each strategy: who leaves, who comes, and what never happens on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stoker.decide.pool import pools
from stoker.decide.rollout import Step, bounds, step
from stoker.model.replica import Phase, Replica
from stoker.model.service import Update
from worlds import OLD, make_replica, make_spec, seeing, wanting


def an_update(
    update: Update, wanted: int, old: Sequence[Phase], new: Sequence[Phase] = (), *, fits_after: int = 0
) -> Step:
    """The next step with these old and new replicas. `fits_after`: how many must go before a new one fits."""
    spec = make_spec(replicas=(wanted, wanted), update=update)
    replicas = [make_replica(spec, f"old{n}", phase, revision=OLD, created=n) for n, phase in enumerate(old)]
    replicas += [make_replica(spec, f"new{n}", phase, created=10 + n) for n, phase in enumerate(new)]
    pool = pools(wanting(spec), seeing(*replicas))[spec.key]

    def fits(without: Sequence[Replica]) -> bool:
        return len(without) >= fits_after

    return step(pool, fits_without=fits)


def ids(given: Step) -> list[str]:
    return sorted(replica.id.removeprefix("web-") for replica, _ in given.drop)


SURGE = Update(max_surge=1, max_unavailable=0)


def test_a_surge_adds_first_and_drops_when_it_is_ready() -> None:
    begin = an_update(SURGE, 3, ["ready"] * 3)
    assert (begin.add, ids(begin)) == (1, [])
    waiting = an_update(SURGE, 3, ["ready"] * 3, ["starting"])
    assert (waiting.add, ids(waiting)) == (0, [])
    ready = an_update(SURGE, 3, ["ready"] * 3, ["ready"])
    assert (ready.add, ids(ready)) == (1, ["old2"])


def test_unavailable_drops_first() -> None:
    given = an_update(Update(max_surge=0, max_unavailable=2), 3, ["ready"] * 3)
    assert (given.add, ids(given)) == (2, ["old1", "old2"])


def test_neither_surge_nor_unavailable_still_moves() -> None:
    given = an_update(Update(max_surge=0, max_unavailable=0), 2, ["ready"] * 2)
    assert (given.add, ids(given)) == (1, ["old1"])


def test_recreate_drops_all_at_once() -> None:
    given = an_update(Update(strategy="Recreate"), 2, ["ready", "starting"])
    assert (given.add, ids(given)) == (2, ["old0", "old1"])


def test_a_slow_ramp_goes_one_by_one_whatever_the_numbers_say() -> None:
    update = Update(strategy="RampedSlowRollout", max_surge=3, max_unavailable=3)
    assert bounds(update, 3) == (1, 0)
    assert an_update(update, 3, ["ready"] * 3).add == 1


@pytest.mark.parametrize(
    ("strategy", "wanted", "expected"),
    [
        ("RollingUpdate", 8, (2, 2)),
        ("RollingUpdate", 5, (2, 1)),
        ("RollingUpdate", 3, (1, 0)),
        ("BestEffortControlledRollout", 8, (0, 2)),
        ("BestEffortControlledRollout", 3, (0, 1)),
    ],
)
def test_shares_are_of_the_number_wanted_now(strategy: Any, wanted: int, expected: tuple[int, int]) -> None:
    """Of a service that may have 8 replicas: three that are wanted are not left to one for a quarter of 8."""
    update = Update(
        strategy=strategy, max_surge=2, max_unavailable=2, surge_share=25, unavailable_share=25
    )  # fmt: skip
    assert bounds(update, wanted) == expected


def test_best_effort_needs_no_room() -> None:
    given = an_update(Update(strategy="BestEffortControlledRollout", max_surge=5), 4, ["ready"] * 4)
    assert (given.add, ids(given)) == (1, ["old3"])


def test_old_replicas_that_do_not_serve_are_replaced_freely() -> None:
    given = an_update(SURGE, 3, ["ready", "pending", "unready"])
    assert (given.add, ids(given)) == (3, ["old1", "old2"])
    assert all("does not serve" in why for _, why in given.drop)


def test_a_replica_lost_on_the_way_is_not_made_up_for_by_dropping_another() -> None:
    given = an_update(Update(max_surge=0, max_unavailable=1), 3, ["ready", "ready"], ["starting"])
    assert (given.add, ids(given)) == (0, [])


def test_new_replicas_that_wait_beyond_the_surge_are_dropped() -> None:
    given = an_update(SURGE, 3, ["ready"] * 3, ["pending", "pending"])
    assert (given.add, ids(given)) == (0, ["new1"])


def test_without_a_free_device_one_old_replica_makes_room() -> None:
    given = an_update(SURGE, 2, ["ready", "ready"], ["pending"], fits_after=1)
    assert ids(given) == ["old1"]
    assert "no free device for a surge" in given.drop[0][1]


def test_as_many_make_room_as_the_new_one_needs() -> None:
    assert ids(an_update(SURGE, 3, ["ready"] * 3, ["pending"], fits_after=2)) == ["old1", "old2"]


@pytest.mark.parametrize(
    ("old", "new", "fits_after"),
    [
        (["ready", "ready"], ["pending"], 9),  # it would not fit even then
        (["ready", "ready"], ["pending"], 0),  # it fits as it is: something else holds it up
        (["ready"], ["pending", "pending"], 1),  # one is missing already
    ],
)
def test_nobody_makes_room_in_vain(old: list[Phase], new: list[Phase], fits_after: int) -> None:
    assert ids(an_update(SURGE, 2, old, new, fits_after=fits_after)) == []


def test_nobody_makes_room_while_another_is_still_leaving() -> None:
    spec = make_spec(replicas=(2, 2), update=SURGE)
    leaving = make_replica(spec, "going", "draining", revision=OLD, leave=True)
    replicas = [make_replica(spec, f"old{n}", revision=OLD) for n in range(2)]
    pool = pools(wanting(spec), seeing(*replicas, leaving, make_replica(spec, "new", "pending")))[spec.key]
    assert step(pool, fits_without=bool).drop == ()


def test_a_new_revision_that_fails_costs_no_further_old_replica() -> None:
    spec = make_spec(replicas=(2, 2), update=SURGE)
    failing = make_replica(spec, "new", "pending", failures=3)
    old = [make_replica(spec, f"old{n}", revision=OLD) for n in range(2)]
    pool = pools(wanting(spec), seeing(*old, failing))[spec.key]
    assert step(pool, fits_without=bool).drop == ()


def test_scaling_down_takes_who_is_missed_least() -> None:
    spec = make_spec(replicas=(1, 1))
    phases: list[Phase] = ["ready", "ready", "unready", "starting", "pending"]
    replicas = [make_replica(spec, f"r{n}", phase, created=n) for n, phase in enumerate(phases)]
    order = []
    while len(replicas) > 1:
        pool = pools(wanting(make_spec(replicas=(len(replicas) - 1,) * 2)), seeing(*replicas))[spec.key]
        ((victim, _),) = step(pool, fits_without=lambda without: False).drop
        order.append(victim.id)
        replicas.remove(victim)
    assert order == ["web-r4", "web-r3", "web-r2", "web-r1"]


def test_who_drains_only_because_fewer_were_wanted_comes_back_first() -> None:
    spec = make_spec(replicas=(3, 3))
    going = {"phase": "draining", "leave": True, "ready_at": 1.0}
    replicas = [
        make_replica(spec, "here"),
        make_replica(spec, "early", since=5.0, **going),
        make_replica(spec, "late", since=9.0, **going),
        make_replica(spec, "unfit", since=10.0, unfit=True, **going),
        make_replica(spec, "other", since=10.0, **(going | {"leave": False})),
        make_replica(spec, "old", since=10.0, revision=OLD, **going),
    ]
    pool = pools(wanting(spec), seeing(*replicas))[spec.key]
    given = step(pool, fits_without=lambda gone: True)
    assert [replica.id for replica in given.resume] == ["web-late"]
    assert given.add == 0


def test_what_cannot_come_back_is_started() -> None:
    spec = make_spec(replicas=(3, 3))
    late = make_replica(spec, "late", "draining", leave=True, ready_at=1.0)
    pool = pools(wanting(spec), seeing(make_replica(spec, "here"), late))[spec.key]
    given = step(pool, fits_without=lambda gone: True)
    assert ([replica.id for replica in given.resume], given.add) == (["web-late"], 1)
