"""Placement by example: which device is chosen, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.decide.placement import cuda_environment, holders, numa_node_of, place, type_matches
from stoker.model.device import Device, DeviceProcess, Inventory, Reservation, memory_class
from stoker.model.replica import Replica, WorkerHandle
from stoker.model.service import Command, Resources, ServiceSpec

GIB = 2**30
H100, T4 = 81559 * 2**20, 15360 * 2**20


def gpu(index: int, **values) -> Device:
    defaults = {
        "uuid": f"GPU-{index}{index}{index}{index}{index}{index}{index}{index}-cafe",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_total": H100,
        "type_key": "gpu.h100.80g",
    }
    return Device(index=index, **{**defaults, **values})


def t4(index: int, **values) -> Device:
    return gpu(index, **{"name": "Tesla T4", "memory_total": T4, "type_key": "gpu.t4.16g", **values})


def mig(index: int, parent: Device, **values) -> Device:
    defaults = {
        "uuid": f"MIG-{index}{index}{index}{index}{index}{index}{index}{index}-cafe",
        "name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "memory_total": 4864 * 2**20,
        "type_key": "gpu.mig.1g.5gb",
        "parent": parent.uuid,
    }
    return Device(index=parent.index, **{**defaults, **values})


def joined(devices: list[Device], scores: dict[tuple[int, int], int]) -> list[Device]:
    """The devices with these link scores between them, both ways."""
    return [
        replace(
            device,
            links=tuple(
                (devices[a if b == i else b].uuid, score) for (a, b), score in scores.items() if i in (a, b)
            ),
        )
        for i, device in enumerate(devices)
    ]


def pairs_of_two(count: int) -> list[Device]:
    """NVLink bridges 0-1, 2-3, ...; everything else only shares a socket."""
    scores = {(a, b): 110 if a // 2 == b // 2 else 10 for b in range(count) for a in range(b)}
    return joined([gpu(i) for i in range(count)], scores)


def box(*devices: Device) -> Inventory:
    return Inventory(state="ok", reason="", devices=devices)


def service(gpu: float = 1, **needs) -> ServiceSpec:
    return ServiceSpec(
        deployment="d",
        name="s",
        launch=Command(("x",)),
        working_dir="/",
        resources=Resources(gpu=gpu, **needs),
    )


def holder(name: str, *reservations: Reservation, pid: int | None = None) -> Replica:
    handle = WorkerHandle(driver="process", pid=pid) if pid else None
    return Replica(id=name, service="d/s", revision="r", reservations=reservations, handle=handle)


def holds(name: str, device: Device, share: float = 1.0, memory: int | None = None, pid: int | None = None):
    return holder(name, Reservation(uuid=device.uuid, share=share, memory=memory), pid=pid)


def indices(spec: ServiceSpec, inventory: Inventory, *replicas: Replica) -> list[int]:
    placement = place(spec, inventory, replicas)
    assert placement.placed, placement.reason
    return [inventory.get(reservation.uuid).index for reservation in placement.reservations]


# --- no GPU -----------------------------------------------------------------------------------------------


def test_a_service_without_gpu_needs_no_inventory():
    placement = place(service(0), Inventory(), [])
    assert placement.placed
    assert placement.reservations == ()
    assert placement.reason == "needs no GPU"


@pytest.mark.parametrize("state", ["none", "unreachable"])
def test_no_usable_inventory_is_a_refusal_that_says_why(state):
    inventory = Inventory(state=state, reason="the driver hangs", devices=(gpu(0),))
    placement = place(service(), inventory, [])
    assert not placement.placed
    assert placement.reason == "needs 1 whole GPU: the driver hangs"


def test_an_empty_box_is_a_refusal():
    assert place(service(), box(), []).reason == "needs 1 whole GPU: this box shows no GPU"


def test_more_than_there_are_is_said_as_such():
    assert place(service(4), box(gpu(0), gpu(1)), []).reason == "needs 4 whole GPUs: this box has only 2 GPUs"
    assert place(service(2), box(gpu(0)), []).reason == "needs 2 whole GPUs: this box has only 1 GPU"


def test_one_and_a_half_gpus_cannot_be_given():
    placement = place(service(1.5), box(gpu(0), gpu(1)), [])
    assert not placement.placed
    assert "only whole GPUs" in placement.reason


# --- whole GPUs -------------------------------------------------------------------------------------------


def test_eight_replicas_get_eight_gpus_and_the_ninth_is_told_who_holds_them():
    inventory = box(*(gpu(i) for i in range(8)))
    replicas: list[Replica] = []
    for number in range(8):
        placement = place(service(gpu_type="h100"), inventory, replicas)
        replicas.append(holder(f"infer-{number}", *placement.reservations))
    assert len({replica.reservations[0].uuid for replica in replicas}) == 8
    ninth = place(service(gpu_type="h100"), inventory, replicas)
    assert not ninth.placed
    assert ninth.reason.startswith(
        "needs 1 whole GPU of type h100: GPU 0 is held by infer-0, GPU 1 is held by"
    )


def test_the_reason_names_device_index_and_model():
    assert place(service(), box(gpu(3)), []).reason == "GPU-33333333 (index 3, NVIDIA H100 80GB HBM3): free"


def test_a_refusal_says_what_stands_against_each_device():
    inventory = box(gpu(0), gpu(1, health="lost", health_reason="fell off the bus"), t4(2), t4(3))
    placement = place(service(gpu_type="h100"), inventory, [holds("infer-k3x9", inventory.devices[0])])
    assert placement.reason == (
        "needs 1 whole GPU of type h100: GPU 0 is held by infer-k3x9, GPU 1 is lost (fell off the bus), "
        "GPUs 2, 3 are gpu.t4.16g"
    )


@pytest.mark.parametrize("health", ["suspect", "draining", "quarantined", "probation", "lost"])
def test_only_healthy_devices_are_given(health):
    assert not place(service(), box(gpu(0, health=health)), []).placed
    assert not place(service(0.5), box(gpu(0, health=health)), []).placed


def test_a_shared_gpu_is_never_given_whole_nor_a_whole_one_shared():
    inventory = box(gpu(0))
    shared, whole = holds("a", inventory.devices[0], share=0.1, memory=GIB), holds("b", inventory.devices[0])
    assert place(service(), inventory, [shared]).reason == "needs 1 whole GPU: GPU 0 is held by a"
    refusal = place(service(0.1), inventory, [whole])
    assert not refusal.placed
    assert refusal.reason == "needs a share of 0.1 of a GPU: GPU 0 is held by b"


def test_reservations_of_excluded_replicas_do_not_count():
    inventory = box(gpu(0))
    replicas = [holds("a", inventory.devices[0])]
    assert not place(service(), inventory, replicas).placed
    assert place(service(), inventory, replicas, exclude={"a"}).placed


def test_an_exited_replica_that_still_has_reservations_holds_them():
    inventory = box(gpu(0))
    gone = replace(holds("a", inventory.devices[0]), phase="exited")
    assert not place(service(), inventory, [gone]).placed


def test_explicit_devices_confine_by_uuid_prefix():
    inventory = box(*(gpu(i) for i in range(4)))
    assert indices(service(devices=("GPU-2222",)), inventory) == [2]
    taken = holds("a", inventory.devices[2])
    placement = place(service(devices=("GPU-2222",)), inventory, [taken])
    assert placement.reason == "needs 1 whole GPU among GPU-2222: GPU 2 is held by a"


def test_an_explicit_device_that_is_not_there_is_named():
    placement = place(service(devices=("GPU-zz",)), box(gpu(0)), [])
    assert placement.reason.startswith("needs 1 whole GPU among GPU-zz: GPU-zz is not on this box")


# --- type and memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "key", "matches"),
    [
        ("h100", "gpu.h100.80g", True),
        ("H100", "gpu.h100.80g", True),
        ("gpu.h100.80g", "gpu.h100.80g", True),
        ("gpu.h100.80g", "gpu.h100.94g.nvl", False),
        ("h100.nvl", "gpu.h100.94g.nvl", True),
        ("a100", "gpu.a100.40g", True),
        ("a10", "gpu.a100.40g", False),
        ("mig.1g.5gb", "gpu.mig.1g.5gb", True),
        ("mig.1g.10gb", "gpu.mig.1g.5gb", False),
        ("any", "gpu.t4.16g", True),
        (None, "gpu.t4.16g", True),
    ],
)
def test_types(wanted, key, matches):
    assert type_matches(wanted, key) is matches


@pytest.mark.parametrize(
    ("mib", "size"), [(81559, 80), (15360, 16), (23034, 24), (143771, 141), (6144, 6), (4864, None)]
)
def test_memory_classes_are_the_sold_sizes(mib, size):
    assert memory_class(mib * 2**20) == size


def test_80gi_matches_an_h100_although_its_driver_reports_less():
    assert indices(service(gpu_memory=80 * GIB), box(gpu(0))) == [0]
    assert indices(service(gpu_memory=16 * GIB), box(t4(0))) == [0]


def test_a_size_above_the_class_does_not_fit():
    placement = place(service(gpu_memory=81 * GIB), box(gpu(0)), [])
    assert placement.reason == "needs 1 whole GPU with 81Gi: GPU 0 has 79.6Gi of memory"


def test_the_smallest_gpu_that_holds_the_memory_is_taken():
    inventory = box(gpu(0), t4(1))
    assert indices(service(gpu_memory=10 * GIB), inventory) == [1]
    assert "the smallest that holds 10Gi" in place(service(gpu_memory=10 * GIB), inventory, []).reason


# --- strangers on the GPU ---------------------------------------------------------------------------------


def crowded(index: int, gib: int, pid: int = 4242) -> Device:
    return gpu(index, memory_used=gib * GIB, processes=(DeviceProcess(pid=pid, memory=gib * GIB),))


def test_a_gpu_with_a_stranger_on_it_is_avoided_and_said_so():
    inventory = box(crowded(0, 20), gpu(1))
    placement = place(service(), inventory, [])
    assert indices(service(), inventory) == [1]
    assert "avoided for memory in use by other processes: GPU 0 (20Gi)" in placement.reason


def test_links_do_not_outweigh_a_stranger_even_one_whose_process_cannot_be_seen():
    first, second, third = pairs_of_two(3)
    inventory = box(replace(first, memory_used=20 * GIB), second, third)
    assert indices(service(2), inventory) == [1, 2]


def test_a_gpu_with_a_stranger_is_taken_when_no_other_is_free():
    placement = place(service(), box(crowded(0, 20)), [])
    assert placement.placed
    assert "20Gi in use by other processes (4242), but no better one is free" in placement.reason


def test_never_when_the_declared_memory_does_not_fit_beside_the_stranger():
    inventory = box(crowded(0, 20))
    assert place(service(gpu_memory=50 * GIB), inventory, []).placed
    placement = place(service(gpu_memory=60 * GIB), inventory, [])
    assert placement.reason == (
        "needs 1 whole GPU with 60Gi: GPU 0 has 59.6Gi of memory left (20Gi in use by other processes)"
    )
    assert not place(service(gpu_memory=80 * GIB), inventory, []).placed


def test_a_display_server_does_not_spoil_a_nominal_size():
    assert place(service(gpu_memory=80 * GIB), box(gpu(0, memory_used=300 * 2**20)), []).placed


# --- links ------------------------------------------------------------------------------------------------


def test_a_pair_is_the_bridged_one():
    inventory = box(*pairs_of_two(4))
    taken = holds("a", inventory.devices[0])
    assert indices(service(2), inventory, taken) == [2, 3]
    assert "the best linked 2 (score 110) of 3 free" in place(service(2), inventory, [taken]).reason


def test_a_single_gpu_does_not_break_a_whole_pair():
    inventory = box(*pairs_of_two(4))
    assert indices(service(1), inventory, holds("a", inventory.devices[2])) == [3]


def test_a_partner_that_is_lost_makes_no_pair():
    devices = pairs_of_two(4)
    assert indices(service(1), box(*devices[:3], replace(devices[3], health="lost"))) == [2]


def test_links_come_before_equal_types():
    inventory = box(*joined([gpu(0), gpu(1), t4(2)], {(0, 2): 110}))
    assert indices(service(2), inventory) == [0, 2]


def test_pairs_of_equal_score_leave_the_best_rest():
    """Two sockets of four, all switched: a pair goes where it leaves a whole four on the other socket."""
    scores = {(a, b): 110 if a // 4 == b // 4 else 100 for b in range(8) for a in range(b)}
    inventory = box(*joined([gpu(i) for i in range(8)], scores))
    taken = [holds("a", inventory.devices[4]), holds("b", inventory.devices[5])]
    assert indices(service(2), inventory, *taken) == [6, 7]
    assert indices(service(4), inventory, *taken) == [0, 1, 2, 3]


def test_above_eight_free_a_set_is_grown_from_the_best_pair():
    scores = {(a, b): 110 if a // 4 == b // 4 else 10 for b in range(12) for a in range(b)}
    inventory = box(*joined([gpu(i) for i in range(12)], scores))
    chosen = indices(service(4), inventory, holds("a", inventory.devices[1]))
    assert chosen == [4, 5, 6, 7]


def test_sets_are_of_one_type_where_links_do_not_decide():
    inventory = box(t4(0), gpu(1), gpu(2))
    assert indices(service(2), inventory) == [1, 2]


def test_too_few_for_a_set_names_the_free_ones_too():
    inventory = box(gpu(0), gpu(1))
    placement = place(service(2), inventory, [holds("a", inventory.devices[1])])
    assert placement.reason == "needs 2 whole GPUs: GPU 0 is free, GPU 1 is held by a"


# --- MIG --------------------------------------------------------------------------------------------------


def mig_box(*others: Device) -> Inventory:
    parent = gpu(0)
    return box(*(mig(i, parent) for i in range(3)), *others)


def test_two_mig_instances_are_never_a_set():
    placement = place(service(2), mig_box(), [])
    assert not placement.placed
    assert "MIG-22222222 are of kind MIG, of which a process can use only one" in placement.reason


def test_a_box_of_mig_instances_gives_one_to_an_ask_without_type():
    assert place(service(1), mig_box(), []).reservations[0].uuid.startswith("MIG-")


def test_beside_whole_gpus_a_mig_instance_must_be_asked_for():
    inventory = mig_box(gpu(1))
    assert place(service(1), inventory, []).reservations[0].uuid.startswith("GPU-1111")
    taken = holds("a", inventory.get(gpu(1).uuid))
    assert "of kind MIG, which the service does not ask for" in place(service(1), inventory, [taken]).reason
    assert place(service(1, gpu_type="mig.1g.5gb"), inventory, [taken]).placed
    assert place(service(1, devices=("MIG-2222",)), inventory, [taken]).reservations[0].uuid[:8] == "MIG-2222"


def test_the_parent_of_mig_instances_is_never_given():
    parent = gpu(0)
    placement = place(service(devices=(parent.uuid,)), box(parent, mig(1, parent)), [])
    assert "GPU 0 is split into MIG instances" in placement.reason


# --- shares -----------------------------------------------------------------------------------------------


def test_the_first_share_opens_a_gpu_and_the_next_ones_join_it():
    inventory = box(t4(0), t4(1))
    replicas: list[Replica] = []
    for number in range(4):
        placement = place(service(0.25), inventory, replicas)
        replicas.append(holder(f"r{number}", *placement.reservations))
    assert {replica.reservations[0].uuid for replica in replicas} == {inventory.devices[0].uuid}
    fifth = place(service(0.25), inventory, replicas)
    assert fifth.reservations[0].uuid == inventory.devices[1].uuid
    assert "empty, opened for shares" in fifth.reason


def test_a_share_promises_memory():
    given = place(service(0.25), box(t4(0)), []).reservations[0]
    assert (given.share, given.memory) == (0.25, T4 // 4)
    assert place(service(0.25, gpu_memory=5 * GIB), box(t4(0)), []).reservations[0].memory == 5 * GIB


def test_a_share_goes_where_the_least_is_left_over():
    inventory = box(t4(0), t4(1))
    replicas = [
        holds("a", inventory.devices[0], 0.25, 2 * GIB),
        holds("b", inventory.devices[1], 0.25, 8 * GIB),
    ]
    assert indices(service(0.25, gpu_memory=4 * GIB), inventory, *replicas) == [1]
    assert "tightest fit" in place(service(0.25, gpu_memory=4 * GIB), inventory, replicas).reason
    assert indices(service(0.25, gpu_memory=9 * GIB), inventory, *replicas) == [0]


def test_memory_promises_bound_shares_before_the_sum_of_shares_does():
    inventory = box(t4(0))
    replicas = [holds("a", inventory.devices[0], 0.1, 10 * GIB)]
    placement = place(service(0.1, gpu_memory=6 * GIB), inventory, replicas)
    assert placement.reason == (
        "needs a share of 0.1 of a GPU with 6Gi: GPU 0 has 5Gi of memory left (10Gi promised to a)"
    )


def test_a_share_that_is_too_large_for_the_rest_is_told_what_is_left():
    inventory = box(t4(0))
    placement = place(service(0.5), inventory, [holds("a", inventory.devices[0], 0.75, GIB)])
    assert placement.reason == ("needs a share of 0.5 of a GPU: GPU 0 has a share of 0.25 left (held by a)")


def test_a_share_opens_the_gpu_whose_loss_breaks_no_pair():
    inventory = box(*pairs_of_two(4))
    assert indices(service(0.5), inventory, holds("a", inventory.devices[0])) == [1]


def test_memory_of_strangers_is_subtracted_for_shares():
    inventory = box(crowded(0, 70), gpu(1))
    assert indices(service(0.25), inventory) == [1]
    assert not place(service(0.25), box(crowded(0, 70)), []).placed


def test_memory_that_our_own_worker_uses_is_not_counted_twice():
    used = 15 * GIB
    mine = gpu(0, memory_used=used, processes=(DeviceProcess(pid=77, memory=used),))
    replica = holds("a", mine, 0.25, 20 * GIB, pid=77)
    assert place(service(0.5, gpu_memory=59 * GIB), box(mine), [replica]).placed
    assert not place(service(0.5, gpu_memory=60 * GIB), box(mine), [replica]).placed


def test_memory_in_a_child_of_our_worker_is_its_own_up_to_its_promise():
    used = 15 * GIB
    mine = gpu(0, memory_used=used, processes=(DeviceProcess(pid=78, memory=used),))
    replica = holds("a", mine, 0.25, 20 * GIB, pid=77)
    assert place(service(0.5, gpu_memory=59 * GIB), box(mine), [replica]).placed


def test_a_worker_that_takes_more_than_its_promise_is_counted_with_what_it_takes():
    used = 40 * GIB
    mine = gpu(0, memory_used=used, processes=(DeviceProcess(pid=77, memory=used),))
    replica = holds("a", mine, 0.25, 20 * GIB, pid=77)
    assert not place(service(0.5, gpu_memory=50 * GIB), box(mine), [replica]).placed


def test_a_stranger_is_not_hidden_by_a_worker_that_has_not_started():
    inventory = box(crowded(0, 40))
    starting = holds("a", inventory.devices[0], 0.25, 30 * GIB)
    assert not place(service(0.25, gpu_memory=20 * GIB), inventory, [starting]).placed


# --- what a worker is told --------------------------------------------------------------------------------


def test_cuda_environment_names_uuids_in_order():
    given = [Reservation(uuid="GPU-b"), Reservation(uuid="GPU-a")]
    assert cuda_environment(given) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_cuda_environment_by_index_where_every_device_has_one():
    given = (Reservation(uuid="GPU-b", ordinal=3), Reservation(uuid="GPU-a", ordinal=1))
    assert cuda_environment(given, pin="index")["CUDA_VISIBLE_DEVICES"] == "3,1"
    part = (Reservation(uuid="MIG-a"),)
    assert cuda_environment(part, pin="index")["CUDA_VISIBLE_DEVICES"] == "MIG-a"


def test_under_mps_a_sharer_is_held_to_its_memory_and_others_are_not():
    name = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
    share = Reservation(uuid="GPU-a", share=0.25, memory=20 * 2**30, limits="mps")
    assert cuda_environment((share,))[name] == "0=20480M"
    assert name not in cuda_environment((replace(share, limits=""),))
    assert name not in cuda_environment((Reservation(uuid="GPU-a", limits="mps"),))


def test_cuda_environment_hides_all_gpus_from_a_cpu_worker():
    assert cuda_environment([])["CUDA_VISIBLE_DEVICES"] == ""


def test_holders_by_device():
    one, two = gpu(0), gpu(1)
    assert holders([holds("b", one, 0.5), holds("a", one, 0.5), holds("c", two)]) == {
        one.uuid: ("a", "b"),
        two.uuid: ("c",),
    }


def test_a_device_with_faulty_links_is_given_alone_only():
    faulty = gpu(0, unlinked="Xid 74")
    refused = place(service(gpu=2), box(faulty, gpu(1)), ())
    assert "GPU 0 is not fit for a set (Xid 74)" in refused.reason
    assert place(service(gpu=1), box(faulty), ()).placed


def test_a_better_type_is_taken_only_where_it_is_welcome_and_the_right_one_first():
    t4 = gpu(0, type_key="gpu.t4", memory_total=15 * GIB)
    a100 = gpu(1, type_key="gpu.a100.40g", memory_total=40 * GIB)
    h100 = gpu(2, type_key="gpu.h100.80g", memory_total=80 * GIB)
    devices = box(h100, a100, t4)
    better = place(service(gpu_type="l4", or_better=True), devices, [])
    assert [r.uuid for r in better.reservations] == [h100.uuid], "the A100's compute capability is lower"
    assert place(service(gpu_type="v100"), devices, []).placed is False
    for free, expected in (((h100, a100, t4), a100), ((h100, t4), h100)):
        chosen = place(service(gpu_type="a100", or_better=True), box(*free), [])
        assert [r.uuid for r in chosen.reservations] == [expected.uuid]
    eighty = place(service(gpu_type="a100.80g", or_better=True), devices, [])
    assert [r.uuid for r in eighty.reservations] == [h100.uuid]
    refused = place(service(gpu_type="h200", or_better=True), devices, [])
    assert "of type h200 or better: GPU 0 is gpu.t4" in refused.reason


def test_devices_are_named_by_index_and_excluded_likewise():
    devices = box(gpu(0), gpu(1), gpu(2))
    assert [r.uuid for r in place(service(devices=("2",)), devices, []).reservations] == [gpu(2).uuid]
    chosen = place(service(exclude=("0", gpu(1).uuid[:-1])), devices, [])
    assert [r.uuid for r in chosen.reservations] == [gpu(2).uuid]
    refused = place(service(exclude=("0", "1", "2")), devices, [])
    assert "GPUs 0, 1, 2 are excluded by the service" in refused.reason
    parent = gpu(0)
    assert (
        place(service(gpu_type="mig", exclude=(parent.uuid,)), box(parent, mig(1, parent)), []).placed
        is False
    )


def test_spread_keeps_replicas_of_one_service_apart_as_long_as_it_goes():
    devices = box(gpu(0), gpu(1))
    for spread, expected in ((False, [1, 1, 1]), (True, [1, 2, 2])):
        spec, there, used = service(gpu=0.25, spread=spread), [], []
        for tag in "abc":
            given = place(spec, devices, there).reservations
            there.append(Replica(id=tag, service=spec.key, revision="r", phase="ready", reservations=given))
            used.append(len({r.reservations[0].uuid for r in there}))
        assert used == expected


def test_a_set_without_known_links_stays_on_one_numa_node():
    devices = box(*(gpu(n, numa_node=n % 2) for n in range(4)))
    taken = Replica(
        id="x", service="d/x", revision="r", phase="ready", reservations=(Reservation(uuid=gpu(0).uuid),)
    )
    chosen = place(service(gpu=2), devices, [taken])
    assert [r.uuid for r in chosen.reservations] == [gpu(1).uuid, gpu(3).uuid]
    assert "on NUMA node 1" in chosen.reason


@pytest.mark.parametrize(
    ("nodes", "numa", "expected"),
    [
        ((1,), "local", 1),
        ((1, 1), "local", 1),
        ((0, 1), "local", None),
        ((1,), "any", None),
        ((), "local", None),
    ],
)
def test_a_worker_runs_near_its_devices_if_all_are_on_one_node(nodes, numa, expected):
    given = [Reservation(uuid=f"GPU-{n}", numa_node=node) for n, node in enumerate(nodes)]
    assert numa_node_of(Resources(gpu=1, numa=numa), given) == expected
