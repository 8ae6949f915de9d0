"""Scales a service by its requests a second: `policy: {metric: arrivals, target: 20}`."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from stoker.model.load import Decision
from stoker.plugin import impl
from stoker.plugin.ports import PolicyFactory, PolicyInput

WINDOW = 30.0


class Arrivals:
    """replicas = requests a second over the last 30 s / target (10), rounded up."""

    def decide(self, given: PolicyInput) -> Decision:
        """Answer for the load of the last half minute."""
        load = given.window(WINDOW)
        if not load.seconds:
            # No data is not zero load: hold the size of the pool.
            return Decision(target=given.pool.target, reason="nothing measured yet", valid=False)
        target = given.policy.target or 10.0
        return Decision(
            target=ceil(load.rps / target),
            reason=f"{load.rps:.3g} requests/s over {WINDOW:g} s / target {target:g}, rounded up",
            code="arrivals",
            facts={"rps": load.rps, "target": target},
            wake_at=given.now + WINDOW if load.rps else None,
        )


@impl
def stoker_policies() -> Mapping[str, PolicyFactory]:
    """Policies by the name that `metric` uses."""
    return {"arrivals": lambda _: Arrivals()}
