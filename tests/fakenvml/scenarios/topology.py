"""How devices are joined, near which CPUs they are, and how MIG cuts them."""

from __future__ import annotations

import os

import pynvml as n

from fakenvml.fakebox import GIB, FakeBox
from fakenvml.scenarios.asking import MIB, fails, gpus, scenario


@scenario("8xh100")
def topology_of_a_switched_board(box: FakeBox) -> None:
    handles = gpus(8)
    first, last = handles[0], handles[7]
    assert n.nvmlDeviceGetTopologyCommonAncestor(first, handles[1]) == n.NVML_TOPOLOGY_NODE
    assert n.nvmlDeviceGetTopologyCommonAncestor(first, handles[5]) == n.NVML_TOPOLOGY_SYSTEM
    assert len(n.nvmlDeviceGetTopologyNearestGpus(first, n.NVML_TOPOLOGY_NODE)) == 3
    assert len(n.nvmlDeviceGetTopologyNearestGpus(first, n.NVML_TOPOLOGY_SYSTEM)) == 7
    box.set(nearest_exact=True)
    assert len(n.nvmlDeviceGetTopologyNearestGpus(first, n.NVML_TOPOLOGY_SYSTEM)) == 4
    assert len(n.nvmlSystemGetTopologyGpuSet(0)) == 4
    assert n.nvmlDeviceGetP2PStatus(first, last, n.NVML_P2P_CAPS_INDEX_NVLINK) == n.NVML_P2P_STATUS_OK
    box.set(7, nvlink={"switch": True, "links": 18, "down": list(range(18))})
    status = n.nvmlDeviceGetP2PStatus(first, last, n.NVML_P2P_CAPS_INDEX_NVLINK)
    assert status == n.NVML_P2P_STATUS_NOT_SUPPORTED


@scenario("8xh100")
def nvlinks_of_a_switched_board(_: FakeBox) -> None:
    (first,) = gpus(1)
    assert n.nvmlDeviceGetNvLinkState(first, 17) == 1
    with fails(n.NVML_ERROR_INVALID_ARGUMENT):
        n.nvmlDeviceGetNvLinkState(first, 18)
    assert n.nvmlDeviceGetNvLinkRemoteDeviceType(first, 0) == n.NVML_NVLINK_DEVICE_TYPE_SWITCH
    assert n.nvmlDeviceGetNvLinkVersion(first, 0) == 6
    (links,) = n.nvmlDeviceGetFieldValues(first, [n.NVML_FI_DEV_NVLINK_LINK_COUNT])
    assert links.value.uiVal == 18


@scenario("mixed4")
def topology_of_unlike_cards(_: FakeBox) -> None:
    handles = gpus(4)
    assert n.nvmlDeviceGetTopologyCommonAncestor(handles[1], handles[2]) == n.NVML_TOPOLOGY_SINGLE
    remote = n.nvmlDeviceGetNvLinkRemotePciInfo(handles[1], 0)
    assert remote.busId == n.nvmlDeviceGetPciInfo(handles[2]).busId
    assert [n.nvmlDeviceGetP2PStatus(handles[1], other, 2) for other in handles[2:]] == [0, 5]
    for ask, handle in (
        (lambda handle: n.nvmlDeviceGetNvLinkState(handle, 0), handles[3]),
        (n.nvmlDeviceGetMigMode, handles[0]),
        (n.nvmlDeviceGetEccMode, handles[3]),
    ):
        with fails(n.NVML_ERROR_NOT_SUPPORTED):
            ask(handle)


@scenario("8xh100")
def affinity(box: FakeBox) -> None:
    handles = gpus(8)
    words = n.nvmlDeviceGetCpuAffinity(handles[0], 3)
    assert list(words) == [(1 << 48) - 1, ((1 << 32) - 1) << 32, 0xFFFF]
    socket = n.nvmlDeviceGetCpuAffinityWithinScope(handles[4], 3, n.NVML_AFFINITY_SCOPE_SOCKET)
    assert socket[0] == 0xFFFF << 48
    assert n.nvmlDeviceGetMemoryAffinity(handles[4], 1, 0)[0] == 2
    with fails(n.NVML_ERROR_NOT_SUPPORTED):
        n.nvmlDeviceGetNumaNodeId(handles[0])
    box.set(7, gpu_numa_node=9)
    assert n.nvmlDeviceGetNumaNodeId(handles[7]) == 9


@scenario("1xh100")
def setting_affinity_is_real(box: FakeBox) -> None:
    (handle,) = gpus(1)
    allowed = os.sched_getaffinity(0)
    one = min(allowed)
    box.set(0, cpus=str(one))
    n.nvmlDeviceSetCpuAffinity(handle)
    assert os.sched_getaffinity(0) == {one}
    n.nvmlDeviceClearCpuAffinity(handle)
    assert os.sched_getaffinity(0) >= allowed


@scenario("a100-mig7")
def mig_identity(_: FakeBox) -> None:
    (parent,) = gpus(1)
    assert n.nvmlDeviceGetMigMode(parent) == [1, 1]
    assert n.nvmlDeviceGetMaxMigDeviceCount(parent) == 7
    for ask in (n.nvmlDeviceGetUtilizationRates, n.nvmlDeviceGetRemappedRows):
        with fails(n.NVML_ERROR_NOT_SUPPORTED):
            ask(parent)
    with fails(n.NVML_ERROR_INVALID_ARGUMENT):
        n.nvmlDeviceGetMigDeviceHandleByIndex(parent, 7)
    fourth = n.nvmlDeviceGetMigDeviceHandleByIndex(parent, 3)
    uuid = n.nvmlDeviceGetUUID(fourth)
    assert uuid.startswith("MIG-")
    assert n.nvmlDeviceGetName(fourth) == "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    assert (n.nvmlDeviceGetGpuInstanceId(fourth), n.nvmlDeviceGetComputeInstanceId(fourth)) == (10, 0)
    found = n.nvmlDeviceGetHandleByUUID(uuid)
    assert (n.nvmlDeviceIsMigDeviceHandle(found).value, n.nvmlDeviceIsMigDeviceHandle(parent).value) == (1, 0)
    back = n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(found)
    assert n.nvmlDeviceGetUUID(back) == n.nvmlDeviceGetUUID(parent)
    legacy = n.nvmlDeviceGetHandleByUUID(f"MIG-{n.nvmlDeviceGetUUID(parent)}/10/0")
    assert n.nvmlDeviceGetUUID(legacy) == uuid


@scenario("a100-mig7")
def mig_memory_and_processes(box: FakeBox) -> None:
    (parent,) = gpus(1)
    fourth = n.nvmlDeviceGetMigDeviceHandleByIndex(parent, 3)
    assert n.nvmlDeviceGetMemoryInfo(fourth).total == 4864 * MIB
    assert n.nvmlDeviceGetAttributes(fourth).memorySizeMB == 4864
    box.proc(0, 5, GIB, gi=10)
    box.proc(0, 6, GIB, gi=11)
    inside = n.nvmlDeviceGetComputeRunningProcesses(fourth)
    assert [(p.pid, p.gpuInstanceId) for p in inside] == [(5, 10)]
    assert len(n.nvmlDeviceGetComputeRunningProcesses(parent)) == 2
    assert n.nvmlDeviceGetMemoryInfo(fourth).used == GIB + 13 * MIB
    assert n.nvmlDeviceGetMemoryInfo(parent, n.nvmlMemory_v2).used == 2 * GIB + 7 * 13 * MIB


@scenario("a100-mig7")
def mig_instance_destroyed(box: FakeBox) -> None:
    (parent,) = gpus(1)
    fourth = n.nvmlDeviceGetMigDeviceHandleByIndex(parent, 3)
    uuid = n.nvmlDeviceGetUUID(fourth)
    with box.edit() as state:
        state["devices"][0]["mig"]["instances"].pop(3)
    with fails(n.NVML_ERROR_INVALID_ARGUMENT):
        n.nvmlDeviceGetMemoryInfo(fourth)
    with fails(n.NVML_ERROR_NOT_FOUND):
        n.nvmlDeviceGetMigDeviceHandleByIndex(parent, 3)
    with fails(n.NVML_ERROR_NOT_FOUND):
        n.nvmlDeviceGetHandleByUUID(uuid)
