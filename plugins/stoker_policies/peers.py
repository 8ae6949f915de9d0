"""Other systems' autoscalers at their documented defaults, for comparison and for moving over. Pure.

Written after what they document and their code says, on exact measurements: no scrape delay. Each times
its own ups and downs, so the file's stabilization windows are to be 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from stoker.model.load import Decision, LoadWindow
from stoker.plugin.ports import PolicyInput
from stoker_policies.reading import no_opinion, parameter, present, target_of, unseen

UTILISATION = 0.7
"""Share of a replica's slots that is the target where none is given: Knative's, taken for all."""
_STEP_UP = 4


class _Peer(ABC):
    """Looks every `period` seconds; between two looks the answer stands."""

    period: float

    @abstractmethod
    def look(self, given: PolicyInput, load: LoadWindow, state: dict[str, Any]) -> tuple[int, str]:
        """Return the count and why. `state["out"]` is the last count; the rest is the policy's own."""

    def decide(self, given: PolicyInput) -> Decision:
        """Answer at the system's own pace."""
        state = dict(given.state)
        load = given.window(self.period)
        if blind := unseen(load):
            return no_opinion(given, blind)
        if not state:
            state = {"out": present(given), "next": given.now, "reason": "holds the scale that was found"}
        demand = bool(load.queued_now) and given.pool.ready + given.pool.starting == 0
        if given.now + 1e-6 >= state["next"] or demand:
            state["next"] = given.now + self.period
            state["out"], state["reason"] = self.look(given, load, state)
        out, name = state["out"], type(self).__name__.lower()
        at_rest = out <= given.service.scaling.min_replicas and not load.in_flight_now + load.queued_now
        facts = {"in_flight": load.in_flight + load.queued, "target": self.share(given)}
        return Decision(
            target=out,
            reason=f"{name}: {state['reason']}",
            code=name,
            facts=facts,
            wake_at=None if at_rest else max(state["next"], given.now + 0.1),
            state=state,
        )

    def share(self, given: PolicyInput) -> float:
        """Requests that one replica should have."""
        return target_of(given, parameter(given, "utilization", UTILISATION) * (given.service.slots or 1))


class Kpa(_Peer):
    """Knative's pod autoscaler: mean concurrency of 60 s, or of 6 s in panic (twice what is ready can bear),
    which never scales down and lasts 60 s beyond its cause; at most halved at a time."""

    period = 2.0

    def look(self, given: PolicyInput, load: LoadWindow, state: dict[str, Any]) -> tuple[int, str]:
        """One tick."""
        now, share, ready = given.now, self.share(given), max(1, given.pool.ready)
        stable, panic = given.window(60.0), given.window(6.0)
        least = ready // 2
        calm = math.ceil((stable.in_flight + stable.queued) / share - 1e-9)
        hasty = math.ceil((panic.in_flight + panic.queued) / share - 1e-9)
        if "panic" not in state:  # it begins in panic, holding the scale it finds
            state["panic"] = now if given.pool.ready > 1 else None
            state["most"] = given.pool.ready if given.pool.ready > 1 else 0
        if hasty / ready >= 2.0:
            state["panic"] = now
        elif state["panic"] is not None and state["panic"] + 60.0 < now:
            state["panic"], state["most"] = None, 0
        wanted = max(calm, least)
        reason = f"mean of 60 s asks for {calm}"
        if state["panic"] is not None:
            wanted = state["most"] = max(wanted, hasty, least, state["most"])
            reason = f"panic: mean of 6 s asks for {hasty}, never down"
        return self._to_zero(given, load, state, wanted), reason

    @staticmethod
    def _to_zero(given: PolicyInput, load: LoadWindow, state: dict[str, Any], wanted: int) -> int:
        """The last one stays for 30 s of grace."""
        if wanted > 0 or given.service.scaling.min_replicas > 0:
            state["idle"] = None
            return wanted
        if state.get("idle") is None:
            state["idle"] = given.now
        over = given.now - state["idle"] >= 30.0 or given.pool.ready + given.pool.starting == 0
        return 0 if over and not load.queued_now else 1


class Hpa(_Peer):
    """Kubernetes' autoscaling/v2 on requests in flight: every 15 s ready x load / target, unless within 10 %;
    starting ones count as idle; up by 100 % or four at a time, down to the highest answer of 300 s. Zero as
    KEDA does it: after 300 s without a request."""

    period = 15.0
    down_window = 300.0

    def look(self, given: PolicyInput, load: LoadWindow, state: dict[str, Any]) -> tuple[int, str]:
        """One sync."""
        now, share, pool, spec = given.now, self.share(given), given.pool, state["out"]
        if not (load.in_flight or load.queued or load.in_flight_now or load.queued_now):
            state.setdefault("idle", now)
            if given.service.scaling.min_replicas == 0 and now - state["idle"] >= 300.0:
                return 0, "no request for 300 s"
        else:
            state.pop("idle", None)
        if pool.ready == 0:
            return (max(1, spec) if load.queued_now else spec), "none ready"
        total = load.in_flight + load.queued
        ratio = total / pool.ready / share
        counted = pool.ready + pool.starting if ratio > 1 else pool.ready
        again = total / counted / share
        steady = abs(ratio - 1) <= 0.1 or (ratio > 1 and again <= 1.1)
        wanted = spec if steady else max(1, math.ceil(again * counted - 1e-9))
        past = [entry for entry in state.get("past", [[now, spec]]) if entry[0] > now - self.down_window]
        state["past"] = [*(entry for entry in past if entry[1] > wanted), [now, wanted]]
        if wanted < spec:
            wanted = min(spec, max(entry[1] for entry in state["past"]))
        wanted = min(wanted, max(spec + _STEP_UP, spec * 2))
        most, least = given.service.scaling.max_replicas, max(1, given.service.scaling.min_replicas)
        found = max(least, min(most, wanted))
        return found, f"{total:.1f} in flight on {pool.ready} ready, {share:g} each are good: {found}"


class Bento(Hpa):
    """BentoCloud: the HPA's formula with the declared concurrency as target; up at once, down after the
    highest answer of 600 s."""

    down_window = 600.0

    def share(self, given: PolicyInput) -> float:
        """The declared concurrency itself."""
        return target_of(given, float(given.service.slots or 1))


class Ray(_Peer):
    """Ray Serve: mean of 30 s, told every 10 s, over the target; up after 30 s of asking for more without a
    break, down after 600 s of asking for less. From zero one starts at once."""

    period = 1.0

    def look(self, given: PolicyInput, load: LoadWindow, state: dict[str, Any]) -> tuple[int, str]:
        """One look; the metric is renewed every ten seconds."""
        now, spec, scaling = given.now, state["out"], given.service.scaling
        if now >= state.get("told", 0.0):
            seen = given.window(30.0)
            state["mean"], state["told"] = seen.in_flight + seen.queued, now + 10.0
        since = now - state.get("looked", now - self.period)
        state["looked"] = now
        if given.pool.ready == 0:
            busy = load.queued_now or load.in_flight_now
            return (max(1, spec) if busy else spec), "none ready yet"
        share = self.share(given)
        wanted = max(scaling.min_replicas, min(scaling.max_replicas, math.ceil(state["mean"] / share - 1e-9)))
        reason = f"mean of 30 s {state['mean']:.1f} / {share:g} = {state['mean'] / share:.1f}: {wanted}"
        asked = state.get("asked", 0.0)
        if wanted == spec:
            state["asked"] = 0.0
        elif wanted > spec:
            state["asked"] = max(asked, 0.0) + since
            if state["asked"] > 30.0:
                state["asked"] = 0.0
                return wanted, reason
        else:
            state["asked"] = min(asked, 0.0) - since
            if state["asked"] < -600.0:
                state["asked"] = 0.0
                return (wanted if spec == 1 else max(1, wanted)), reason
        return spec, f"{reason}, which must last before the {spec} change"
