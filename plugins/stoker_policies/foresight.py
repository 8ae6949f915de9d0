"""The replicas that the promised wait will need when a new one could be ready. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from stoker.model.load import Decision, LoadWindow
from stoker.plugin.ports import PolicyInput
from stoker_policies import forecast, recurrence, warmth
from stoker_policies.reading import no_opinion, parameter, present, target_of, unseen

RISK = 0.08
RESTART_WORTH = 4.0
SLO_WAIT = 2.0
STARTUP = 20.0
"""Seconds assumed until a start was measured."""
WARM_UP = 120.0
"""Seconds after the first look during which the scale that was found is held."""
_LATEST = 1.0
"""The router's interval: in a longer silence the service was at rest until so many seconds ago."""
_RUSH = 20.0
"""Seconds ahead of what comes every hour at which its height counts: it rises within some."""
_JITTER = 0.1
"""A start may take so much longer than the one before."""
_CLEARED = 1.5
"""Start-ups (or promised waits) within which a standing queue should be gone."""
_LEVELS = 64
_NOTHING = 0.02
"""Slots: less than this is no demand."""


@dataclass(slots=True)
class _Need:
    """What the load asks for, with the numbers it was made of."""

    base: int
    count: int
    expected: float
    head_room: float
    backlog: float
    code: str


class Foresight:
    """need = forecast of the load when a replica started now can serve, plus head-room, over its slots.

    - The load is what the promised wait asks of the pool, not the peak of requests: a queue that is short
      enough is no fault (`forecast`).
    - Several forecasters run side by side; the one whose past errors cost least is used.
    - Head-room is the error of that forecaster which only `risk` (0.08) of the requests met, in the last hour
      or so: learned, not a fixed target utilisation.
    - What came at the same minute of the last two hours is expected at the same minute (`recurrence`).
    - A queue that is expected to stand when new replicas are ready must be gone within the promised wait
      (or half a start-up, if that is longer).
    - A replica that is no longer needed stays while that is cheaper than starting it again, judged by how
      soon its level was needed in the past; a restart is worth `restart_worth` (4) start-ups of idling. So
      zero is reached by itself, too (`warmth`).
    - Where the promised wait is longer than a start, nothing is kept for what may come: a replica that is
      started for a request that waits is in time, and begun as late as that allows, for a slot may get free
      before. A restart is then worth one start-up.

    `slo.wait` of the service is the promise (2 s where none is declared), `target` the requests per replica
    (default: traffic.concurrency, else 1). It times its own ups and downs: leave the windows at 0.
    """

    def decide(self, given: PolicyInput) -> Decision:
        """Answer for the load since the last look, which `given.state` holds."""
        state = dict(given.state)
        since = given.now - state["at"] if state else _LATEST
        load = given.window(max(since, 1e-3))
        if blind := unseen(load):
            return no_opinion(given, blind)
        if "totals" not in state:  # nothing yet, or what a version before this one has left
            state = {"began": given.now, "hold": present(given), "value": []}
            state |= forecast.fresh(given.now - _LATEST) | warmth.fresh(given.now, present(given))
            state |= recurrence.fresh()
            since = _LATEST
        before = state["at"]
        startup = given.pool.startup_seconds
        horizon = (STARTUP if startup is None else startup) + 1.0
        # A promise that outlasts a start needs no forecast: a replica started for a request is in time.
        wait = given.service.slo_wait or SLO_WAIT
        in_time = wait >= horizon
        # Who comes a wait before a replica is ready is still in time.
        ahead = max(_LATEST, horizon - wait)
        # A look between two samples learns nothing new; what came meanwhile is in the next one.
        if since >= _LATEST / 2 or load.rps or load.in_flight_now:
            _take_in(state, given, load, since, ahead)
        need = _need(state, given, load, horizon, None if in_time else ahead)
        most = given.service.scaling.max_replicas
        count = min(need.count, most)
        warmth.use(state, count, before, given.now)
        worth = (1.0 if in_time else parameter(given, "restart_worth", RESTART_WORTH)) * horizon
        least = 0.0 if in_time else horizon
        want, ends = warmth.kept(state, most, worth, given.now, least=least)
        held = given.now < state["began"] + WARM_UP and want < state["hold"]
        want = state["hold"] if held else want
        return Decision(
            target=want,
            reason=_reason(need, count, want, given, load, held=held, ends=ends, ahead=ahead),
            code="warm_up" if held else "keep_warm" if want > count else need.code,
            facts={
                "demand": state["demand"],
                "rate": max(state["slow"], state["fast"]),
                "service_time": forecast.service_time(state),
                "expected": need.expected,
                "head_room": need.head_room,
                "backlog": need.backlog,
                "need": float(count),
                "startup": horizon - 1.0,
            },
            wake_at=_wake_at(given, state, count, want, ends=ends, ahead=ahead),
            state=state,
            base=min(need.base, count),
            need=count,
            want=want,
            value=tuple(state["value"]),
        )


def _take_in(
    state: forecast.Memory, given: PolicyInput, load: LoadWindow, since: float, horizon: float
) -> None:
    """Measure what came, and let the forecasters learn; a long silence passes in steps."""
    now, risk = given.now, parameter(given, "risk", RISK)
    wait = given.service.slo_wait or SLO_WAIT
    last = since
    if since > 2 * forecast.STEP:
        last = _LATEST
        nothing = {
            "arrivals": 0.0,
            "completions": 0.0,
            "service_seconds": 0.0,
            "in_flight": 0.0,
            "queued": 0.0,
        }
        steps = min(int((since - last) / forecast.STEP), int(horizon / forecast.STEP) + 2)
        gap = since - last - steps * forecast.STEP
        forecast.rest(state, gap)
        for length in (gap, *[forecast.STEP] * steps):
            state["at"] += length
            if length > 0:
                forecast.measure(state, length, horizon, wait, **nothing)
                forecast.learn(state, state["at"], horizon, risk)
    forecast.measure(
        state,
        last,
        horizon,
        wait,
        arrivals=load.rps * load.seconds,
        completions=load.completions,
        service_seconds=load.service_time * load.completions,
        in_flight=(load.in_flight + load.queued) * load.seconds / last,
        queued=load.queued_now,
    )
    state["at"] = now
    recurrence.observe(state, now, since, state["age"], level=state["level"], load=state["load"])
    if now + 1e-9 >= state["next"]:
        _value(state, given)
    forecast.learn(state, now, horizon, risk)


def _value(state: forecast.Memory, given: PolicyInput) -> None:
    """How many requests a second come while the k-th replica is in use, by k; about the last half hour."""
    slots = target_of(given, float(given.service.slots or 1))
    busy = math.ceil(state["demand"] / slots - 1e-6)
    levels = min(given.service.scaling.max_replicas, _LEVELS)
    part = 1 - math.exp(-forecast.STEP / min(1800.0, max(state["age"], 30.0)))
    old = [*state["value"], *[0.0] * levels][:levels]
    rate = state["fast"]
    state["value"] = [
        value + part * ((rate if level < busy else 0.0) - value) for level, value in enumerate(old)
    ]


def _need(
    state: forecast.Memory, given: PolicyInput, load: LoadWindow, horizon: float, ahead: float | None
) -> _Need:
    """`ahead`: seconds to look ahead; None where each replica can be started in time for its requests."""
    busy = bool(load.queued_now or load.in_flight_now)
    if ahead is None:
        found = _just_in_time(state, given, load, horizon)
    else:
        found = _forecast(state, given, busy=busy, ahead=ahead)
        if load.queued_now:
            found = _drained(state, given, load, horizon, found)
    if found.count == 0 and busy:
        found = replace(found, count=1, code="forecast")
    return replace(found, base=_base(state, given, load, horizon))


def _base(state: forecast.Memory, given: PolicyInput, load: LoadWindow, horizon: float) -> int:
    """What the present load keeps busy, and what else makes a queue that stands for longer than the promise
    go within some start-ups: without it those in the queue, and all who come after them, would stay late."""
    slots, mean = target_of(given, float(given.service.slots or 1)), forecast.service_time(state)
    offered: float = state["fast"] * mean
    if offered <= 0.05 and not (load.queued_now or load.in_flight_now):
        return 0
    wait = given.service.slo_wait or SLO_WAIT
    standing = load.queued_now - given.pool.ready * slots * wait / mean
    if standing > 0:
        offered += standing * mean / (_CLEARED * max(horizon, wait))
    return max(1, math.ceil(offered / slots - 1e-6))


def _forecast(state: forecast.Memory, given: PolicyInput, *, busy: bool, ahead: float) -> _Need:
    """What is expected when a replica started now is ready, and the room that was learned."""
    slots = target_of(given, float(given.service.slots or 1))
    expected = forecast.forecast(state, ahead)
    head = state["head"][state["expert"]]
    if not busy and expected + max(head, 0.0) <= _NOTHING:
        wanted = 0.0
    else:
        wanted = forecast.bounded(state, expected, expected + head * math.sqrt(expected + 1))
    due, code = given.now + ahead, "forecast"
    again = recurrence.expected(state, due, due + _RUSH)
    again += max(head, 0.0) * math.sqrt(again + 1) if again else 0.0
    if again > max(wanted, _NOTHING):
        wanted, code = again, "recurrence"
    count = max(math.ceil(wanted / slots - 1e-6), 0)
    return _Need(0, count, expected, wanted - expected, 0.0, code if count else "idle")


def _drained(
    state: forecast.Memory, given: PolicyInput, load: LoadWindow, horizon: float, found: _Need
) -> _Need:
    """What makes the queue that will still stand then go within the promised wait."""
    slots, mean = target_of(given, float(given.service.slots or 1)), forecast.service_time(state)
    ready, starting = given.pool.ready * slots, given.pool.starting * slots
    served = (ready - state["demand"]) / mean * horizon + starting / mean * horizon / 2
    backlog = max(0.0, load.queued_now - served)
    within = max(given.service.slo_wait or SLO_WAIT, horizon / 2)
    drain = math.ceil((found.expected + backlog * mean / within) / slots - 1e-6)
    drain = max(1, min(drain, math.ceil((state["demand"] + backlog) / slots + 1)))
    if drain <= found.count:
        return replace(found, backlog=backlog)
    return replace(found, count=drain, backlog=backlog, code="backlog")


def _just_in_time(state: forecast.Memory, given: PolicyInput, load: LoadWindow, horizon: float) -> _Need:
    """A start outlasts no promise: one is begun for a request when no later start would be ready in time.
    Until then a slot may get free. Where nothing is there that could, nothing is gained by waiting."""
    slots = target_of(given, float(given.service.slots or 1))
    running = float(load.in_flight_now)
    if not load.queued_now:
        count = math.ceil(running / slots - 1e-6)
        return _Need(0, count, running, 0.0, 0.0, "in_time" if count else "idle")
    patience = (given.service.slo_wait or SLO_WAIT) - horizon - _LATEST - _JITTER * (horizon - 1.0)
    urgent = max(0.0, load.queued_now - forecast.came_within(state, patience))
    count = max(1, given.pool.ready + math.ceil(urgent / slots - 1e-6))
    return _Need(0, count, running, 0.0, urgent, "in_time")


def _wake_at(
    given: PolicyInput, state: forecast.Memory, count: int, want: int, *, ends: float | None, ahead: float
) -> float | None:
    """While requests run samples come by themselves. At rest the forecast falls, warm ones run out, and what
    comes every hour comes near."""
    again = recurrence.next_time(state, given.now, ahead)
    if want <= given.service.scaling.min_replicas:
        return again
    times = [given.now + forecast.STEP] if count else []
    if again is not None:
        times.append(again)
    if ends is not None:
        times.append(ends + 1e-3)
    if given.now < state["began"] + WARM_UP:
        times.append(state["began"] + WARM_UP)
    return min(times, default=None)


def _reason(
    need: _Need, count: int, want: int, given: PolicyInput, load: LoadWindow, *,
    held: bool, ends: float | None, ahead: float,
) -> str:  # fmt: skip
    """One sentence with the numbers."""
    if count == 0:
        text = "no request, none expected"
    elif need.code == "in_time":
        text = f"{need.expected:.0f} running"
        if load.queued_now:
            text += f", {load.queued_now} queued of which {need.backlog:.0f} cannot wait longer"
        startup = STARTUP if given.pool.startup_seconds is None else given.pool.startup_seconds
        text += f": {count} needed, a start of {startup:.0f} s keeps the promise"
    else:
        text = f"{need.expected:.1f} busy slots expected in {ahead:.0f} s"
        what = "for what comes every hour" if need.code == "recurrence" else "head-room learned"
        text += f" {'+' if need.head_room >= 0 else '-'} {abs(need.head_room):.1f} {what}"
        text += f", {target_of(given, float(given.service.slots or 1)):g} a replica"
        if load.queued_now:
            text += f", {load.queued_now} queued now"
        if need.code == "backlog":
            text += f" and {need.backlog:.0f} when a new replica is ready"
        text += f": {count} needed"
    if held:
        return f"{text}; the {want} found at the start are held for {WARM_UP:g} s"
    if want > count:
        left = f", {ends - given.now:.0f} s left for the last" if ends is not None else ""
        text += f"; {want - count} kept warm: cheaper than starting again{left}"
    return text
