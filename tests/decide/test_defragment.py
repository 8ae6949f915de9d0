"""Which shared replicas would have to move for a whole GPU: the fewest, each to a place it can have."""

from __future__ import annotations

from dataclasses import replace

from stoker.decide.defragment import opening
from stoker.decide.placement import place
from stoker.model.device import Reservation
from stoker.model.replica import Replica
from stoker.model.service import Resources, ServiceSpec
from worlds import GIB, box, make_device, make_replica, make_spec

HALF = make_spec("half", gpu=0.5)
QUARTER = make_spec("quarter", gpu=0.25)
WHOLE = make_spec("whole", gpu=1)
SERVICES = {spec.key: spec for spec in (HALF, QUARTER, WHOLE)}


def at(spec: ServiceSpec, tag: str, number: int, **changes: object) -> Replica:
    share = spec.resources.gpu
    held = Reservation(uuid=f"GPU-{number}", share=share, memory=int(share * 80 * GIB))
    return replace(make_replica(spec, tag, **changes), reservations=(held,))  # type: ignore[arg-type]


def test_the_device_with_the_fewest_to_move_is_opened() -> None:
    there = [at(QUARTER, "a", 0), at(QUARTER, "b", 0), at(QUARTER, "c", 1)]
    found = opening(WHOLE, box(0, 1), there, SERVICES)
    assert found is not None
    assert found.devices == ("GPU-1",)
    assert [(r.id, r.reservations[0].uuid) for r in found.moves] == [("quarter-c", "GPU-0")]
    after = [*there[:2], *found.moves]
    assert [r.uuid for r in place(WHOLE, box(0, 1), after).reservations] == ["GPU-1"]


def test_nothing_moves_where_nobody_has_room_for_it() -> None:
    there = [at(HALF, "a", 0), at(QUARTER, "b", 0), at(HALF, "c", 1)]
    assert opening(WHOLE, box(0, 1), there, SERVICES) is None


def test_who_is_not_ready_or_not_known_or_holds_a_whole_one_stays() -> None:
    assert opening(WHOLE, box(0, 1), [at(QUARTER, "a", 0, phase="starting"), at(HALF, "b", 1)], {}) is None
    starting = [at(QUARTER, "a", 0, phase="starting"), at(HALF, "b", 1), at(HALF, "c", 1)]
    assert opening(WHOLE, box(0, 1), starting, SERVICES) is None
    whole = make_replica(WHOLE, "w", devices=("GPU-0",))
    assert opening(WHOLE, box(0), [whole], SERVICES) is None


def test_not_more_are_moved_than_is_worth_it() -> None:
    there = [at(QUARTER, tag, 0) for tag in "abc"] + [at(QUARTER, tag, 1) for tag in "de"]
    there += [at(QUARTER, "f", 2)]
    assert opening(WHOLE, box(0, 1, 2), there, SERVICES, most=0) is None
    found = opening(WHOLE, box(0, 1, 2), there, SERVICES, most=1)
    assert found is not None
    assert found.devices == ("GPU-2",)


def test_a_pair_opens_on_the_best_link() -> None:
    links = {0: (("GPU-1", 110),), 1: (("GPU-0", 110),), 2: (("GPU-3", 110),), 3: (("GPU-2", 110),)}
    devices = box(*(make_device(n, links=links[n]) for n in range(4)))
    there = [at(QUARTER, "a", 1), at(HALF, "b", 2), make_replica(WHOLE, "w", devices=("GPU-3",))]
    pair = make_spec("pair", resources=Resources(gpu=2))
    found = opening(pair, devices, there, SERVICES | {pair.key: pair})
    assert found is not None
    assert found.devices == ("GPU-0", "GPU-1")
    assert [r.reservations[0].uuid for r in found.moves] == ["GPU-2"]


def test_a_share_opens_nothing_nor_does_a_silent_box() -> None:
    assert opening(QUARTER, box(0), [at(HALF, "a", 0)], SERVICES) is None
    silent = replace(box(0, 1), state="unreachable")
    assert opening(WHOLE, silent, [at(QUARTER, "a", 0), at(QUARTER, "b", 1)], SERVICES) is None
