"""Services over processes of a router: even, and with as few moves as that takes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.spread import spread

names = st.sets(st.sampled_from([f"app/{letter}" for letter in "abcdefghijkl"]))


@given(
    names, st.integers(1, 5), st.dictionaries(st.sampled_from(["app/a", "app/b", "app/k"]), st.integers(0, 9))
)
def test_every_service_has_one_process_and_none_has_two_more_than_another(
    services: set[str], count: int, present: dict[str, int]
) -> None:
    found = spread(services, count, present=present)
    assert found.keys() == services
    sizes = [Counter(found.values())[place] for place in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert spread(services, count, present=found) == found, "what is even stays"


@given(names, names, st.integers(1, 5))
def test_those_that_are_fixed_have_the_first_process(services: set[str], fixed: set[str], count: int) -> None:
    found = spread(services, count, present={}, fixed=fixed)
    assert {found[name] for name in services & fixed} <= {0}
    sizes = [sum(place == one for one in found.values()) for place in range(count)]
    assert max(sizes[1:], default=0) - min(sizes[1:], default=0) <= 1
    if any(found[name] == 0 for name in services - fixed):
        assert sizes[0] <= min(sizes) + 1, "it keeps no other while it has more than its part"


def test_a_new_service_moves_no_other() -> None:
    before = spread(["app/a", "app/b", "app/d"], 2, present={})
    assert spread(["app/a", "app/b", "app/c", "app/d"], 2, present=before) == {**before, "app/c": 1}


def test_more_processes_take_what_the_first_has_too_much_of_and_fewer_give_theirs_back() -> None:
    one = dict.fromkeys(["app/a", "app/b", "app/c", "app/d"], 0)
    two = spread(one, 2, present=one)
    assert two == {"app/a": 0, "app/b": 0, "app/c": 1, "app/d": 1}
    assert spread(one, 1, present=two) == one
