"""Keep a measured share near its target: Kubernetes' formula, for CPU and for GPUs. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from stoker.model.load import Decision, LoadWindow
from stoker.plugin.ports import PolicyInput
from stoker_policies.reading import (
    ACTIVITY_WINDOW,
    active,
    in_words,
    no_opinion,
    parameter,
    present,
    replicas,
    settles_at,
    target_of,
    unseen,
)

TARGET = 0.7
TOLERANCE = 0.1
WINDOW = 15.0
"""Kubernetes looks at usage every 15 s."""


class _Tracking(ABC):
    """replicas = ceil(ready x share / target), unless the share is within `tolerance` of the target.

    Starting replicas count as idle ones before more are added. A service that may go to zero does so for
    want of requests, not of usage; a request at zero replicas asks for one.

    Parameters: `target` (0.7), `tolerance` (0.1), `window` seconds of usage (15).
    """

    subject: str

    @abstractmethod
    def share(self, given: PolicyInput, load: LoadWindow) -> float | None:
        """How busy one ready replica is of what it was given, 0..1 or more; None if not measured."""

    def decide(self, given: PolicyInput) -> Decision:
        """Answer for the present usage."""
        requests = given.window(ACTIVITY_WINDOW)
        seen = not unseen(requests)
        if given.service.scaling.min_replicas == 0 and seen and not active(requests):
            return Decision(target=0, reason=f"no request for {ACTIVITY_WINDOW:g} s", code="idle")
        if given.pool.target == 0 and seen and active(requests):
            return Decision(target=1, reason="requests came while there is no replica", code="wake")
        share = self.share(given, given.window(parameter(given, "window", WINDOW)))
        if share is None or given.pool.ready == 0:
            return no_opinion(given, f"no {self.subject} measurement yet")
        decision = self._track(given, share)
        return replace(decision, wake_at=settles_at(given, requests, decision.target))

    def _track(self, given: PolicyInput, share: float) -> Decision:
        target, tolerance = target_of(given, TARGET), parameter(given, "tolerance", TOLERANCE)
        pool = given.pool
        needed = pool.ready * share / target
        facts = {
            "share": share,
            "target": target,
            "ready": float(pool.ready),
            "starting": float(pool.starting),
        }
        measured = f"{self.subject} {share:.0%} busy on {pool.ready} ready"
        sum_up = f"{measured} / target {target:.0%} = {in_words(needed)}"
        counted = pool.ready + pool.starting if share > target else pool.ready
        ratio = needed / counted
        if abs(ratio - 1) <= tolerance or (share > target and ratio < 1):
            because = f"within {tolerance:.0%}" if counted == pool.ready else f"{pool.starting} starting"
            reason = f"{sum_up}, {because}: stays at {present(given)}"
            return Decision(target=present(given), reason=reason, code="steady", facts=facts)
        return Decision(
            target=max(1, replicas(needed)), reason=f"{sum_up}, rounded up", code="usage", facts=facts
        )


class Utilization(_Tracking):
    """Cores busy against the cores allotted (`resources.cpu`, one where nothing is said)."""

    subject = "CPU"

    def share(self, given: PolicyInput, load: LoadWindow) -> float | None:
        """Cores busy per replica over its cores."""
        return None if load.cpu is None else load.cpu / (given.service.resources.cpu or 1.0)


class Gpu(_Tracking):
    """Utilisation of the devices of the service's replicas as the driver reports it."""

    subject = "GPU"

    def share(self, given: PolicyInput, load: LoadWindow) -> float | None:
        """Mean utilisation of the devices."""
        return load.gpu
