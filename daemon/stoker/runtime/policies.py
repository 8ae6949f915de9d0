"""Asks policies. They are strangers: what one raises, or takes too long for, means that its pool holds."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from stoker.model.event import Event, Notice
from stoker.model.load import Decision
from stoker.model.service import PolicySpec, ServiceKey, ServiceSpec
from stoker.plugin.ports import Policy, PolicyInput

PATIENCE = 1.0
"""Seconds of the daemon's time that one answer may take; those of Stoker's own take microseconds."""
PAUSE = 60.0
"""Seconds for which a policy that took longer is not asked again."""


class _TooSlow(BaseException):
    """The time for an answer is over. Not to be caught by whom it breaks off."""


class Policies:
    """`make` gives a policy by its metric (raises PluginError); each is made once."""

    def __init__(self, make: Callable[[str], Policy], post: Callable[[Event], None]) -> None:
        self._make = make
        self._post = post
        self._made: dict[str, Policy] = {}
        self._faults: dict[tuple[ServiceKey, str], str] = {}
        """What was said of a policy that failed a service, until it answers again."""
        self._rests: dict[tuple[ServiceKey, str], float] = {}

    def of(self, metric: str) -> Policy:
        """The policy of that metric. Raises PluginError."""
        policy = self._made.get(metric)
        if policy is None:
            policy = self._made[metric] = self._make(metric)
        return policy

    def ask(self, spec: ServiceSpec, rule: PolicySpec, given: PolicyInput) -> Decision:
        """Its answer; one that holds the present target, with an event, where it fails or is too slow."""
        who = (spec.key, rule.metric)
        if self._rests.get(who, 0.0) > given.now:
            return _hold(given, self._faults[who], wake_at=self._rests[who])
        try:
            with _limited(PATIENCE):
                answer = self.of(rule.metric).decide(given)
        except _TooSlow:
            self._rests[who] = given.now + PAUSE
            words = f"took longer than {PATIENCE:g} s and is not asked for {PAUSE:g} s"
        except Exception as error:  # noqa: BLE001 - a policy is a stranger; its fault means hold, with an event
            words = f"failed: {type(error).__name__}: {error}"
        else:
            if over := self._faults.pop(who, ""):
                words = f"policy {rule.metric} answers again"
                self._post(Notice(message=words, service=spec.key, settles=over))
            return answer
        message = f"policy {rule.metric} {words}; {spec.name} holds its scale"
        if self._faults.get(who) != message or who in self._rests:
            self._faults[who] = message
            self._post(Notice(message=message, severity="error", service=spec.key))
        return _hold(given, message, wake_at=self._rests.get(who))


def _hold(given: PolicyInput, reason: str, wake_at: float | None = None) -> Decision:
    return Decision(
        target=given.pool.target, reason=reason, valid=False, code="policy_failed", wake_at=wake_at
    )


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Break the block off when it takes longer, also out of a loop without end: nothing else of the daemon
    runs meanwhile. Outside of the main thread it is only measured. Raises _TooSlow."""
    began = time.perf_counter()
    if threading.current_thread() is not threading.main_thread():
        yield
    else:
        within = True

        def ring(number: int, frame: FrameType | None) -> None:
            del number, frame
            if within:
                raise _TooSlow

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            within = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
    if time.perf_counter() - began > seconds:
        raise _TooSlow
