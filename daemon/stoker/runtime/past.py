"""What has happened since the daemon's start, as its API tells it: counts, warnings, the last hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import anyio

from stoker.api.facade import ServiceHistory, ServiceTotals
from stoker.model.event import Event, Notice, ReplicaEvent, SpawnFailed, WorkerExited
from stoker.model.service import ServiceKey
from stoker.runtime.autoscaler import Autoscaler
from stoker.runtime.control import ControlLoop
from stoker.runtime.history import LevelHistory, load_points
from stoker.runtime.measure import Asking, RouterLink
from stoker.runtime.noted import Noted
from stoker.runtime.pulse import Pulse
from stoker.runtime.startup_times import StartupTimes


class Past:
    """Takes note of every folded event. `pulse` beats for those who wait for news."""

    def __init__(
        self,
        control: ControlLoop,
        autoscaler: Autoscaler,
        link: RouterLink,
        pulse: Pulse,
        startups: StartupTimes,
    ) -> None:
        self.startups = startups
        self.noted = Noted()
        self.asking = Asking()
        self._control = control
        self._autoscaler = autoscaler
        self._pulse = pulse
        self.link = link
        self._levels = LevelHistory(state=lambda: control.state, desired=lambda: control.desired)
        self._restarts: dict[ServiceKey, Counter[str]] = {}
        control.listen(self._observe)

    @property
    def restarts(self) -> Mapping[ServiceKey, Mapping[str, int]]:
        """Restarts of each service by reason."""
        return {key: dict(counts) for key, counts in self._restarts.items()}

    def totals(self) -> dict[ServiceKey, ServiceTotals]:
        """Requests by service since the daemon's start."""
        return self.link.totals()

    def history(self, since: float) -> dict[ServiceKey, ServiceHistory]:
        """What is kept of the last hour after that time (monotonic seconds)."""
        now = anyio.current_time()
        found = {}
        for key in self._control.desired.services:
            load = load_points(self._autoscaler.history(key), since, now)
            levels = self._levels.points(key, since)
            if load or levels:
                found[key] = ServiceHistory(load=load, levels=levels)
        return found

    async def changed(self, after: int) -> int:
        """Return the count of changes once it is larger than `after`."""
        return await self._pulse.after(after)

    def beat(self) -> None:
        """Something happened that no event tells yet."""
        self._pulse.beat()

    def _observe(self, event: Event) -> None:
        self._pulse.beat()
        self._levels.observe(event)
        if isinstance(event, Notice):
            self.noted.note(event)
        if isinstance(event, SpawnFailed | WorkerExited):
            replica = self._control.state.replicas.get(event.replica)
            if replica is not None and not replica.leaving:
                self._count(event, replica.fault or "asked-for")

    def _count(self, event: ReplicaEvent, reason: str) -> None:
        self._restarts.setdefault(event.service, Counter())[reason] += 1
