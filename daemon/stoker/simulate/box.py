"""Several simulated services on one box: the daemon's budget between their targets and their pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stoker.decide.budget import Amount, BudgetMemory, share_out
from stoker.decide.claims import Claim, Present, claim_of, each_of
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
            self.size, [_claim(member) for member in members], self.memory, now, idle=self.idle
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


def _claim(member: Member) -> Claim:
    pool = member.pool
    present = Present(
        running=pool.ready + pool.starting,
        draining=pool.draining,
        startup=member.case.startup,
        waiting=bool(pool.queue) and not pool.ready,
    )
    return claim_of(member.case.spec, member.decision, member.target, present)
