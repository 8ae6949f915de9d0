"""What every policy here asks first: is there data, is there any activity, what was declared. Pure."""

from __future__ import annotations

import math

from stoker.model.load import Decision, LoadWindow
from stoker.plugin.ports import PolicyInput

ACTIVITY_WINDOW = 5.0
"""Seconds over which a service must have had no request to count as idle. Short, because the scale-down
window of the file comes on top of it."""
STALE = 10.0
"""A busy service reports every second or so; after this many seconds without a word its load is unknown."""
_ROUNDING = 0.01
"""4.03 requests for a target of 4 are one replica's work: a hundredth is measurement, not load."""


def parameter(given: PolicyInput, name: str, default: float) -> float:
    """The number that the file's policy gives for `name`, or the default."""
    return float(dict(given.policy.params).get(name, default))


def target_of(given: PolicyInput, default: float) -> float:
    """The rule's target. Raises ValueError for one that nothing can be divided by."""
    target = default if given.policy.target is None else given.policy.target
    if not target > 0:
        raise ValueError(f"target of metric {given.policy.metric} must be above 0, not {target:g}")
    return target


def replicas(amount: float) -> int:
    """Round a number of replicas up."""
    return math.ceil(amount - _ROUNDING)


def in_words(number: float) -> str:
    """7.13 -> "7.1", but 0.0213 -> "0.021": a little is not nothing."""
    return f"{number:.1f}" if number >= 0.95 or not number else f"{number:.2g}"


def unseen(load: LoadWindow) -> str:
    """Why the load is not known, "" if it is."""
    if load.seconds <= 0 and load.age <= 0:
        return "no load measured yet"
    if load.seconds <= 0 or load.age > STALE:
        return f"load not measured for {load.age:.0f} s"
    return ""


def active(load: LoadWindow) -> bool:
    """Whether any request came, ran or waited in the window."""
    return any((load.in_flight, load.queued, load.rps, load.in_flight_now, load.queued_now))


def present(given: PolicyInput) -> int:
    """The wanted number as it stands, without the standby replicas that come on top of every answer."""
    return max(0, given.pool.target - given.service.standby)


def no_opinion(given: PolicyInput, reason: str) -> Decision:
    """Hold: there is nothing to decide on."""
    return Decision(target=present(given), reason=reason, valid=False, code="no_data")


def settles_at(given: PolicyInput, load: LoadWindow, wanted: int) -> float | None:
    """When to ask again: a service at rest sends no more samples, but its window still empties."""
    at_rest = load.in_flight_now == 0 and load.queued_now == 0
    if at_rest and active(load) and wanted > given.service.scaling.min_replicas:
        return given.now + 1.0
    return None
