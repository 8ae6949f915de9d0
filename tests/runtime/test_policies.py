"""What a policy that fails, or takes too long, costs: its pool holds, with an event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from stoker.model.event import Notice
from stoker.model.load import Decision, LoadWindow, PoolState
from stoker.model.service import PolicySpec
from stoker.plugin.ports import PolicyInput
from stoker.runtime import policies
from stoker.runtime.policies import PAUSE, Policies
from worlds import make_spec

RULE = PolicySpec(metric="tide")
SPEC = make_spec("web")


class Tide:
    """Does what the test says."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self.act = act
        self.asked = 0

    def decide(self, given: PolicyInput) -> Decision:
        self.asked += 1
        self.act()
        return Decision(target=9, reason="high water")


class Asked:
    """A policy, and what was said of it."""

    def __init__(self) -> None:
        self.tide = Tide()
        self.said: list[Any] = []
        self.policies = Policies(lambda metric: self.tide, self.said.append)

    def ask(self, now: float = 0.0) -> Decision:
        given = PolicyInput(
            service=SPEC,
            policy=RULE,
            window=lambda seconds: LoadWindow(),
            pool=PoolState(ready=3, target=3),
            now=now,
        )
        return self.policies.ask(SPEC, RULE, given)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def fail() -> None:
    raise ZeroDivisionError("no water")


def test_an_answer_is_passed_on(asked: Asked) -> None:
    assert asked.ask() == Decision(target=9, reason="high water")
    assert asked.said == []


def test_an_exception_holds_and_is_said_once_until_it_answers_again(asked: Asked) -> None:
    asked.tide.act = fail
    for now in range(3):
        found = asked.ask(now)
        assert (found.target, found.valid, found.code) == (3, False, "policy_failed")
    words = "policy tide failed: ZeroDivisionError: no water; web holds its scale"
    assert asked.said == [Notice(message=words, severity="error", service=SPEC.key)]
    asked.tide.act = lambda: None
    assert asked.ask(4).target == 9
    assert asked.said[1:] == [
        Notice(message="policy tide answers again", service=SPEC.key, settles=asked.said[0].message)
    ]


def slow() -> None:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass


def loop() -> None:
    while True:
        try:
            sum(range(100))
        except Exception:  # noqa: BLE001 - as a stranger might
            continue


def test_one_that_never_answers_is_broken_off_and_rests(asked: Asked, monkeypatch: Any) -> None:
    """Even out of a loop that catches everything; and it is not asked again at once."""
    monkeypatch.setattr(policies, "PATIENCE", 0.05)
    asked.tide.act = loop
    found = asked.ask(100.0)
    assert (found.target, found.valid, found.wake_at) == (3, False, 100.0 + PAUSE)
    assert [notice.severity for notice in asked.said] == ["error"]
    assert "took longer than 0.05 s and is not asked for 60 s; web holds its scale" in asked.said[0].message
    asked.tide.act = lambda: None
    assert asked.ask(101.0).code == "policy_failed"
    assert asked.tide.asked == 1
    assert asked.ask(100.0 + PAUSE).target == 9
    assert [notice.message for notice in asked.said[1:]] == ["policy tide answers again"]


def test_in_another_thread_a_slow_answer_is_not_taken(asked: Asked, monkeypatch: Any) -> None:
    monkeypatch.setattr(policies, "PATIENCE", 0.01)
    asked.tide.act = slow
    found: list[Decision] = []
    thread = threading.Thread(target=lambda: found.append(asked.ask()))
    thread.start()
    thread.join()
    assert found[0].code == "policy_failed"
