"""Kinds of values that speak of the calendar: cron expressions and time zones. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stoker.config.fields import JsonSchema, Kind, fault, wanted
from stoker.config.tree import found, suggest

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cron(Kind):
    """A cron expression of five fields that comes true at some time."""

    def check(self, value: Any) -> str:
        from cronsim import CronSim, CronSimError  # only files with a schedule pay for it

        if not isinstance(value, str):
            raise wanted('a cron expression such as "0 8 * * mon-fri"', value)
        try:
            next(CronSim(value, _SOME_DAY))
        except CronSimError as error:
            what = 'must be minute, hour, day, month and weekday as in "0 8 * * mon-fri"'
            raise fault(f"{what} ({str(error).lower()}); found {found(value)}") from error
        except StopIteration:
            raise fault(f"must be a time that comes; found {found(value)}") from None
        return value

    def json_schema(self) -> JsonSchema:
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Timezone(Kind):
    """An IANA time zone that this box knows."""

    def check(self, value: Any) -> str:
        from zoneinfo import ZoneInfo, available_timezones  # only files with a time zone pay for it

        if not isinstance(value, str):
            raise wanted('a time zone such as "Europe/Berlin"', value)
        try:
            ZoneInfo(value)
        except (KeyError, OSError, ValueError):  # not found, a directory, a path
            near = suggest(value, available_timezones())
            raise fault(f"no time zone {found(value)} is known{near}") from None
        return value

    def json_schema(self) -> JsonSchema:
        return {"type": "string"}
