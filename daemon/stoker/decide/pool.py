"""One service's replicas as the deciding functions see them: how many are wanted, who counts, who goes first.

Pure. Shared by `reconcile`, `rollout`, `admission` and `routing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from stoker.model.replica import Phase, Replica
from stoker.model.service import DesiredState, Drain, ServiceKey, ServiceSpec, revision
from stoker.model.state import ObservedState

_VICTIM_ORDER: dict[Phase, int] = {
    "stopping": 0, "draining": 0, "pending": 1, "starting": 2, "unready": 3, "ready": 4,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A service and its replicas, oldest first. `spec` None: the service is gone from the configuration.

    What follows from these is computed once: a pool that did not change serves many plans.
    """

    key: ServiceKey
    spec: ServiceSpec | None
    revision: str
    """The one that new workers get; "" without a spec."""
    wanted: int
    members: tuple[Replica, ...]

    @cached_property
    def counted(self) -> tuple[Replica, ...]:
        """Those that fill a wanted place. One that is being replaced under its own id still does; a lost
        one does not, because nobody knows whether it serves."""
        return tuple(r for r in self.members if not r.leave and r.phase not in ("exited", "lost"))

    @cached_property
    def alive(self) -> tuple[Replica, ...]:
        """Those whose worker exists or may exist."""
        return tuple(r for r in self.members if r.alive)

    @cached_property
    def leans_on(self) -> frozenset[ServiceKey]:
        """The services that its living workers depend on, by its present spec or by that of their start."""
        named = {key for replica in self.alive for key in replica.depends}
        if self.spec and self.alive:
            named |= {f"{self.spec.deployment}/{name}" for name in self.spec.depends}
        return frozenset(named)

    @cached_property
    def pending(self) -> tuple[Replica, ...]:
        """Those that wait for a start."""
        return tuple(r for r in self.members if r.phase == "pending")

    @cached_property
    def updating(self) -> bool:
        """Whether something of an older revision is still there, if only as a record."""
        return any(r.revision != self.revision for r in self.members if r.phase != "pending")

    @property
    def asleep(self) -> bool:
        """Whether it is at zero by choice, so that a request would wake it."""
        return self.spec is not None and not self.spec.held and self.wanted == 0

    def drain_of(self, replica: Replica) -> Drain:
        """How to drain it: by the present spec, or as remembered."""
        return self.spec.drain if self.spec else replica.drain


def pools(
    desired: DesiredState, observed: ObservedState, known: Mapping[ServiceKey, Pool] | None = None
) -> dict[ServiceKey, Pool]:
    """All services that are wanted or have replicas, by key, in order of their keys. Those of `known` that
    have not changed are in it again, as the same objects."""
    keys = desired.services.keys() | observed.replicas.services.keys()
    known = known or {}
    order = known if known.keys() == keys else sorted(keys)
    return {key: pool_of(key, desired, observed, known.get(key)) for key in order}


def wanted_count(desired: DesiredState, observed: ObservedState, key: ServiceKey) -> int:
    """How many replicas a service is to have now: its target within its bounds, at least one while a request
    waits, none if it is stopped by the operator, gone, or everything is to end."""
    spec = desired.services.get(key)
    if spec is None or spec.held or observed.stopping:
        return 0
    bounds = spec.scaling
    target = observed.targets.get(key, bounds.min_replicas)
    if key in observed.demand:
        target = max(target, 1)
    return min(max(target, bounds.min_replicas), bounds.max_replicas)


def is_ready(replica: Replica) -> bool:
    """Whether it serves and is to go on serving."""
    return replica.serving and not replica.condemned


def victims(replicas: Iterable[Replica], count: int) -> tuple[Replica, ...]:
    """The `count` replicas that are missed least: without a worker first, then not yet ready, then not ready
    any more, then ready; of equals the youngest."""
    if count <= 0:
        return ()

    def rank(replica: Replica) -> tuple[int, bool, float, str]:
        return _VICTIM_ORDER[replica.phase], is_ready(replica), -replica.created, replica.id

    return tuple(sorted(replicas, key=rank)[:count])


def pool_of(
    key: ServiceKey, desired: DesiredState, observed: ObservedState, known: Pool | None = None
) -> Pool:
    """One service's pool; `known` if nothing of that has changed."""
    spec, members = desired.services.get(key), observed.replicas.of(key)
    wanted = wanted_count(desired, observed, key)
    if known is not None and known.spec is spec and known.members is members and known.wanted == wanted:
        return known
    return Pool(key=key, spec=spec, revision=revision(spec) if spec else "", wanted=wanted, members=members)
