"""The library itself, the list of devices, their memory, processes and utilization."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pynvml as n

from fakenvml.fakebox import GIB, FakeBox
from fakenvml.scenarios.asking import MIB, fails, gpu, gpus, scenario


@scenario("nodriver")
def no_driver(_: FakeBox) -> None:
    with fails(n.NVML_ERROR_DRIVER_NOT_LOADED):
        n.nvmlInit()


@scenario("none")
def no_gpu(_: FakeBox) -> None:
    n.nvmlInit()
    assert n.nvmlDeviceGetCount() == 0
    with fails(n.NVML_ERROR_INVALID_ARGUMENT):
        gpu(0)
    n.nvmlShutdown()
    with fails(n.NVML_ERROR_UNINITIALIZED):
        n.nvmlDeviceGetCount()


@scenario("8xh100")
def identity(_: FakeBox) -> None:
    handles = gpus(8)
    assert n.nvmlSystemGetDriverVersion() == "580.159.04"
    assert n.nvmlSystemGetCudaDriverVersion() == 13000
    assert n.nvmlDeviceGetCount() == 8
    assert len({n.nvmlDeviceGetUUID(handle) for handle in handles}) == 8
    for index, handle in enumerate(handles):
        uuid, pci = n.nvmlDeviceGetUUID(handle), n.nvmlDeviceGetPciInfo(handle)
        for found in (
            n.nvmlDeviceGetHandleByUUID(uuid),
            n.nvmlDeviceGetHandleByUUIDV(uuid, n.NVML_UUID_TYPE_ASCII),
            n.nvmlDeviceGetHandleByPciBusId(pci.busId),
            n.nvmlDeviceGetHandleByPciBusId(pci.busIdLegacy),
        ):
            assert n.nvmlDeviceGetIndex(found) == index
        assert n.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3"
        assert n.nvmlDeviceGetMinorNumber(handle) == index
        assert n.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
        assert n.nvmlDeviceGetSerial(handle)
    with fails(n.NVML_ERROR_NOT_FOUND):
        n.nvmlDeviceGetHandleByUUID("GPU-nope")


@scenario("8xh100")
def pci_info_ext(_: FakeBox) -> None:
    (handle,) = gpus(1)
    info = n.nvmlPciInfoExt_v1_t()
    info.version = n.nvmlPciInfoExt_v1
    n.nvmlDeviceGetPciInfoExt(handle, n.byref(info))
    assert info.bus == n.nvmlDeviceGetPciInfo(handle).bus


@scenario("1xh100")
def every_symbol_is_there(_: FakeBox) -> None:
    n.nvmlInit()
    for name in Path(__file__).parents[1].joinpath("symbols.txt").read_text().split():
        n._nvmlGetFunctionPointer(name)


@scenario("2xt4")
def bad_state_file_keeps_the_old_one(box: FakeBox) -> None:
    n.nvmlInit()
    with open(box.path, "w") as file:
        file.write("{ broken")
    assert n.nvmlDeviceGetCount() == 2


@scenario("2xt4")
def memory(box: FakeBox) -> None:
    first, _ = gpus(2)
    now = n.nvmlDeviceGetMemoryInfo(first, n.nvmlMemory_v2)
    assert now.total == 15360 * MIB
    assert now.used == 0
    assert now.free + now.reserved == now.total
    plain = n.nvmlDeviceGetMemoryInfo(first)
    assert (plain.used, plain.free) == (now.reserved, now.free), "the old call counts the reserve as used"
    box.proc(0, 4242, 3 * GIB)
    box.proc(0, 77, GIB, kind="G")
    box.proc(0, 78, None)
    assert n.nvmlDeviceGetMemoryInfo(first, n.nvmlMemory_v2).used == 4 * GIB
    box.unproc(4242)
    assert n.nvmlDeviceGetMemoryInfo(first, n.nvmlMemory_v2).used == GIB


@scenario("2xt4")
def processes(box: FakeBox) -> None:
    first, second = gpus(2)
    lists = (
        n.nvmlDeviceGetComputeRunningProcesses,
        n.nvmlDeviceGetGraphicsRunningProcesses,
        n.nvmlDeviceGetMPSComputeRunningProcesses,
    )
    assert [ask(first) for ask in lists] == [[], [], []]
    box.proc(0, 4242, 3 * GIB)
    box.proc(0, 77, GIB, kind="G")
    box.proc(0, 78, None)
    assert {p.pid: p.usedGpuMemory for p in lists[0](first)} == {4242: 3 * GIB, 78: None}
    assert [p.pid for p in n.nvmlDeviceGetComputeRunningProcesses_v2(first)] == [4242, 78]
    assert [p.pid for p in lists[1](first)] == [77]
    assert lists[0](second) == []


@scenario("2xt4")
def process_details_cannot_carry_unknown_memory(box: FakeBox) -> None:
    """A fault of nvidia-ml-py, kept here so that we notice when it goes."""
    first, _ = gpus(2)

    def details() -> list[Any]:
        version, mode = n.nvmlProcessDetailList_v1, n.NVML_PROCESS_MODE_COMPUTE
        return n.nvmlDeviceGetRunningProcessDetailList(first, version, mode)

    box.proc(0, 4242, 3 * GIB)
    assert [(p.pid, p.usedGpuMemory) for p in details()] == [(4242, 3 * GIB)]
    box.proc(0, 78, None)
    try:
        details()
    except TypeError:
        return
    raise AssertionError("nvidia-ml-py has learned it")


@scenario("2xt4")
def dead_processes_vanish(box: FakeBox) -> None:
    first, _ = gpus(2)
    box.proc(0, 2**22 - 7, GIB, reap=True)
    box.proc(0, os.getpid(), GIB, reap=True)
    assert [p.pid for p in n.nvmlDeviceGetComputeRunningProcesses(first)] == [os.getpid()]


@scenario("2xt4")
def utilization(box: FakeBox) -> None:
    _, second = gpus(2)
    box.set(1, util_gpu=73, util_mem=20, util_enc=4)
    rates = n.nvmlDeviceGetUtilizationRates(second)
    assert (rates.gpu, rates.memory) == (73, 20)
    assert n.nvmlDeviceGetEncoderUtilization(second)[0] == 4
    kind, samples = n.nvmlDeviceGetSamples(second, n.NVML_GPU_UTILIZATION_SAMPLES, 0)
    assert kind == n.NVML_VALUE_TYPE_UNSIGNED_INT
    assert {sample.sampleValue.uiVal for sample in samples} == {73}
    box.set(1, util_gpu=None)
    with fails(n.NVML_ERROR_NOT_SUPPORTED):
        n.nvmlDeviceGetUtilizationRates(second)
    box.set(1, power_mw=44000, temperature=66)
    assert n.nvmlDeviceGetPowerUsage(second) == 44000
    assert n.nvmlDeviceGetTemperature(second, 0) == n.nvmlDeviceGetTemperatureV(second, 0) == 66


@scenario("2xt4")
def process_utilization(box: FakeBox) -> None:
    _, second = gpus(2)
    with fails(n.NVML_ERROR_NOT_FOUND):
        n.nvmlDeviceGetProcessUtilization(second, 0)
    box.proc(1, 9, GIB, sm=61)
    assert n.nvmlDeviceGetProcessUtilization(second, 0)[0].smUtil == 61
    assert n.nvmlDeviceGetProcessesUtilizationInfo(second, 0)[0].smUtil == 61
