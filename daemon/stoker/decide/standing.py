"""What events change that are about no replica: wanted numbers, devices, what a service waits for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from stoker.decide import revisions
from stoker.model.event import (
    ConfigApplied,
    ConfigRejected,
    DemandArrived,
    DeviceHealthChanged,
    Event,
    InventoryChanged,
    Notice,
    RevisionAccepted,
    RevisionRejected,
    ServicePreparing,
    TargetChanged,
)
from stoker.model.service import DesiredState
from stoker.model.state import ObservedState


def _target_changed(state: ObservedState, event: TargetChanged, desired: DesiredState) -> ObservedState:
    del desired
    targets = {**state.targets, event.service: event.target}
    return replace(state, targets=targets, causes={**state.causes, event.service: event.id})


def _demand_arrived(state: ObservedState, event: DemandArrived, desired: DesiredState) -> ObservedState:
    """Kept until a replica serves. A word that comes after that is old: the router sent it before it knew."""
    serving = any(r.serving for r in state.of(event.service))
    if serving or event.service in state.demand or event.service not in desired.services:
        return state
    causes = {**state.causes, event.service: event.id}
    return replace(state, demand=state.demand | {event.service}, causes=causes)


def _inventory_changed(state: ObservedState, event: InventoryChanged, desired: DesiredState) -> ObservedState:
    del desired
    return replace(state, inventory=event.inventory, causes={**state.causes, "inventory": event.id})


def _config_applied(state: ObservedState, event: ConfigApplied, desired: DesiredState) -> ObservedState:
    """Forget what was wanted of services that are gone: one that comes back starts afresh."""
    known = desired.services
    causes = {key: cause for key, cause in state.causes.items() if key in known or "/" not in key}
    return replace(
        state,
        targets={key: target for key, target in state.targets.items() if key in known},
        demand=frozenset(key for key in state.demand if key in known),
        causes={**causes, "config": event.id},
    )


def _unchanged(state: ObservedState, event: Event, desired: DesiredState) -> ObservedState:
    del event, desired
    return state


def _preparing(state: ObservedState, event: ServicePreparing, desired: DesiredState) -> ObservedState:
    """What its new workers wait for; "" when there is nothing any more, or the service is gone."""
    others = {key: why for key, why in state.preparing.items() if key != event.service}
    if event.reason and event.service in desired.services:
        others[event.service] = event.reason
    return replace(state, preparing=others)


RULES: Mapping[type[Event], Callable[[ObservedState, Any, DesiredState], ObservedState]] = {
    TargetChanged: _target_changed,
    DemandArrived: _demand_arrived,
    RevisionAccepted: revisions.accepted,
    RevisionRejected: revisions.rejected,
    InventoryChanged: _inventory_changed,
    DeviceHealthChanged: _unchanged,
    ServicePreparing: _preparing,
    ConfigApplied: _config_applied,
    ConfigRejected: _unchanged,
    Notice: _unchanged,
}
