"""From inventory to pin: what a worker is told is what CUDA would show it."""

from __future__ import annotations

import os

import pytest

from fakenvml.cuda import visible
from fakenvml.fakebox import GIB, FakeBox
from fakenvml.fixtures import fake_box
from stoker.decide.placement import cuda_environment, place
from stoker.model.replica import Replica
from stoker.model.service import Command, Resources, ServiceSpec
from stoker.plugin.ports import PluginContext
from stoker_nvidia.source import inventory_once

pytestmark = [pytest.mark.anyio, pytest.mark.system]


async def fill(box: FakeBox, **needs) -> tuple[list[Replica], str]:
    """Place replicas until one is refused; also return the refusal."""
    mine = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    context = PluginContext(instance="t", state_dir="/", runtime_dir="/", environ={**mine, **box.environ})
    inventory = await inventory_once(context)
    spec = ServiceSpec(
        deployment="d", name="s", launch=Command(("x",)), working_dir="/", resources=Resources(**needs)
    )
    replicas: list[Replica] = []
    while (placement := place(spec, inventory, replicas)).placed:
        name = f"s-{len(replicas)}"
        replicas.append(Replica(id=name, service="d/s", revision="r", reservations=placement.reservations))
    return replicas, placement.reason


def shown(box: FakeBox, replica: Replica) -> list[str]:
    """UUIDs that CUDA enumerates in the worker of this replica."""
    wanted = cuda_environment(replica.reservations)["CUDA_VISIBLE_DEVICES"]
    return [(instance or device)["uuid"] for device, instance in visible(box.read(), wanted)]


async def test_eight_pinned_replicas_on_eight_gpus_and_the_ninth_waits(tmp_path):
    box = fake_box("8xh100", tmp_path)
    replicas, refusal = await fill(box, gpu=1, gpu_type="h100", gpu_memory=80 * GIB)
    assert sorted(uuid for replica in replicas for uuid in shown(box, replica)) == sorted(box.uuids)
    assert refusal.startswith(
        "needs 1 whole GPU of type h100 with 80Gi: GPU 0 is held by s-0, GPU 1 is held by s-1"
    )


async def test_fours_stay_on_one_socket(tmp_path):
    box = fake_box("8xh100", tmp_path)
    replicas, _ = await fill(box, gpu=4)
    assert [shown(box, replica) for replica in replicas] == [box.uuids[:4], box.uuids[4:]]


async def test_a_lost_gpu_is_left_out(tmp_path):
    box = fake_box("8xh100", tmp_path)
    box.lose(5)
    replicas, refusal = await fill(box, gpu=1)
    assert box.uuids[5] not in {uuid for replica in replicas for uuid in shown(box, replica)}
    assert len(replicas) == 7
    assert "GPU 7 is held by s-2" in refusal, "singles start on the broken four and leave the whole one"


async def test_quarters_fill_one_t4_before_the_next(tmp_path):
    box = fake_box("2xt4", tmp_path)
    replicas, refusal = await fill(box, gpu=0.25, gpu_type="t4")
    assert [shown(box, replica) for replica in replicas] == [[box.uuids[0]]] * 4 + [[box.uuids[1]]] * 4
    assert "has a share of 0 left" in refusal


async def test_seven_mig_instances_for_seven_replicas(tmp_path):
    box = fake_box("a100-mig7", tmp_path)
    replicas, _ = await fill(box, gpu=1, gpu_type="mig.1g.5gb")
    assert len({tuple(shown(box, replica)) for replica in replicas}) == 7
    assert all(uuid.startswith("MIG-") for replica in replicas for uuid in shown(box, replica))
    assert (await fill(box, gpu=2))[0] == []


async def test_the_bridged_pair_among_unlike_cards(tmp_path):
    box = fake_box("mixed4", tmp_path)
    replicas, _ = await fill(box, gpu=2, gpu_type="rtx3090")
    assert [shown(box, replica) for replica in replicas] == [box.uuids[1:3]]


@pytest.mark.parametrize(("preset", "why"), [("none", "shows no GPU"), ("nodriver", "is not loaded")])
async def test_without_gpus_the_refusal_says_why_and_cpu_services_run(preset, why, tmp_path):
    box = fake_box(preset, tmp_path)
    replicas, refusal = await fill(box, gpu=1)
    assert replicas == []
    assert why in refusal
    assert cuda_environment(())["CUDA_VISIBLE_DEVICES"] == ""
    assert visible(box.read(), "") == []
