"""Several simulated services on one box: the daemon's budget between their targets and their pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stoker.decide.budget import Amount, BudgetMemory, Claim, share_out
from stoker.model.service import ServiceSpec
from stoker.simulate.replay import Member


class SharedBox:
    """Grants what the budget grants; to be given to `replay` as `apportion`. Of one run only."""

    def __init__(self, size: Amount, *, idle: Literal["fill", "release"] = "release") -> None:
        self.size = size
        self.idle: Literal["fill", "release"] = idle
        self.memory = BudgetMemory()
        self.most_held = Amount()
        """The most that was ever held, draining replicas included."""
        self.reasons: dict[str, str] = {}
        """By service: the last thing that it was told it would not get."""

    def __call__(self, members: Sequence[Member], now: float) -> None:
        """Resize every pool to what it may have now."""
        shares = share_out(
            self.size, [claim_of(member) for member in members], self.memory, now, idle=self.idle
        )
        self.memory = shares.memory
        for member in members:
            grant = shares.grants[member.case.spec.key]
            member.pool.resize(grant.startable)
            if grant.reason:
                self.reasons[member.case.spec.key] = grant.reason
        self.most_held = self._held(members)

    def _held(self, members: Sequence[Member]) -> Amount:
        total = Amount()
        for member in members:
            total = total.minus(each_of(member.case.spec).times(-member.pool.held))
        return Amount(
            devices=max(total.devices, self.most_held.devices),
            cpu=max(total.cpu, self.most_held.cpu),
            memory=max(total.memory, self.most_held.memory),
        )


def guarantee_of(spec: ServiceSpec) -> Claim:
    """What the service is sure of, as a claim."""
    low = spec.scaling.min_replicas
    return Claim(
        service=spec.key, each=each_of(spec), least=low, base=low, need=low, want=low, most=low,
        priority=spec.priority,
    )  # fmt: skip


def each_of(spec: ServiceSpec) -> Amount:
    """What one replica of it takes."""
    resources = spec.resources
    return Amount(devices=resources.gpu, cpu=resources.cpu or 0.0, memory=float(resources.memory or 0))


def claim_of(member: Member) -> Claim:
    """The member's last decision as a claim. A policy without tiers asks the same thrice."""
    spec, decision, target = member.case.spec, member.decision, member.target
    need = target if decision is None or decision.need is None else min(decision.need, target)
    base = need if decision is None or decision.base is None else min(decision.base, need)
    return Claim(
        service=spec.key,
        each=each_of(spec),
        least=spec.scaling.min_replicas,
        base=base,
        need=need,
        want=target,
        most=spec.scaling.max_replicas,
        priority=spec.priority,
        present=member.pool.ready + member.pool.starting,
        draining=member.pool.draining,
        startup=member.case.startup,
        value=() if decision is None else decision.value,
    )
