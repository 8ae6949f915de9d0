"""Placement by law: whatever the box and whoever is on it, no law is broken."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.placement import place
from stoker.model.device import Device, DeviceProcess, Inventory
from stoker.model.replica import Replica
from stoker.model.service import Command, Resources, ServiceSpec

GIB = 2**30
MODELS = {"gpu.t4.16g": 15360 * 2**20, "gpu.h100.80g": 81559 * 2**20}


@st.composite
def inventories(draw: st.DrawFn, largest: int = 5) -> Inventory:
    devices: list[Device] = []
    for index in range(draw(st.integers(0, largest))):
        key = draw(st.sampled_from(sorted(MODELS)))
        used = draw(st.sampled_from([0, 0, 0, GIB, 10 * GIB]))
        devices.append(
            Device(
                uuid=f"GPU-{index:08x}", name=key, index=index, type_key=key, memory_total=MODELS[key],
                memory_used=used, processes=(DeviceProcess(pid=9, memory=used),) if used else (),
                health=draw(st.sampled_from(["healthy"] * 4 + ["lost", "quarantined", "draining"])),
            )
        )  # fmt: skip
    if devices and draw(st.booleans()):
        parent = devices[-1]
        devices += [
            replace(
                parent,
                uuid=f"MIG-{i:08x}",
                parent=parent.uuid,
                type_key="gpu.mig.1g.5gb",
                memory_total=5 * GIB,
            )
            for i in range(2)
        ]
        if draw(st.booleans()):
            devices.remove(parent)
    linked = draw(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(0, 110)))
    devices = [
        replace(
            d, links=tuple((f"GPU-{b:08x}", score) for (a, b), score in linked.items() if a == d.index != b)
        )
        for d in devices
    ]
    return Inventory(
        state=draw(st.sampled_from(["ok"] * 6 + ["none", "unreachable"])), devices=tuple(devices)
    )


needs = st.builds(
    Resources,
    gpu=st.sampled_from([0, 0.1, 0.25, 0.25, 0.5, 0.9, 1, 1, 2, 3, 1.5]),
    gpu_type=st.sampled_from([None, None, None, "t4", "h100", "mig.1g.5gb", "any"]),
    gpu_memory=st.sampled_from([None, None, 2 * GIB, 14 * GIB, 16 * GIB, 80 * GIB]),
    devices=st.sampled_from([(), (), (), ("GPU-00000001",), ("MIG-",)]),
)


def spec_of(need: Resources) -> ServiceSpec:
    return ServiceSpec(deployment="d", name="s", launch=Command(("x",)), working_dir="/", resources=need)


def fill(inventory: Inventory, asks: list[Resources]) -> list[Replica]:
    replicas: list[Replica] = []
    for number, need in enumerate(asks):
        placement = place(spec_of(need), inventory, replicas)
        replica = Replica(id=f"r{number}", service="d/s", revision="x", reservations=placement.reservations)
        replicas.append(replica)
    return replicas


@given(inventories(), st.lists(needs, max_size=8))
def test_the_laws_of_devices_hold_after_any_sequence_of_placements(inventory, asks):
    held = defaultdict(list)
    for replica in fill(inventory, asks):
        assert len({r.uuid for r in replica.reservations}) == len(replica.reservations)
        for reservation in replica.reservations:
            held[reservation.uuid].append(reservation)
    parents = {device.parent for device in inventory.devices}
    for uuid, reservations in held.items():
        device = inventory.get(uuid)
        assert device is not None, "a device that does not exist"
        assert device.health == "healthy"
        assert device.uuid not in parents
        assert sum(r.share for r in reservations) <= 1 + 1e-6
        if any(r.share >= 1 for r in reservations):
            assert len(reservations) == 1, "two owners of an exclusive device"
        else:
            assert sum(r.memory for r in reservations) <= device.memory_total
    if inventory.state != "ok":
        assert not held


@given(inventories(), st.lists(needs, max_size=6), needs)
def test_every_answer_has_a_reason_and_gives_what_was_asked(inventory, asks, need):
    placement = place(spec_of(need), inventory, fill(inventory, asks))
    assert placement.reason
    if not placement.placed:
        assert placement.reservations == ()
        assert placement.reason.startswith("needs ")
    elif need.gpu < 1:
        assert [r.share for r in placement.reservations] == ([need.gpu] if need.gpu else [])
    else:
        assert [r.share for r in placement.reservations] == [1.0] * int(need.gpu)
        kinds = {inventory.get(r.uuid).parent is None for r in placement.reservations}
        assert kinds == {True} or len(placement.reservations) == 1, "a set with a MIG instance in it"


@given(inventories(), st.lists(needs, max_size=6), needs, st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_of_what_is_known(inventory, asks, need, random):
    replicas = fill(inventory, asks)
    expected = place(spec_of(need), inventory, replicas)
    devices = list(inventory.devices)
    random.shuffle(replicas)
    random.shuffle(devices)
    assert place(spec_of(need), replace(inventory, devices=tuple(devices)), replicas) == expected


@given(inventories(), st.lists(needs, max_size=4), st.integers(1, 4))
def test_whole_gpus_are_given_whenever_there_are_enough(inventory, asks, count):
    """An independent count: a plain ask must be met exactly if enough healthy whole GPUs are untouched."""
    replicas = fill(inventory, asks)
    taken = {r.uuid for replica in replicas for r in replica.reservations}
    parents = {device.parent for device in inventory.devices}
    whole = [d for d in inventory.devices if d.parent is None and d.uuid not in parents]
    free = [d for d in whole if d.health == "healthy" and d.uuid not in taken]
    enough = inventory.state == "ok" and len(free) >= count
    placement = place(spec_of(Resources(gpu=count)), inventory, replicas)
    if enough:
        assert placement.placed, placement.reason
    elif any(d.parent is None for d in inventory.devices):
        assert not placement.placed


@given(inventories(), st.lists(needs, max_size=4), st.sampled_from([0.1, 0.25, 0.5]))
def test_a_share_is_refused_only_if_no_device_has_room(inventory, asks, share):
    replicas = fill(inventory, asks)
    placement = place(spec_of(Resources(gpu=share, gpu_type="t4")), inventory, replicas)
    if placement.placed or inventory.state != "ok":
        return
    parents = {device.parent for device in inventory.devices}
    for device in inventory.devices:
        mine = [r for replica in replicas for r in replica.reservations if r.uuid == device.uuid]
        promised = sum(device.memory_total if r.memory is None else r.memory for r in mine)
        room = sum(r.share for r in mine) + share <= 1
        room &= promised + device.memory_used + share * device.memory_total <= device.memory_total
        usable = device.health == "healthy" and device.uuid not in parents
        assert not (usable and room and device.type_key == "gpu.t4.16g"), placement.reason


@given(inventories(largest=4), st.integers(2, 3))
def test_a_set_has_the_best_links_of_all_quiet_sets(inventory, count):
    """Against brute force: no other set of uncrowded GPUs is linked better."""
    from itertools import combinations

    placement = place(spec_of(Resources(gpu=count)), inventory, [])
    if not placement.placed:
        return
    links = {(d.uuid, peer): score for d in inventory.devices for peer, score in d.links}

    def score(uuids):
        return sum(links.get((a, b), links.get((b, a), 0)) for a, b in combinations(uuids, 2))

    parents = {device.parent for device in inventory.devices}
    quiet = [
        d.uuid for d in sorted(inventory.devices, key=lambda d: d.index)
        if d.health == "healthy" and d.parent is None and d.uuid not in parents
        and d.memory_used <= 0.1 * d.memory_total
    ]  # fmt: skip
    best = max((score(uuids) for uuids in combinations(quiet, count)), default=None)
    if best is not None:
        assert score([r.uuid for r in placement.reservations]) == best
