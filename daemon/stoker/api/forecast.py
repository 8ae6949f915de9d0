"""How a plan would play out if every worker did at once what it is told: who ends up where. Pure.

A plan is only the next step; what an operator wants to see before a change is all of it. So the control
loop's own rules are run forward over facts that are assumed: workers start, get ready, drain and exit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stoker.decide.lifecycle import InvalidTransitionError, fold
from stoker.decide.reconcile import reconcile
from stoker.model import action as steps
from stoker.model import event as facts
from stoker.model.action import Action
from stoker.model.event import Event
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.state import DesiredState, ObservedState

MAX_ROUNDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """All actions in order, and what would then be so."""

    actions: tuple[Action, ...]
    observed: ObservedState


def forecast(desired: DesiredState, observed: ObservedState, now: float) -> Forecast:
    """Play the change out. What depends on time (backoff, a drain that takes long) is left as it is."""
    actions: list[Action] = []
    for _ in range(MAX_ROUNDS):
        plan = reconcile(desired, observed, now)
        if plan.empty or any(isinstance(action, steps.RejectRevision) for action in plan.actions):
            break
        for action in plan.actions:
            actions.append(action)
            for fact in _assumed(action, now):
                try:
                    observed = fold(observed, fact, desired)
                except InvalidTransitionError:
                    return Forecast(actions=tuple(actions), observed=observed)
    return Forecast(actions=tuple(actions), observed=observed)


_PLAIN: dict[type[Action], Any] = {
    steps.HoldReplica: facts.ReplicaHeld,
    steps.ResumeReplica: facts.ReplicaResumed,
}
"""Facts of which there is nothing to tell but the reason."""


def _assumed(action: Action, now: float) -> Iterator[Event]:
    """The facts that follow from an action when nothing goes wrong."""
    replica, service, reason = action.replica, action.service, action.reason
    match action:
        case steps.AddReplica():
            yield facts.ReplicaAdded(
                at=now, replica=replica, service=service, revision=action.revision, reason=reason
            )
        case steps.StartReplica():
            yield facts.StartRequested(
                at=now, replica=replica, service=service, reservations=action.reservations,
                revision=action.revision, reason=reason, devices_reason=action.devices_reason,
            )  # fmt: skip
            handle = WorkerHandle(driver="", pid=0)
            yield facts.WorkerSpawned(at=now, replica=replica, service=service, handle=handle, endpoint="")
            yield facts.ReplicaBecameReady(at=now, replica=replica, service=service)
        case steps.DrainReplica():
            yield facts.DrainRequested(
                at=now, replica=replica, service=service, reason=reason, leave=action.leave
            )
            yield facts.ReplicaDrained(at=now, replica=replica, service=service)
        case steps.MoveReplica():
            yield facts.ReplicaMoving(
                at=now, replica=replica, service=service, reason=reason, devices=action.devices
            )
        case steps.HoldReplica() | steps.ResumeReplica():
            yield _PLAIN[type(action)](at=now, replica=replica, service=service, reason=reason)
        case steps.StopReplica():
            yield facts.StopSignalled(
                at=now, replica=replica, service=service, reason=reason, leave=action.leave
            )
            yield facts.WorkerExited(at=now, replica=replica, service=service, status=ExitStatus(code=0))
        case steps.KillReplica():
            yield facts.WorkerExited(at=now, replica=replica, service=service, status=ExitStatus(signal=9))
        case steps.AcceptRevision():
            yield facts.RevisionAccepted(at=now, service=service, revision=action.revision)
        case steps.ForgetReplica():
            yield facts.ReplicaForgotten(at=now, replica=replica, service=service, reason=reason)
