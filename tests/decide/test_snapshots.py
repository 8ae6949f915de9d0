"""Safety: whatever the box looks like, one plan never breaks a law.

Hypothesis draws whole snapshots (three devices, three services, two revisions, all phases); the sentences
below are checked against each plan. They are written without the helpers of the code they judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laws import check_start, check_state, shares, surge_of
from stoker.decide.lifecycle import fold
from stoker.decide.reconcile import reconcile
from stoker.model.action import (
    AddReplica,
    DrainReplica,
    ForgetReplica,
    HoldReplica,
    KillReplica,
    MoveReplica,
    Plan,
    ResumeReplica,
    StartReplica,
    StopReplica,
)
from stoker.model.device import Inventory, Reservation
from stoker.model.event import (
    StartRequested,
)
from stoker.model.replica import ALIVE, Phase, Replica
from stoker.model.service import DesiredState, ServiceSpec, Update, revision
from stoker.model.state import ObservedState
from worlds import OLD, box, event_of, make_device, make_replica, make_spec, seeing, wanting

NOW = 1000.0
PHASES: tuple[Phase, ...] = (
    "pending", "pending", "pending", "starting", "ready", "ready", "unready", "draining", "stopping",
    "exited", "lost",
)  # fmt: skip
"""Pending and ready more often: most of what can go wrong needs two of them."""
STRATEGIES = ("RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout")
SENTENCES: list[Callable[[Snapshot], None]] = []
RUNS = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Snapshot:
    desired: DesiredState
    observed: ObservedState

    def __repr__(self) -> str:
        specs = ", ".join(
            f"{s.name}: {s.scaling.min_replicas}..{s.scaling.max_replicas} gpu {s.resources.gpu} {s.update}"
            f"{' held' if s.held else ''} depends {s.depends}"
            for s in self.desired.services.values()
        )
        replicas = ", ".join(
            f"{r.id}:{r.phase}/{r.revision[:3]}{'!' if r.leave else ''}{[x.uuid for x in r.reservations]}"
            for r in self.observed.replicas.values()
        )
        o = self.observed
        return f"<{specs} | {replicas} | targets {dict(o.targets)} {o.inventory.state} stopping {o.stopping}>"


SEEDS = st.integers(0, 2**32)
"""One draw stands for one thing with all its fields: hypothesis can still leave things out to find a small
example, at a twentieth of the time that a draw for each field takes."""


def an_inventory(dice: Random) -> Inventory:
    state = dice.choice(["ok", "ok", "ok", "ok", "unreachable", "none"])
    if state == "none":
        return Inventory(reason="no GPU")
    found = [
        make_device(number, health=dice.choice(["healthy"] * 9 + ["lost", "draining", "quarantined"]))
        for number in range(3)
        if dice.random() > 0.1
    ]
    return replace(box(*found), state=state)


def a_spec(dice: Random, name: str, gpu: float, depends: tuple[str, ...] = ()) -> ServiceSpec:
    low = dice.randint(0, 3)
    return make_spec(
        name,
        gpu=gpu,
        replicas=(low, dice.randint(low, 4)),
        depends=depends,
        priority=dice.randint(0, 2),
        held=dice.random() < 0.1,
        update=Update(
            strategy=dice.choice(STRATEGIES),
            max_surge=dice.randint(0, 2),
            max_unavailable=dice.randint(0, 1),
        ),
    )


def a_replica(dice: Random, spec: ServiceSpec, tag: str, free: dict[str, float]) -> Replica | None:
    """A replica that could be: with a worker it holds devices, each at most once over."""
    phase = dice.choice(PHASES)
    held: tuple[Reservation, ...] = ()
    if phase in ALIVE and spec.resources.gpu:
        fitting = [uuid for uuid, left in sorted(free.items()) if left >= spec.resources.gpu]
        if not fitting:
            return None
        uuid = dice.choice(fitting)
        free[uuid] -= spec.resources.gpu
        held = (Reservation(uuid=uuid, share=spec.resources.gpu),)
    on_its_way = phase in ("draining", "stopping", "lost")
    never_ready = phase not in ALIVE or phase == "starting" or (on_its_way and dice.random() < 0.3)
    made = make_replica(spec, tag, phase, reservations=held)
    return replace(
        made,
        revision=OLD if dice.random() < 0.4 else revision(spec),
        ready_at=None if never_ready else NOW - 50,
        leave=phase == "exited" or (on_its_way and dice.random() < 0.5),
        condemned="liveness failed" if phase in ("ready", "unready") and dice.random() < 0.15 else "",
        drained=phase == "draining" and dice.random() < 0.5,
        kill_sent=phase == "stopping" and dice.random() < 0.5,
        not_before=NOW + dice.choice([-1.0, -1.0, 0.0, 5.0]) if phase == "pending" else 0.0,
        restarts=dice.randint(0, 1),
        failures=dice.choice([0, 1, 6]),
        since=NOW - dice.choice([0.0, 5.0, 15.0, 40.0]),
        started=NOW - dice.choice([0.0, 119.0, 120.0, 300.0]),
        created=float(dice.randint(0, 5)),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    dice = Random(draw(SEEDS))
    chosen = [a_spec(dice, "infer", 1.0, ("prep",)), a_spec(dice, "share", 0.5), a_spec(dice, "prep", 0.0)]
    free = {f"GPU-{n}": 1.0 for n in range(3)}
    there = []
    for spec in chosen:
        for number, seed in enumerate(draw(st.lists(SEEDS, max_size=4))):
            made = a_replica(Random(seed), spec, str(number), free)
            if made is not None:
                there.append(made)
    known = [spec for spec in chosen if dice.random() > 0.1]
    known = [s for s in known if all(any(k.name == d for k in known) for d in s.depends)]
    keys = [spec.key for spec in chosen]
    observed = seeing(
        *there,
        inventory=an_inventory(dice),
        targets={key: dice.randint(0, 5) for key in keys if dice.random() < 0.5},
        demand=frozenset(key for key in keys if dice.random() < 0.1),
        stopping=dice.random() < 0.1,
    )
    check_state(observed)
    return Snapshot(wanting(*known), observed)


def sentence(check: Callable[[Snapshot], None]) -> Callable[[Snapshot], None]:
    """Mark a check that holds for every snapshot. All are asked of the same examples: drawing them is what
    costs time."""
    SENTENCES.append(check)
    return check


def plan_of(snapshot: Snapshot) -> Plan:
    return reconcile(snapshot.desired, snapshot.observed, NOW)


def carried_out(snapshot: Snapshot, plan: Plan) -> ObservedState:
    state = snapshot.observed
    for action in plan.actions:
        state = fold(state, event_of(action, NOW), snapshot.desired)
    return state


def wanted(snapshot: Snapshot, spec: ServiceSpec) -> int:
    if spec.held or snapshot.observed.stopping:
        return 0
    low, high = spec.scaling.min_replicas, spec.scaling.max_replicas
    target = snapshot.observed.targets.get(spec.key, low)
    return min(high, max(low, target, 1 if spec.key in snapshot.observed.demand else 0))


def staying(state: ObservedState, spec: ServiceSpec) -> list[Replica]:
    """Replicas that will fill a wanted place."""
    return [r for r in state.of(spec.key) if not r.leave and r.phase not in ("exited", "lost")]


@sentence
def no_start_breaks_a_law_and_no_device_has_two_owners(snapshot: Snapshot) -> None:
    state = snapshot.observed
    for action in plan_of(snapshot).actions:
        event = event_of(action, NOW)
        if isinstance(event, StartRequested):
            check_start(event, state, snapshot.desired)
        state = fold(state, event, snapshot.desired)
        check_state(state)


@sentence
def one_action_per_replica_and_each_fits_its_phase(snapshot: Snapshot) -> None:
    actions = plan_of(snapshot).actions
    assert max(Counter(action.replica for action in actions).values(), default=1) == 1
    allowed = {
        StartReplica: ("pending",),
        HoldReplica: ("pending",),
        ForgetReplica: ("pending", "exited"),
        DrainReplica: ("ready", "unready"),
        MoveReplica: ("ready",),
        ResumeReplica: ("draining",),
        StopReplica: ("starting", "ready", "unready", "draining"),
        KillReplica: ("stopping", "lost"),
    }
    for action in actions:
        if isinstance(action, AddReplica):
            assert action.replica not in snapshot.observed.replicas
        else:
            before = snapshot.observed.replicas[action.replica]
            assert before.phase in allowed[type(action)], f"{action} of a replica that is {before.phase}"
            assert before.service == action.service
        assert action.reason


@sentence
def a_start_waits_for_its_time_and_for_its_dependencies(snapshot: Snapshot) -> None:
    for action in plan_of(snapshot).actions:
        if not isinstance(action, StartReplica):
            continue
        replica = snapshot.observed.replicas[action.replica]
        assert replica.not_before <= NOW
        spec = snapshot.desired.services[action.service]
        alive = [r for r in snapshot.observed.of(spec.key) if r.phase in ALIVE]
        for upstream in snapshot.desired.dependencies(spec) if not replica.restarts and not alive else ():
            serving = any(r.phase == "ready" and not r.condemned for r in snapshot.observed.of(upstream.key))
            asleep = upstream.scaling.min_replicas == 0 and wanted(snapshot, upstream) == 0
            assert serving or (asleep and not upstream.held), f"{replica.id} starts before {upstream.name}"


@sentence
def exactly_as_many_stay_as_are_wanted(snapshot: Snapshot) -> None:
    """Once nothing of an old revision stays; until then never more than the surge allows."""
    after = carried_out(snapshot, plan_of(snapshot))
    for spec in snapshot.desired.services.values():
        before = staying(snapshot.observed, spec)
        count, new = wanted(snapshot, spec), staying(after, spec)
        leaving_by_itself = [r for r in new if r.phase in ("draining", "stopping")]
        if snapshot.observed.stopping:
            assert len(new) - len(leaving_by_itself) <= len(before)
            continue
        old = [r for r in new if r.revision != revision(spec)]
        if not old:
            assert len(new) >= count, f"{spec.name}: {new}"
            assert len(new) - len(leaving_by_itself) <= count, f"{spec.name}: {new}"
        else:
            fresh = [r for r in new if r.revision == revision(spec) and r not in leaving_by_itself]
            assert len(fresh) <= count
            crowded = len(new) - len(leaving_by_itself) > count + surge_of(spec)
            assert not (crowded and any(r.phase == "pending" for r in fresh)), f"{spec.name}: {new}"


@sentence
def no_old_revision_stays_without_a_reason(snapshot: Snapshot) -> None:
    """An old replica that does not serve goes now; one that serves goes as soon as enough others do.
    Those that this plan takes back from their drain are ready with it, and count for the next."""
    plan = plan_of(snapshot)
    after = carried_out(snapshot, plan)
    back = {action.replica for action in plan.actions if isinstance(action, ResumeReplica)}
    for spec in snapshot.desired.services.values():
        if snapshot.observed.stopping:
            continue
        fresh, count = revision(spec), wanted(snapshot, spec)
        stay = [r for r in after.of(spec.key) if r.phase in ("pending", "starting", "ready", "unready")]
        old = [r for r in stay if r.revision != fresh]
        assert all(r.phase == "ready" and not r.condemned for r in old)
        ready = [r for r in stay if r.revision == fresh and r.phase == "ready" and r.id not in back]
        new_ready = [r for r in ready if not r.condemned]
        assert len(old) + len(new_ready) <= max(count, len(new_ready)), f"{spec.name} keeps {old}"
        assert not (old and spec.update.strategy == "Recreate")


@sentence
def an_update_keeps_enough_ready(snapshot: Snapshot) -> None:
    plan = plan_of(snapshot)
    after = carried_out(snapshot, plan)
    for spec in snapshot.desired.services.values():
        if spec.update.strategy == "Recreate" or snapshot.observed.stopping:
            continue
        makes_room = any(a.service == spec.key and "makes room" in a.reason for a in plan.actions)
        sick = any(a.service == spec.key and "device" in a.reason for a in plan.actions)
        if makes_room or sick:
            continue
        allowed = spec.update.max_unavailable if spec.update.strategy == "RollingUpdate" else 0
        if spec.update.strategy == "BestEffortControlledRollout" or (
            spec.update.strategy == "RollingUpdate" and not spec.update.max_surge
        ):
            allowed = max(1, spec.update.max_unavailable)

        def ready(state: ObservedState, key: str = spec.key) -> int:
            return sum(r.phase == "ready" and not r.condemned for r in state.of(key))

        floor = min(ready(snapshot.observed), wanted(snapshot, spec) - allowed)
        assert ready(after) >= floor, f"{spec.name} falls to {ready(after)} ready"


@sentence
def a_silent_driver_changes_nothing(snapshot: Snapshot) -> None:
    silent = replace(snapshot.observed, inventory=replace(snapshot.observed.inventory, state="unreachable"))
    for action in plan_of(Snapshot(snapshot.desired, silent)).actions:
        if isinstance(action, StartReplica):
            assert not action.reservations
        assert "device GPU" not in action.reason


@sentence
def nobody_is_left_on_a_device_that_is_gone(snapshot: Snapshot) -> None:
    observed = snapshot.observed
    if observed.inventory.state != "ok" or observed.stopping:
        return
    usable = {d.uuid for d in observed.inventory.devices if d.health not in ("lost", "quarantined")}
    for replica in carried_out(snapshot, plan_of(snapshot)).replicas.values():
        if replica.phase in ("starting", "ready", "unready"):
            assert all(r.uuid in usable for r in replica.reservations), f"{replica.id} stays on a dead device"


@sentence
def nothing_is_wanted_of_what_is_held_gone_or_ending(snapshot: Snapshot) -> None:
    after = carried_out(snapshot, plan_of(snapshot))
    for key in {r.service for r in snapshot.observed.replicas.values()} | set(snapshot.desired.services):
        spec = snapshot.desired.services.get(key)
        if snapshot.observed.stopping:
            assert not any(r.phase == "pending" for r in after.of(key))
        elif spec is None or spec.held:
            phases = {r.phase for r in after.of(key)}
            assert phases <= {"draining", "stopping", "exited", "lost"}


@sentence
def time_is_in_the_plan_and_the_answer_is_always_the_same(snapshot: Snapshot) -> None:
    plan = plan_of(snapshot)
    assert plan.wake_at is None or plan.wake_at > NOW
    assert plan == plan_of(snapshot)
    waiting = [
        r.not_before
        for r in carried_out(snapshot, plan).replicas.values()
        if r.phase == "pending" and r.not_before > NOW
    ]
    if waiting:
        assert plan.wake_at is not None
        assert plan.wake_at <= min(waiting)


@RUNS
@given(snapshots())
def test_every_sentence_holds_for_every_snapshot(snapshot: Snapshot) -> None:
    for check in SENTENCES:
        check(snapshot)


@st.composite
def full_boxes(draw: st.DrawFn) -> Snapshot:
    """An update while every device is in use: the old revision of one service, and perhaps a neighbour."""
    count = draw(st.integers(1, 3))
    update = Update(max_surge=draw(st.integers(0, 2)), max_unavailable=draw(st.integers(0, 1)))
    spec = make_spec("infer", gpu=1.0, replicas=(count, count), update=update)
    neighbour = make_spec("other", gpu=1.0, replicas=(3 - count, 3 - count))
    there = [
        make_replica(spec, f"old{n}", revision=OLD, devices=(f"GPU-{n}",), created=float(n))
        for n in range(count)
    ]
    there += [make_replica(neighbour, f"n{n}", devices=(f"GPU-{n}",)) for n in range(count, 3)]
    there += [
        make_replica(spec, f"new{n}", "pending")
        for n in range(draw(st.integers(1, max(1, min(count, update.max_surge)))))
    ]
    return Snapshot(wanting(spec, neighbour), seeing(*there, inventory=box(0, 1, 2)))


@settings(max_examples=60, deadline=None)
@given(full_boxes())
def test_an_update_on_a_full_box_gives_up_one_place_at_a_time(snapshot: Snapshot) -> None:
    for check in SENTENCES:
        check(snapshot)
    leaving = [action for action in plan_of(snapshot).actions if isinstance(action, DrainReplica)]
    assert len(leaving) == 1, "it would wait for ever, or loses more than it must"
    assert leaving[0].replica.startswith("infer-old")


def test_the_generator_reaches_what_it_should() -> None:
    """Guards the sentences above from holding only because nothing ever happens."""
    seen: Counter[str] = Counter()

    @settings(max_examples=1000, deadline=None, database=None, derandomize=True)
    @given(snapshots())
    def count(snapshot: Snapshot) -> None:
        for action in plan_of(snapshot).actions:
            seen[type(action).__name__] += 1
            seen["surge" if "old" in action.reason else ""] += 1
            seen["device" if "device" in action.reason else ""] += 1
        seen["shared"] += (
            max(shares(carried_out(snapshot, plan_of(snapshot)).replicas.values()).values(), default=0) > 0
        )

    count()
    for kind in ("AddReplica", "HoldReplica", "StartReplica", "DrainReplica", "StopReplica", "KillReplica",
                 "ForgetReplica", "surge", "device", "shared"):  # fmt: skip
        assert seen[kind] >= 5, f"only {seen[kind]} of {kind}"
