"""The box shared out: who gets what, in which order, what is told to those who get less."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.budget import DWELL, Amount, BudgetMemory, Claim, Needs, overcommitted, share_out

GPU = Amount(devices=1)


def box(gpus, **more):
    return Amount(**({"devices": gpus, "cpu": math.inf, "memory": math.inf} | more))


def claim(name, want, **more):
    numbers = {"base": want, "need": want, "want": want, "most": 20, "each": GPU} | more
    return Claim(service=f"d/{name}", **numbers)


def targets(room, *claims, memory=BudgetMemory(), now=1000.0, **more):  # noqa: B008 - a frozen value
    found = share_out(room, claims, memory, now, **more)
    return {service.rpartition("/")[2]: grant.target for service, grant in found.grants.items()}


def test_all_get_what_they_want_where_there_is_room():
    shares = share_out(box(8), [claim("a", 3), claim("b", 5)], BudgetMemory(), 0.0)
    assert {grant.target for grant in shares.grants.values()} == {3, 5}
    assert all(grant.reason == "" and grant.short == 0 for grant in shares.grants.values())


def test_guarantees_come_before_everything():
    assert targets(box(4), claim("a", 9, priority=9), claim("b", 0, least=2)) == {"a": 2, "b": 2}


def test_the_base_of_the_low_comes_before_the_need_of_the_high():
    assert targets(box(4), claim("high", 4, base=1, priority=5), claim("low", 3, base=2)) == {
        "high": 2,
        "low": 2,
    }


def test_inside_a_tier_the_higher_priority_is_served_first():
    assert targets(box(4), claim("high", 3, priority=5), claim("low", 3)) == {"high": 3, "low": 1}


def test_inside_a_class_all_get_the_same_part_of_what_they_ask():
    assert targets(box(6), claim("a", 8), claim("b", 4)) == {"a": 4, "b": 2}
    assert targets(box(6), claim("a", 8), claim("b", 8, weight=2.0)) == {"a": 2, "b": 4}


def test_warm_replicas_give_way_to_anothers_need_at_once():
    warm = claim("a", 6, base=1, need=1, present=6)
    assert targets(box(6), warm, claim("b", 0)) == {"a": 6, "b": 0}
    assert targets(box(6), warm, claim("b", 3)) == {"a": 3, "b": 3}


def test_incumbents_stay_and_move_one_at_a_time_over_a_gap():
    rich, poor = claim("a", 6, present=6), claim("b", 6)
    first = share_out(box(6), [rich, poor], BudgetMemory(), 1000.0)
    assert (first.grants["d/a"].target, first.grants["d/b"].target) == (5, 1)
    again = share_out(box(6), [rich, poor], first.memory, 1000.0 + DWELL - 1)
    assert again.grants["d/b"].target == 0, "the dwell is not over"
    close = [claim("a", 6, base=1, present=4), claim("b", 6, base=1, present=2)]
    assert targets(box(6), *close) == {"a": 4, "b": 2}, "the gap is too small"


def test_the_dwell_is_two_slow_starts():
    rich, poor = claim("a", 6, present=6, startup=60.0), claim("b", 6)
    memory = BudgetMemory(moved={"d/a": 1000.0})
    assert targets(box(6), rich, poor, memory=memory, now=1100.0) == {"a": 6, "b": 0}
    assert targets(box(6), rich, poor, memory=memory, now=1121.0) == {"a": 5, "b": 1}


def test_draining_replicas_hold_their_part():
    shares = share_out(
        box(4), [claim("a", 1, present=1, draining=2), claim("b", 3)], BudgetMemory(), 0.0
    ).grants["d/b"]
    assert (shares.target, shares.startable) == (3, 1)


def test_idle_devices_are_filled_where_most_would_wait():
    claims = [claim("a", 1, value=(9.0, 1.0, 0.0)), claim("b", 1, value=(9.0, 3.0, 2.0))]
    assert targets(box(4), *claims) == {"a": 1, "b": 1}
    assert targets(box(4), *claims, idle="fill") == {"a": 1, "b": 3}
    assert targets(box(5), *claims, idle="fill") == {"a": 2, "b": 3}


def test_filling_leaves_what_is_there():
    assert targets(box(5), claim("a", 1, present=4), claim("b", 1), idle="fill") == {"a": 4, "b": 1}


def test_filling_is_even_where_no_policy_says_what_a_replica_is_worth():
    assert targets(box(9), claim("a", 2), claim("b", 1), claim("c", 0), idle="fill") == {
        "a": 6,
        "b": 3,
        "c": 0,
    }
    cpu = claim("a", 2, each=Amount(cpu=1))
    assert targets(box(9), cpu, idle="fill") == {"a": 2}, "only devices are filled"


def test_every_dimension_counts():
    heavy = Amount(devices=1, cpu=4, memory=10)
    assert targets(box(8, cpu=10), claim("a", 8, each=heavy)) == {"a": 2}
    assert targets(box(8, memory=35), claim("a", 8, each=heavy)) == {"a": 3}
    assert targets(box(1), claim("a", 8, each=Amount(devices=0.25))) == {"a": 4}


def test_a_small_one_uses_what_is_too_little_for_a_large_one():
    assert targets(box(3), claim("a", 2, each=Amount(devices=2)), claim("b", 1)) == {"a": 1, "b": 1}


def test_what_is_refused_is_told():
    shares = share_out(
        box(8), [claim("chat", 5, present=3), claim("infer", 5, priority=10)], BudgetMemory(), 0.0
    )
    grant = shares.grants["d/chat"]
    assert grant.reason == "wants 5, has 3: 2 GPUs short, held by infer (priority 10)"
    assert grant.short == 2
    alone = share_out(box(2), [claim("a", 3, base=1, need=2)], BudgetMemory(), 0.0).grants["d/a"]
    assert (alone.reason, alone.short) == (
        "wants 3 (needs 2), has 2: 1 GPU short, which the box does not have",
        0,
    )


def test_one_that_is_larger_than_the_box_is_not_said_to_be_held_up_by_others():
    claims = [claim("big", 1, each=Amount(devices=4)), claim("infer", 1, priority=10)]
    grant = share_out(box(2), claims, BudgetMemory(), 0.0).grants["d/big"]
    assert grant.reason == "wants 1, has 0: 4 GPUs short, which the box does not have"


def test_guarantees_that_do_not_fit_are_named():
    assert overcommitted(box(4), [claim("a", 4, least=2), claim("b", 4, least=2)]) == ""
    message = overcommitted(box(4), [claim("a", 4, least=3), claim("b", 4, least=2), claim("c", 1)])
    assert message == (
        "min_replicas do not fit: the box has 4 GPUs, and d/a 3 x 1 GPU, d/b 2 x 1 GPU are guaranteed"
    )


COUNT = st.integers(0, 6)


@st.composite
def any_claim(draw, name):
    base, more, warm = draw(COUNT), draw(COUNT), draw(COUNT)
    return claim(
        name,
        base + more + warm,
        base=base,
        need=base + more,
        least=draw(st.integers(0, 1)),
        most=draw(st.integers(1, 12)),
        present=draw(COUNT),
        draining=draw(st.integers(0, 2)),
        priority=draw(st.integers(0, 2)),
        each=Amount(devices=draw(st.sampled_from([0.5, 1, 2])), cpu=draw(st.integers(0, 4))),
        value=tuple(sorted(draw(st.lists(st.floats(0, 9), max_size=6)), reverse=True)),
    )


CLAIMS = st.tuples(*(any_claim(name) for name in "abcd"))


@given(CLAIMS, st.integers(4, 20), st.integers(8, 40), st.sampled_from(["fill", "release"]))
def test_laws(claims, gpus, cores, idle):
    room = box(gpus, cpu=cores)
    shares = share_out(room, claims, BudgetMemory(), 0.0, idle=idle)
    used = [(c, shares.grants[c.service]) for c in claims]
    for name in ("devices", "cpu"):
        assert sum(getattr(c.each, name) * g.target for c, g in used) <= getattr(room, name) + 1e-6
        held = sum(getattr(c.each, name) * (c.present + c.draining) for c, _ in used)
        after = sum(getattr(c.each, name) * (max(c.present, g.startable) + c.draining) for c, g in used)
        assert after <= max(held, getattr(room, name)) + 1e-6
    assert all(0 <= g.startable <= g.target <= max(c.most, c.least) for c, g in used)
    if not overcommitted(room, claims):
        assert all(g.target >= c.least for c, g in used)
    if idle == "release":
        assert all(g.target <= c.tier("want") for c, g in used)
    assert all(bool(g.reason) == (g.target < c.tier("want")) for c, g in used)
    assert share_out(room, claims[::-1], BudgetMemory(), 0.0, idle=idle) == shares


@given(CLAIMS, st.integers(4, 20))
def test_nothing_that_is_wanted_is_left_idle(claims, gpus):
    room = box(gpus)
    shares = share_out(room, claims, BudgetMemory(), 0.0)
    left = gpus - sum(c.each.devices * shares.grants[c.service].target for c in claims)
    for c in claims:
        assert shares.grants[c.service].target >= c.tier("want") or c.each.devices > left


@pytest.mark.parametrize("count", [100])
def test_a_hundred_services_take_little_work(count):
    claims = [claim(f"s{i:03}", 4, present=3, base=1, need=3, most=8) for i in range(count)]
    assert sum(targets(box(350), *claims).values()) == 350


def after(*steps, room, now=1000.0):
    """Share out step by step: each is the seconds that pass before it, and its claims."""
    memory, shares = BudgetMemory(), None
    for seconds, *claims in steps:
        now += seconds
        shares = share_out(room, claims, memory, now)
        memory = shares.memory
    return shares


def test_a_need_that_swings_costs_no_replica_within_a_start():
    high = claim("a", 6, base=2, need=4, present=4, startup=20.0)
    low = claim("a", 6, base=2, need=3, present=4, startup=20.0)
    asks = claim("b", 2, base=0, startup=20.0)
    shares = after((0.0, high, asks), (5.0, low, asks), room=box(5))
    assert shares.grants["d/a"].target == 4
    assert shares.wake_at == pytest.approx(1025.0)
    assert shares.grants["d/b"].reason == "wants 2, has 1: 1 GPU short, held by a (priority 0)"
    later = after((0.0, high, asks), (5.0, low, asks), (21.0, low, asks), room=box(5))
    assert later.grants["d/a"].target == 3
    assert later.grants["d/b"].target == 2


def test_what_was_needed_before_gives_way_to_a_base_and_to_a_higher_priority():
    high = claim("a", 6, base=2, need=4, present=4, startup=20.0)
    low = claim("a", 6, base=2, need=2, present=4, startup=20.0)
    for other in (claim("b", 2, base=2), claim("b", 2, base=0, priority=1)):
        shares = after((0.0, high, claim("b", 0)), (5.0, low, other), room=box(4))
        assert shares.grants["d/b"].target == 2


def test_a_need_of_before_is_no_shortage():
    high = claim("a", 4, base=1, need=4, present=4, startup=20.0)
    low = claim("a", 4, base=1, need=1, present=4, startup=20.0)
    shares = after((0.0, high), (5.0, low, claim("b", 3, base=3)), room=box(4))
    assert (shares.grants["d/a"].target, shares.grants["d/a"].short) == (1, 0)


@given(
    needs=st.lists(st.tuples(st.sampled_from([1.0, 7.0, 20.0]), st.integers(0, 6)), min_size=1, max_size=20)
)
def test_needs_are_remembered_for_a_start(needs):
    memory, now, seen = None, 0.0, []
    for seconds, need in needs:
        now += seconds
        seen.append((now, need))
        memory = (memory or Needs(last=need)).followed_by(need, now, 20.0)
        # A need stands until the next one is told.
        ended = [(seen[i + 1][0], count) for i, (_, count) in enumerate(seen[:-1])]
        within = [count for until, count in ended if until + 20.0 > now and count > need]
        assert max([count for _, count in memory.former], default=0) == max(within, default=0)
        assert [count for _, count in memory.former] == sorted(
            {count for _, count in memory.former}, reverse=True
        )
