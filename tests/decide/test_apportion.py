"""From decisions to targets that the box can bear: kinds of devices, guarantees, what is said."""

from __future__ import annotations

import math
from dataclasses import replace

from stoker.decide.apportion import Asked, Portion, apportion, clash, kinds_of
from stoker.decide.budget import DWELL, BudgetMemory
from stoker.decide.claims import Amount
from stoker.model.device import Inventory, Reservation
from stoker.model.load import Decision
from stoker.model.service import BoxSpec, DesiredState, Resources, Restart, ServiceSpec
from stoker.model.state import ObservedState
from worlds import GIB, box, make_device, make_replica, make_spec, wanting

ENDLESS = Amount(cpu=math.inf, memory=math.inf)


def wants(target: int, **tiers: int) -> Asked:
    granted = tiers.pop("granted", None)
    return Asked(decision=Decision(target=target, reason="load", **tiers), granted=granted)  # type: ignore[arg-type]


def share(
    desired: DesiredState,
    asked: dict[str, Asked],
    inventory: Inventory,
    *replicas: object,
    room: Amount = ENDLESS,
    memory: BudgetMemory | None = None,
    **more: object,
) -> dict[str, Portion]:
    """By service name."""
    state = ObservedState(inventory=inventory, replicas={r.id: r for r in replicas}, **more)  # type: ignore[attr-defined,arg-type]
    kinds = kinds_of(list(desired.services.values()), inventory, list(state.replicas.values()))
    keyed = {f"app/{name}": one for name, one in asked.items()}
    found, _, _ = apportion(
        desired, state, keyed, 1000.0, kinds=kinds, room=room, memory=memory or BudgetMemory()
    )
    return {key.rpartition("/")[2]: portion for key, portion in found.items()}


def targets(*args: object, **more: object) -> dict[str, int]:
    return {name: portion.target for name, portion in share(*args, **more).items()}  # type: ignore[arg-type]


def gpu(name: str, low: int = 0, high: int = 8, **resources: object) -> ServiceSpec:
    priority = resources.pop("priority", 0)
    needs = Resources(**({"gpu": 1.0} | resources))  # type: ignore[arg-type]
    return make_spec(name, replicas=(low, high), resources=needs, priority=priority)


def test_who_wants_more_than_the_box_has_gets_its_part_and_the_reason() -> None:
    desired = wanting(gpu("chat"), gpu("infer", priority=10))
    found = share(desired, {"chat": wants(5), "infer": wants(5)}, box(*range(8)))
    assert (found["infer"].target, found["chat"].target) == (5, 3)
    assert found["chat"].decision.reason == (
        "load; wants 5, has 3: 2 GPUs short, held by infer (priority 10)"
    )
    assert found["chat"].decision.target == 3
    assert found["chat"].decision.facts == {"wanted": 5.0, "granted": 3.0}
    assert found["infer"].decision.reason == "load"


def test_a_type_that_is_scarce_does_not_hold_back_those_who_can_use_another() -> None:
    devices = [make_device(n) for n in range(2)]
    devices += [replace(make_device(n), type_key="gpu.t4", memory_total=16 * GIB) for n in range(2, 6)]
    desired = wanting(gpu("big", gpu_type="test"), gpu("small"))
    both = {"big": wants(6), "small": wants(4)}
    assert targets(desired, both, box(*devices)) == {"big": 2, "small": 4}
    found = share(desired, both, box(*devices))
    assert found["big"].decision.reason.endswith("4 GPUs short, which the box does not have")


def test_memory_bounds_how_many_share_a_device() -> None:
    half = gpu("half", gpu=0.25, gpu_memory=40 * GIB)
    assert targets(wanting(half), {"half": wants(8)}, box(0, 1)) == {"half": 4}


def test_a_device_full_of_strangers_or_sick_is_no_part_of_the_box() -> None:
    taken = make_device(0, memory_used=70 * GIB)
    sick = make_device(1, health="quarantined")
    spec = gpu("a", gpu_memory=40 * GIB)
    assert targets(wanting(spec), {"a": wants(3)}, box(taken, sick, 2)) == {"a": 1}


def test_the_guarantee_stands_whatever_the_box() -> None:
    desired = wanting(gpu("a", low=9, high=9))
    assert targets(desired, {"a": wants(9)}, box(*range(8))) == {"a": 9}


def test_while_nothing_is_known_of_devices_nobody_is_held_back() -> None:
    desired = wanting(gpu("a", low=1))
    assert targets(desired, {"a": wants(5)}, Inventory()) == {"a": 5}
    away = replace(box(0, 1), state="unreachable")
    assert targets(desired, {"a": wants(5)}, away) == {"a": 2}


def test_a_request_that_waits_is_need_not_warmth() -> None:
    rich, poor = gpu("rich"), gpu("poor")
    here = [make_replica(rich, tag, devices=(f"GPU-{n}",)) for n, tag in enumerate("ab")]
    asked = {"rich": wants(2, base=1, need=1, want=2), "poor": wants(1, base=0, need=0, want=0)}
    waiting = {"demand": frozenset({poor.key})}
    assert targets(wanting(rich, poor), asked, box(0, 1), *here, **waiting) == {"rich": 1, "poor": 1}
    assert targets(wanting(rich, poor), asked, box(0, 1), *here) == {"rich": 2, "poor": 0}


def test_a_move_stands_before_the_replica_knows_of_it() -> None:
    rich, poor = gpu("rich"), gpu("poor")
    here = [make_replica(rich, tag, devices=(f"GPU-{n}",)) for n, tag in enumerate("abcdef")]
    asked = {"rich": wants(6, granted=5), "poor": wants(6, granted=1)}
    just_moved = BudgetMemory(moved={rich.key: 1000.0, poor.key: 1000.0})
    found = targets(wanting(rich, poor), asked, box(*range(6)), *here, memory=just_moved)
    assert found == {"rich": 5, "poor": 1}


def test_who_restarts_keeps_its_part_and_who_only_fails_does_not() -> None:
    rule = Restart(crash_loop=5)
    a, b = replace(gpu("a"), restart=rule), gpu("b")
    asked = {"a": wants(1, granted=1), "b": wants(2, granted=1)}
    serving = make_replica(b, "b", devices=("GPU-0",))
    for failures, expected in ((2, {"a": 1, "b": 1}), (5, {"a": 1, "b": 1})):
        failing = make_replica(a, "a", "pending", failures=failures)
        assert targets(wanting(a, b), asked, box(0, 1), serving, failing) == expected
    low = replace(a, priority=-1)
    failing = make_replica(low, "a", "pending", failures=5)
    assert targets(wanting(low, b), asked, box(0, 1), serving, failing) == {"a": 0, "b": 2}


def test_cores_and_memory_count_and_replicas_that_leave_still_hold_theirs() -> None:
    a = make_spec("a", replicas=(0, 8), resources=Resources(cpu=2, memory=GIB))
    b = make_spec("b", replicas=(0, 8), resources=Resources(cpu=2, memory=GIB))
    four = Amount(cpu=4, memory=64.0 * GIB)
    assert targets(wanting(a, b), {"a": wants(4), "b": wants(4)}, box(), room=four) == {"a": 1, "b": 1}
    going = [make_replica(a, tag, "draining", leave=True) for tag in "xy"]
    found = share(wanting(a, b), {"a": wants(0), "b": wants(2)}, box(), *going, room=four)
    assert found["b"].target == 0
    assert found["b"].decision.target == 2
    assert "2 of them when replicas that leave have given back cores and memory" in found["b"].decision.reason


def test_idle_devices_are_filled_and_it_is_said() -> None:
    desired = replace(wanting(gpu("a"), gpu("b")), box=BoxSpec(idle="fill"))
    found = share(desired, {"a": wants(1), "b": wants(0)}, box(*range(4)))
    assert (found["a"].target, found["b"].target) == (4, 0)
    assert found["a"].decision.reason == "load; plus 3 on idle GPUs (box.idle: fill)"
    assert found["a"].decision.target == 4


def test_overload_is_told_apart_from_a_want() -> None:
    desired = wanting(gpu("a"))
    assert share(desired, {"a": wants(3, base=2, need=3)}, box(0, 1))["a"].lacking == 0
    assert share(desired, {"a": wants(3, base=3, need=3)}, box(0, 1))["a"].lacking == 1


def test_a_dwell_that_keeps_a_move_waiting_says_when() -> None:
    rich, poor = gpu("rich"), gpu("poor")
    here = [make_replica(rich, tag, devices=(f"GPU-{n}",)) for n, tag in enumerate("abcd")]
    state = ObservedState(inventory=box(*range(4)), replicas={r.id: r for r in here})
    desired = wanting(rich, poor)
    kinds = kinds_of(list(desired.services.values()), state.inventory, here)
    asked = {rich.key: wants(4, granted=4), poor.key: wants(4, granted=0)}
    memory = BudgetMemory(moved={rich.key: 990.0})
    _, _, wake_at = apportion(desired, state, asked, 1000.0, kinds=kinds, room=ENDLESS, memory=memory)
    assert wake_at == 990.0 + DWELL


def test_only_guarantees_of_several_services_clash() -> None:
    devices = box(*range(8))

    def found(*specs: ServiceSpec) -> tuple[str, str] | None:
        return clash(wanting(*specs), kinds_of(specs, devices, ()))

    assert found(gpu("a", low=9, high=9)) is None
    assert found(gpu("a", low=5), gpu("b", low=3)) is None
    refused = found(gpu("a", low=5, priority=-1), gpu("b", low=5))
    assert refused is not None
    assert refused[0] == "app/a"
    assert refused[1] == (
        "min_replicas do not fit the box together: it has 8 GPUs for them, and app/b 5 x 1, app/a 5 x 1 are "
        "guaranteed"
    )
    assert clash(wanting(gpu("a", low=5), gpu("b", low=5)), None) is None


def test_shares_and_whole_devices_of_one_box() -> None:
    quarter = gpu("quarter", gpu=0.25)
    held = Reservation(uuid="GPU-0", share=0.25, memory=20 * GIB)
    here = [replace(make_replica(quarter, tag), reservations=(held,)) for tag in "ab"]
    both = {"quarter": wants(4, granted=2), "whole": wants(9)}
    assert targets(wanting(quarter, gpu("whole", high=9)), both, box(*range(4)), *here) == {
        "quarter": 4,
        "whole": 3,
    }
