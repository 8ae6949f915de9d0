"""A fixed number: a floor beside other rules, or a pool that load does not change. Pure."""

from __future__ import annotations

from stoker.model.load import Decision
from stoker.plugin.ports import PolicyInput


class Static:
    """Always `target` replicas (default: min_replicas)."""

    def decide(self, given: PolicyInput) -> Decision:
        """Answer the same at any load."""
        target = given.policy.target
        count = given.service.scaling.min_replicas if target is None else round(target)
        return Decision(target=count, reason=f"static: always {count}", code="static")
