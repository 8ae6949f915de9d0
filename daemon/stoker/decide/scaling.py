"""From the policies' answers to a settled target: stabilization windows, bounds, reasons. Pure.

The windows are BentoML's and Kubernetes' (autoscaling/v2): the present count is held between the lowest
recommendation of the scale-up window and the highest of the scale-down window. A recommendation stands
until the next one, so a quiet hour counts as an hour of the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from stoker.model.load import Decision, PoolState
from stoker.model.service import PolicySpec, ServiceSpec

Ended = tuple[float, int]
"""(monotonic time at which a recommendation was last in force, the recommendation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMemory:
    """What one rule has recommended. `highs` are past recommendations that no later one reached, oldest and
    highest first; `lows` the mirror image. So both stay as short as the pool is large."""

    last: int
    highs: tuple[Ended, ...] = ()
    lows: tuple[Ended, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    """The policy's own, handed back to it."""

    def with_recommendation(self, count: int, now: float) -> RuleMemory:
        """The memory after the rule recommended `count` at `now`."""
        if count == self.last:
            return self
        highs = tuple(ended for ended in self.highs if ended[1] > self.last)
        lows = tuple(ended for ended in self.lows if ended[1] < self.last)
        ended = (now, self.last)
        return replace(self, last=count, highs=(*highs, ended), lows=(*lows, ended))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingMemory:
    """What is remembered of one service between decisions, by rule."""

    rules: Mapping[str, RuleMemory] = field(default_factory=dict)

    def state_of(self, rule: PolicySpec) -> Mapping[str, Any]:
        """The state that rule's policy left with its last answer, for `PolicyInput.state`."""
        found = self.rules.get(rule_key(rule))
        return found.state if found else {}

    def as_json(self) -> dict[str, Any]:
        """JSON data from which `from_json` makes an equal memory. Times are monotonic: of this boot only."""
        return {
            key: {"last": rule.last, "highs": rule.highs, "lows": rule.lows, "state": dict(rule.state)}
            for key, rule in self.rules.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScalingMemory:
        """Raises ValueError if that is not what `as_json` gave."""
        try:
            rules = {
                key: RuleMemory(
                    last=int(rule["last"]),
                    highs=tuple((float(at), int(count)) for at, count in rule["highs"]),
                    lows=tuple((float(at), int(count)) for at, count in rule["lows"]),
                    state=dict(rule["state"]),
                )
                for key, rule in data.items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a scaling memory: {error!r}") from error
        return cls(rules=rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The decision in force, what to remember, and when to decide again though nothing happens."""

    decision: Decision
    memory: ScalingMemory
    wake_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opinion:
    """One rule's answer after its windows. `ends_at`: when a window that holds it ends."""

    metric: str
    need: int
    answer: Decision
    note: str = ""
    ends_at: float | None = None


@lru_cache(maxsize=4096)
def rule_key(rule: PolicySpec) -> str:
    """Identify a rule in the memory; changing its metric, target or parameters starts its windows anew."""
    return json.dumps([rule.metric, rule.target, rule.params])


def settle(
    spec: ServiceSpec,
    answers: Sequence[tuple[PolicySpec, Decision]],
    memory: ScalingMemory,
    pool: PoolState,
    now: float,
    *,
    demand: bool = False,
) -> Settled:
    """Return the count to have, with every step that led to it in the reason.

    Of several rules the largest valid target wins. A rule without an answer never lets the pool shrink. At
    zero replicas a recommendation, or `demand` (a request waits), makes it one at once whatever the scale-up
    window. Zero itself is reached when every rule has recommended it for its whole scale-down window;
    policies recommend it only without arrivals and with nothing in flight or queued.
    """
    if spec.held:
        reason = "held at zero: stopped by the operator (stoker start releases it)"
        return Settled(decision=Decision(target=0, reason=reason, code="held"), memory=ScalingMemory())
    present = max(0, pool.target - spec.standby)
    rules: dict[str, RuleMemory] = {}
    opinions: list[_Opinion] = []
    for rule, answer in answers:
        key = rule_key(rule)
        known = memory.rules.get(key)
        if answer.valid:
            known = _remember(known or RuleMemory(last=present), rule, answer, now)
            least = spec.scaling.min_replicas - spec.standby
            opinions.append(_stabilized(rule, answer, known, present, now, least=least))
        if known:
            rules[key] = known
    blind = [answer for _, answer in answers if not answer.valid]
    decision = _bounded(spec, _combined(opinions, blind, present, demand=demand))
    return Settled(
        decision=decision, memory=ScalingMemory(rules=rules), wake_at=_wake_at(spec, decision, opinions, now)
    )


def _remember(memory: RuleMemory, rule: PolicySpec, answer: Decision, now: float) -> RuleMemory:
    """The memory with the answer in it and without what no window can reach any more."""
    memory = memory.with_recommendation(answer.target, now)
    if not memory.highs and not memory.lows:
        return memory if memory.state is answer.state else RuleMemory(last=memory.last, state=answer.state)
    up, down = rule.scale_up_stabilization_window, rule.scale_down_stabilization_window
    # A memory kept across a reboot has times of the other boot: min() lets them run out from now on.
    highs = [(min(until, now), count) for until, count in memory.highs]
    lows = [(min(until, now), count) for until, count in memory.lows]
    return replace(
        memory,
        highs=tuple((until, count) for until, count in highs if until + down > now),
        lows=tuple((until, count) for until, count in lows if until + up > now),
        state=answer.state,
    )


def _stabilized(
    rule: PolicySpec, answer: Decision, memory: RuleMemory, present: int, now: float, *, least: int
) -> _Opinion:
    """Hold the present count between the lowest of the up-window and the highest of the down-window. Of a
    window whose end changes nothing, since it cannot be fewer than `least`, nothing is said: the words of a
    pool at rest stand for as long as it rests."""
    wanted = answer.target
    if not memory.lows and not memory.highs:
        return _Opinion(metric=rule.metric, need=wanted, answer=answer)
    low = min([wanted, *(count for _, count in memory.lows)])
    high = max([wanted, *(count for _, count in memory.highs)])
    need = min(max(present, low), high)
    if present == 0 and wanted > 0 and need == 0:
        return _Opinion(metric=rule.metric, need=1, answer=answer, note="; at zero, so one starts at once")
    if need == wanted:
        return _Opinion(metric=rule.metric, need=need, answer=answer)
    if need > wanted:
        seconds, name, other = rule.scale_down_stabilization_window, "scale-down", "no lower than"
        ends_at = max(until for until, count in memory.highs if count >= need) + seconds
    else:
        seconds, name, other = rule.scale_up_stabilization_window, "scale-up", "no higher than"
        ends_at = max(until for until, count in memory.lows if count <= need) + seconds
    held = f"{'stays at' if need == present else other} {need}"
    note = f"; {held} for the {seconds:g} s {name} window, {ends_at - now:.0f} s left"
    if wanted < need <= least:
        note = f"; kept at {need} by min_replicas"
    return _Opinion(metric=rule.metric, need=need, answer=answer, note=note, ends_at=ends_at)


def _combined(
    opinions: Sequence[_Opinion], blind: Sequence[Decision], present: int, *, demand: bool
) -> Decision:
    """The largest need, or the present count where a rule cannot see enough to let it go."""
    if len(opinions) == 1 and not blind and not demand and not opinions[0].note:
        return opinions[0].answer  # nearly always: one rule, and nothing that changes its answer
    unseen = "; ".join(dict.fromkeys(answer.reason for answer in blind))
    if opinions:
        best = max(opinions, key=lambda opinion: (opinion.need, opinion.answer.target))
        others = [f"{o.metric} asks for {o.answer.target}" for o in opinions if o is not best]
        beside = f" (largest; {', '.join(others)})" if others else ""
        found = replace(
            best.answer,
            target=best.need,
            reason=best.answer.reason + beside + best.note,
            facts={**best.answer.facts, "recommended": float(best.answer.target)},
        )
        if blind and best.need < present:
            found = replace(found, target=present, reason=f"{found.reason}; held at {present}: {unseen}")
    else:
        reason = unseen or "no scaling rule"
        found = Decision(target=present, reason=f"{reason}; holds {present}", valid=False, code="no_data")
    if demand and found.target == 0:
        found = replace(found, target=1, reason=f"{found.reason}; a request waits, so one starts at once")
    return found


def _bounded(spec: ServiceSpec, decision: Decision) -> Decision:
    least, most = spec.scaling.min_replicas, spec.scaling.max_replicas
    target, reason = decision.target + spec.standby, decision.reason
    if spec.standby:
        reason += f"; plus {spec.standby} standby"
    if target > most:
        target, reason = most, f"{reason}; held at {most} by max_replicas"
    elif target < least:
        target, reason = least, f"{reason}; kept at {least} by min_replicas"
    return decision if reason is decision.reason else replace(decision, target=target, reason=reason)


def _wake_at(spec: ServiceSpec, decision: Decision, opinions: Sequence[_Opinion], now: float) -> float | None:
    """The next time at which the answer can change by itself: a window's end (where the bounds leave room
    for the change) or what a policy asked for."""
    times = [opinion.answer.wake_at for opinion in opinions]
    for opinion in opinions:
        falling = opinion.need > opinion.answer.target
        bound = spec.scaling.min_replicas if falling else spec.scaling.max_replicas
        if decision.target != bound:
            times.append(opinion.ends_at)
    coming = [time for time in times if time is not None and time > now]
    return min(coming, default=None)
