"""Replicas by the clock: a number within times of the week, ready when they begin. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from stoker.model.load import Decision
from stoker.plugin.ports import PolicyInput
from stoker_policies.reading import parameter

LONGEST_LEAD = 3600.0
"""Seconds before the times begin at which replicas are started at most, however long a start takes."""


class Schedule:
    """`target` replicas from `start` to `end`, none of its own at other times: a floor beside other rules.

    Parameters: `start`, `end` (cron expressions of five fields), `timezone` (an IANA name; default: the
    box's own), `target` (1), `lead` seconds before `start` at which replicas are started (default: what
    their start-up was measured to take). The form is that of KEDA's cron trigger.
    """

    def decide(self, given: PolicyInput) -> Decision:
        """Answer for this time of day. Raises ValueError for expressions that are none, KeyError for none."""
        params = dict(given.policy.params)
        start, end = str(params["start"]), str(params["end"])
        now = _local(given.wall, str(params.get("timezone", "")))
        lead = timedelta(seconds=_lead(given))
        began, ended = _last(start, now + lead), _last(end, now)
        opens, closes = _next(start, now + lead) - lead, _next(end, now)
        count = 1 if given.policy.target is None else round(given.policy.target)
        if began > ended:
            ahead = f", {lead.total_seconds():.0f} s ahead" if began > now else ""
            reason = f"schedule: {count} from {_when(began)} to {_when(closes)}{ahead}"
            return self._answer(given, count, reason, closes - now)
        reason = f"schedule: none until {_when(opens + lead)}"
        return self._answer(given, 0, reason, opens - now)

    def _answer(self, given: PolicyInput, count: int, reason: str, until: timedelta) -> Decision:
        # a little later than the boundary: the event loop's clock and the wall's are not one
        wake_at = given.now + until.total_seconds() + 0.01
        facts = {"scheduled": float(count)}
        return Decision(target=count, reason=reason, code="schedule", facts=facts, wake_at=wake_at)


def _lead(given: PolicyInput) -> float:
    return min(parameter(given, "lead", given.pool.startup_seconds or 0.0), LONGEST_LEAD)


def _local(wall: float, timezone: str) -> datetime:
    """This moment there, or where the box is."""
    return datetime.fromtimestamp(wall, UTC).astimezone(ZoneInfo(timezone) if timezone else None)


def _last(expression: str, now: datetime) -> datetime:
    """The last time at or before now."""
    return next(CronSim(expression, now.replace(microsecond=0) + timedelta(seconds=1), reverse=True))


def _next(expression: str, now: datetime) -> datetime:
    """The first time after now."""
    return next(CronSim(expression, now))


def _when(moment: datetime) -> str:
    return f"{moment:%a %H:%M}"
