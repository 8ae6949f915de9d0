"""Replicas by id and by service: always the same as a plain mapping, and shared where nothing changed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stoker.model.replica import Replica
from stoker.model.replicas import Replicas
from stoker.model.state import ObservedState


def made(name: str, service: str = "app/web", created: float = 0.0) -> Replica:
    return Replica(id=name, service=service, revision="r", created=created)


STEPS = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from("abcde"), st.sampled_from(("app/web", "app/db")), st.integers(0, 3)
    ),
    max_size=30,
)


@given(STEPS)
def test_any_history_leads_to_what_a_plain_mapping_would_hold(
    steps: list[tuple[bool, str, str, int]],
) -> None:
    plain: dict[str, Replica] = {}
    kept = Replicas()
    for put, name, service, created in steps:
        before, were = kept, dict(kept)
        if put:
            plain = {**plain, name: made(name, service, created)}
            kept = kept.put(plain[name])
        else:
            plain = {key: value for key, value in plain.items() if key != name}
            kept = kept.without(name)
        assert before == were
        assert kept == plain
        assert set(kept.services) == {replica.service for replica in plain.values()}
        for key in ("app/web", "app/db"):
            mine = [replica for replica in plain.values() if replica.service == key]
            assert kept.of(key) == tuple(sorted(mine, key=lambda each: (each.created, each.id)))


def test_a_service_that_did_not_change_is_the_same_object() -> None:
    first = Replicas({"a": made("a"), "b": made("b", "app/db")})
    web, db = first.of("app/web"), first.of("app/db")
    second = first.put(replace(first["a"], phase="ready"))
    assert second.of("app/db") is db
    assert second.of("app/web") is not web
    assert second.without("a").of("app/db") is db


def test_a_state_takes_a_plain_mapping_too() -> None:
    state = ObservedState(replicas={"a": made("a")})  # type: ignore[arg-type]  # as tests write it
    assert state.of("app/web") == (made("a"),)
