"""Questions that hang: what they cost, and what becomes of them."""

from __future__ import annotations

import threading
import time

import pytest

from stoker_nvidia.guard import Guard, HangsError

LONG = 30.0


class Stall:
    """A question that is answered when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        assert self.go.wait(LONG)
        return "late"


@pytest.fixture
def stall():
    made = Stall()
    yield made
    made.go.set()


def wait_until(condition) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_answers_and_errors_are_those_of_the_question():
    guard = Guard()
    assert guard.ask("a", lambda: 7, LONG) == 7
    with pytest.raises(ZeroDivisionError):
        guard.ask("a", lambda: 1 // 0, LONG)
    assert guard.ask("a", lambda: 8, LONG) == 8
    assert not guard.hanging


def test_one_that_hangs_costs_its_time_once_and_the_others_nothing(stall):
    guard = Guard()
    with pytest.raises(HangsError) as caught:
        guard.ask("sick", stall, 0.05)
    assert caught.value.seconds >= 0.05
    assert guard.hanging
    assert guard.ask("well", lambda: 7, LONG) == 7
    with pytest.raises(HangsError) as again:
        guard.ask("sick", stall, LONG)
    assert again.value.seconds > caught.value.seconds, "how long it has hung by now"
    assert stall.asked == 1, "nobody hangs beside it"


def test_one_that_comes_back_is_asked_anew(stall):
    guard = Guard()
    with pytest.raises(HangsError):
        guard.ask("sick", stall, 0.02)
    stall.go.set()
    wait_until(lambda: not guard.hanging)
    assert guard.ask("sick", lambda: "fresh", LONG) == "fresh"


def test_threads_do_not_pile_up():
    guard, before = Guard(), set(threading.enumerate())

    def more() -> int:
        return len(set(threading.enumerate()) - before)  # those of earlier tests may be ending

    for _ in range(50):
        guard.ask("a", lambda: 7, LONG)
    assert more() == 1
    stalls = [Stall() for _ in range(3)]
    for number, one in enumerate(stalls):
        with pytest.raises(HangsError):
            guard.ask(number, one, 0.02)
    assert more() == 3
    for one in stalls:
        one.go.set()
    wait_until(lambda: more() == 0)
    assert guard.ask("a", lambda: 7, LONG) == 7


def test_what_cannot_be_ended_is_told_from_what_can(stall, monkeypatch):
    guard = Guard()
    with pytest.raises(HangsError) as caught:
        guard.ask("sick", stall, 0.02)
    assert not caught.value.stuck
    monkeypatch.setattr("stoker_nvidia.guard._state", lambda thread: "D")
    with pytest.raises(HangsError) as caught:
        guard.ask("sick", stall, LONG)
    assert caught.value.stuck
