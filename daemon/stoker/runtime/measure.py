"""What the router reports, folded into what people and /metrics read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import anyio

from stoker.api.facade import ServiceTotals
from stoker.model.event import Event, Notice, ReplicaDrained
from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.model.state import ObservedState
from stoker.runtime.autoscaler import Autoscaler

APART = 0.05
"""Seconds between two measurements that were asked for."""
PATIENCE = 0.5
"""Seconds that routers get for one; without an answer the newest one that came by itself has to do."""


@dataclass(slots=True)
class _Totals:
    codes: Counter[str] = field(default_factory=Counter)
    latency: Counter[float] = field(default_factory=Counter)
    seconds: float = 0.0


class RouterLink:
    """The router's callbacks (`RouterEvents`): samples to the autoscaler, facts to the control loop."""

    def __init__(
        self,
        autoscaler: Autoscaler,
        *,
        state: Callable[[], ObservedState],
        post: Callable[[Event], None],
        measured: Callable[[], None] = lambda: None,
    ) -> None:
        """`measured` is called after each sample, and when an address is open."""
        self._measured = measured
        self._autoscaler = autoscaler
        self._state = state
        self._post = post
        self._totals: dict[ServiceKey, _Totals] = {}
        self.bound_at: dict[ServiceKey, tuple[str, int]] = {}
        self._troubles: dict[ServiceKey, str] = {}

    def sample(self, sample: LoadSample) -> None:
        """Count it for /metrics and hand it to the autoscaler."""
        totals = self._totals.setdefault(sample.service, _Totals())
        totals.codes.update(sample.codes)
        totals.latency.update(sample.latency)
        totals.seconds += sample.service_seconds + sample.wait_seconds
        self._autoscaler.sample(sample)
        self._measured()

    def demand(self, service: ServiceKey) -> None:
        """A request waits at zero replicas."""
        self._autoscaler.demand(service)

    def drained(self, replica: str) -> None:
        """Nothing is in flight on a draining replica any more."""
        known = self._state().replicas.get(replica)
        if known is not None:
            self._post(ReplicaDrained(replica=replica, service=known.service))

    def bound(self, service: ServiceKey, host: str, port: int) -> None:
        """The service's address is open."""
        self.bound_at[service] = (host, port)
        self._measured()
        if trouble := self._troubles.pop(service, ""):
            self._post(Notice(message=f"{host}:{port} is open now", service=service, settles=trouble))

    def trouble(self, service: ServiceKey, message: str) -> None:
        """Say it to the operator."""
        self._troubles[service] = message
        self._post(Notice(message=message, severity="warning", service=service))

    def opening(self, addresses: Mapping[ServiceKey, tuple[str, int]]) -> tuple[ServiceKey, ...]:
        """Services at whose address no router listens yet, without a reason that was told."""
        return tuple(
            service
            for service, (_, port) in addresses.items()
            if service not in self._troubles and self.bound_at.get(service, ("", 0))[1] != port
        )

    def totals(self) -> dict[ServiceKey, ServiceTotals]:
        """Counts by service since the daemon's start."""
        return {
            key: ServiceTotals(
                codes=dict(found.codes), latency=dict(found.latency), latency_sum=found.seconds
            )
            for key, found in self._totals.items()
        }


class Asking:
    """Has the load measured up to now for those who ask; who asks while another does shares the answer."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._at = float("-inf")

    async def ask(self, measure: Callable[[], Awaitable[None]]) -> None:
        """Return when what happened before this call is measured, or cannot be had just now."""
        asked = anyio.current_time()
        async with self._lock:
            if self._at > asked:
                return
            await anyio.sleep(max(0.0, self._at + APART - anyio.current_time()))
            self._at = anyio.current_time()
            with anyio.move_on_after(PATIENCE):
                await measure()
