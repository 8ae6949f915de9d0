"""Which revision of a service is in force: the configured one, or the last good one if that failed. Pure.

A revision proves itself by a worker that serves for a while (the very first one of a service by getting
ready at all). Until then its failure is taken back: a start that hung, a command that cannot be run, a crash
loop. The service then stays on what was good until its configuration changes or a restart is asked for.

Only what makes a revision is taken back, with the probes that belong to it: bounds, policies and addresses
remain those of the configuration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stoker.decide.draft import Draft
from stoker.decide.pool import Pool, is_ready
from stoker.decide.restart import STABLE
from stoker.model.action import AcceptRevision, RejectRevision
from stoker.model.event import RevisionAccepted, RevisionRejected
from stoker.model.replica import Replica
from stoker.model.service import REVISION_FIELDS, DesiredState, ServiceKey, ServiceSpec, revision
from stoker.model.state import ObservedState, Rejection

FATAL = frozenset({"hung-start", "cannot-start"})
"""Faults of a new revision that need no second try."""


def in_force(configured: DesiredState, observed: ObservedState) -> DesiredState:
    """The configuration with what was good in place of what failed. Pure."""
    changed: dict[ServiceKey, ServiceSpec] = {}
    for key, rejection in observed.rejected.items():
        spec, good = configured.services.get(key), observed.good.get(key)
        if spec is None or good is None or revision(spec) != rejection.revision:
            continue
        if (back := _taken_back(spec, good, configured)) is not None:
            changed[key] = back
    return replace(configured, services={**configured.services, **changed}) if changed else configured


def reconsider(observed: ObservedState, configured: DesiredState) -> ObservedState:
    """Forget what a new configuration has made void: services that are gone, failures of revisions that are
    no longer configured. Pure."""
    specs = configured.services
    kept = {
        key: rejection
        for key, rejection in observed.rejected.items()
        if key in specs and revision(specs[key]) == rejection.revision
    }
    good = {
        key: specs[key] if revision(specs[key]) == revision(spec) else spec
        for key, spec in observed.good.items()
        if key in specs
    }
    return replace(observed, rejected=kept, good=good)


def judge(draft: Draft, pool: Pool, observed: ObservedState, desired: DesiredState) -> None:
    """Accept or reject the revision that a service is being updated to, as soon as it can be told."""
    spec, good = pool.spec, observed.good.get(pool.key)
    if spec is None or good is None or good is spec or spec.held or observed.stopping:
        return
    if revision(good) == pool.revision:
        return
    fresh = [r for r in pool.counted if r.revision == pool.revision]
    proof = next((r for r in fresh if is_ready(r) and draft.due((r.ready_at or 0.0) + STABLE)), None)
    if proof is not None:
        draft.declare(
            AcceptRevision(
                replica=proof.id, service=pool.key, revision=pool.revision, cause=proof.cause,
                reason="it serves",
            )
        )  # fmt: skip
        return
    failed = next((r for r in fresh if _has_failed(r, spec)), None)
    if failed is None or not _worth_going_back(pool, spec, good) or _taken_back(spec, good, desired) is None:
        return
    draft.declare(
        RejectRevision(
            replica=failed.id, service=pool.key, revision=pool.revision, back_on=revision(good),
            cause=failed.cause, reason=_why(failed),
        )
    )  # fmt: skip


def witness(observed: ObservedState, replica: Replica, desired: DesiredState) -> ObservedState:
    """Take the first revision of a service that ever gets ready as good. Pure."""
    spec = desired.services.get(replica.service)
    if spec is None or replica.service in observed.good or revision(spec) != replica.revision:
        return observed
    return replace(observed, good={**observed.good, replica.service: spec})


def accepted(observed: ObservedState, event: RevisionAccepted, desired: DesiredState) -> ObservedState:
    """The state after a revision was accepted. Pure."""
    spec = desired.services.get(event.service)
    if spec is None or revision(spec) != event.revision:
        return observed
    return replace(observed, good={**observed.good, event.service: spec})


def rejected(observed: ObservedState, event: RevisionRejected, desired: DesiredState) -> ObservedState:
    """The state after a revision was rejected. Pure."""
    del desired
    rejection = Rejection(
        revision=event.revision, back_on=event.back_on, reason=event.reason, wall=event.wall
    )
    causes = {**observed.causes, event.service: event.id}
    return replace(observed, rejected={**observed.rejected, event.service: rejection}, causes=causes)


def _has_failed(replica: Replica, spec: ServiceSpec) -> bool:
    return replica.failures > 0 and (
        replica.fault in FATAL or replica.failures >= max(1, spec.restart.crash_loop)
    )


def _worth_going_back(pool: Pool, spec: ServiceSpec, good: ServiceSpec) -> bool:
    """A restart that was asked for changes nothing but the workers: if the old ones are gone, the same again
    would do no better."""
    if revision(replace(good, restart_token=spec.restart_token)) != pool.revision:
        return True
    return any(is_ready(r) and r.revision != pool.revision for r in pool.members)


def _why(failed: Replica) -> str:
    times = f"{failed.failures} failures in a row, the last: " if failed.failures > 1 else ""
    return f"{times}{failed.failure}"


def _taken_back(spec: ServiceSpec, good: ServiceSpec, configured: DesiredState) -> ServiceSpec | None:
    """`spec` with the revision of `good`; None if that needs a service that is no longer there."""
    if any(f"{spec.deployment}/{name}" not in configured.services for name in good.depends):
        return None
    return replace(spec, **_revision_of(good), probes=good.probes)


def _revision_of(spec: ServiceSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in (*REVISION_FIELDS, "instance_type")}
