"""Health, events, faults, old and new drivers, and what CUDA makes of it all."""

from __future__ import annotations

import os
import tempfile
import threading
import time

import pynvml as n

from fakenvml.cuda import cuda_alloc, visible
from fakenvml.fakebox import DOUBLE_BIT_ECC, GIB, SINGLE_BIT_ECC, FakeBox
from fakenvml.scenarios.asking import fails, gpu, gpus, scenario


@scenario("a100-mig7")
def events(box: FakeBox) -> None:
    (handle,) = gpus(1)
    box.xid(0, 31)  # before the registration: not recorded
    waiting = n.nvmlEventSetCreate()
    with fails(n.NVML_ERROR_NOT_SUPPORTED):
        n.nvmlDeviceRegisterEvents(handle, 1 << 40, waiting)
    wanted = n.nvmlEventTypeXidCriticalError | n.nvmlEventTypeDoubleBitEccError
    n.nvmlDeviceRegisterEvents(handle, wanted & n.nvmlDeviceGetSupportedEventTypes(handle), waiting)
    begun = time.monotonic()
    with fails(n.NVML_ERROR_TIMEOUT):
        n.nvmlEventSetWait(waiting, 150)
    assert 0.1 < time.monotonic() - begun < 1
    threading.Timer(0.1, lambda: box.xid(0, 79, gi=8, ci=0)).start()
    event = n.nvmlEventSetWait(waiting, 5000)
    assert (event.eventType, event.eventData, event.gpuInstanceId, event.computeInstanceId) == (8, 79, 8, 0)
    assert n.nvmlDeviceGetUUID(event.device) == n.nvmlDeviceGetUUID(handle)
    box.event(0, SINGLE_BIT_ECC)  # not asked for
    box.event(0, DOUBLE_BIT_ECC, 7)
    event = n.nvmlEventSetWait(waiting, 1000)
    assert (event.eventType, event.gpuInstanceId) == (DOUBLE_BIT_ECC, 0xFFFFFFFF)
    n.nvmlEventSetFree(waiting)
    with fails(n.NVML_ERROR_INVALID_ARGUMENT):
        n.nvmlEventSetWait(waiting, 50)


@scenario("2xt4")
def waiting_holds_neither_the_gil_nor_the_lock(_: FakeBox) -> None:
    first, _second = gpus(2)
    waiting = n.nvmlEventSetCreate()
    n.nvmlDeviceRegisterEvents(first, 8, waiting)

    def wait() -> None:
        with fails(n.NVML_ERROR_TIMEOUT):
            n.nvmlEventSetWait(waiting, 500)

    thread = threading.Thread(target=wait)
    thread.start()
    calls = 0
    while thread.is_alive():
        n.nvmlDeviceGetUtilizationRates(first)
        calls += 1
    assert calls > 100, calls


@scenario("8xh100")
def ecc_and_remapped_rows(box: FakeBox) -> None:
    handle = gpus(3)[2]
    assert n.nvmlDeviceGetEccMode(handle) == [1, 1]
    box.set(2, ecc_errors={"uncorrected": 2, "aggregate_uncorrected": 5}, recovery_action=4)
    box.set(2, remapped_rows={"uncorrectable": 1, "pending": 1})
    total = n.nvmlDeviceGetTotalEccErrors
    assert total(handle, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC) == 2
    assert total(handle, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_AGGREGATE_ECC) == 5
    assert total(handle, n.NVML_MEMORY_ERROR_TYPE_CORRECTED, n.NVML_VOLATILE_ECC) == 0
    assert n.nvmlDeviceGetMemoryErrorCounter(handle, 1, 0, n.NVML_MEMORY_LOCATION_DRAM) == 2
    assert n.nvmlDeviceGetRemappedRows(handle) == (0, 1, 1, 0)
    assert n.nvmlDeviceGetRowRemapperHistogram(handle).max == 639
    (action,) = n.nvmlDeviceGetFieldValues(handle, [n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    assert action.value.uiVal == n.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET
    with fails(n.NVML_ERROR_NOT_SUPPORTED):
        n.nvmlDeviceGetRetiredPages(handle, 0)


@scenario("2xt4")
def retired_pages(box: FakeBox) -> None:
    first, _ = gpus(2)
    assert n.nvmlDeviceGetRetiredPages(first, 1) == []
    with fails(n.NVML_ERROR_NOT_SUPPORTED):
        n.nvmlDeviceGetRemappedRows(first)
    box.set(0, retired_pages={"dbe": [4096, 8192], "pending": 1})
    assert n.nvmlDeviceGetRetiredPages(first, 1) == [4096, 8192]
    assert n.nvmlDeviceGetRetiredPages_v2(first, 1)[1]["address"] == 8192
    assert n.nvmlDeviceGetRetiredPagesPendingStatus(first) == 1


@scenario("8xh100")
def lost_gpu(box: FakeBox) -> None:
    handles = gpus(8)
    uuid = n.nvmlDeviceGetUUID(handles[4])
    box.lose(3)
    assert n.nvmlDeviceGetCount() == 8
    with fails(n.NVML_ERROR_GPU_IS_LOST):
        gpu(3)
    with fails(n.NVML_ERROR_GPU_IS_LOST):
        n.nvmlDeviceGetMemoryInfo(handles[3])
    n.nvmlDeviceGetMemoryInfo(handles[4])
    n.nvmlDeviceGetHandleByUUID(uuid)
    box.set(uuid_lookup_fails_if_any_lost=True)
    with fails(n.NVML_ERROR_GPU_IS_LOST):
        n.nvmlDeviceGetHandleByUUID(uuid)
    box.lose(3, lost=False)
    n.nvmlDeviceGetMemoryInfo(handles[3])


@scenario("8xh100")
def removed_gpu(box: FakeBox) -> None:
    handles = gpus(8)
    box.remove(0)
    assert n.nvmlDeviceGetCount() == 7
    with fails(n.NVML_ERROR_GPU_IS_LOST):
        n.nvmlDeviceGetName(handles[0])
    assert n.nvmlDeviceGetUUID(gpu(0)) == n.nvmlDeviceGetUUID(handles[1])


@scenario("8xh100")
def injected_errors(box: FakeBox) -> None:
    handles = gpus(8)
    box.error("nvmlDeviceGetUtilizationRates", "NOT_SUPPORTED", dev=2)
    with fails(n.NVML_ERROR_NOT_SUPPORTED):
        n.nvmlDeviceGetUtilizationRates(handles[2])
    n.nvmlDeviceGetUtilizationRates(handles[1])
    box.error("nvmlDeviceGetHandleBy*", "NO_PERMISSION", dev=2)
    with fails(n.NVML_ERROR_NO_PERMISSION):
        gpu(2)
    box.error("nvmlDeviceGetMemoryInfo*", 999)
    with fails(n.NVML_ERROR_UNKNOWN):
        n.nvmlDeviceGetMemoryInfo(handles[1])
    box.error("nvmlDeviceGetMemoryInfo*", None)
    n.nvmlDeviceGetMemoryInfo(handles[1])


@scenario("2xt4")
def hanging_call(box: FakeBox) -> None:
    _, second = gpus(2)
    box.hang("nvmlDeviceGetTemperature", 200, dev=1)
    begun = time.monotonic()
    n.nvmlDeviceGetTemperature(second, 0)
    assert time.monotonic() - begun > 0.19


@scenario("2xt4")
def hanging_call_is_let_go(box: FakeBox) -> None:
    first, second = gpus(2)
    box.hang("nvmlDevice*", 60_000, dev=1)
    done = []

    def ask_second() -> None:
        done.append(n.nvmlDeviceGetTemperature(second, 0))
        done.append(n.nvmlDeviceGetHandleByIndex(1))

    thread = threading.Thread(target=ask_second)
    thread.start()
    assert n.nvmlDeviceGetTemperature(first, 0), "a GPU that hangs does not hold up the other"
    assert n.nvmlDeviceGetHandleByIndex(0)
    assert not done
    box.hang("nvmlDevice*", None, dev=1)
    thread.join(timeout=20)
    assert len(done) == 2


@scenario("2xt4")
def driver_unloaded_and_upgraded(box: FakeBox) -> None:
    n.nvmlInit()
    box.driver(loaded=False)
    with fails(n.NVML_ERROR_DRIVER_NOT_LOADED):
        n.nvmlDeviceGetCount()
    with fails(n.NVML_ERROR_DRIVER_NOT_LOADED):
        n.nvmlInit()
    box.driver(loaded=True)
    n.nvmlInit()
    assert n.nvmlDeviceGetCount() == 2
    box.driver(loaded=False, code="LIB_RM_VERSION_MISMATCH")
    with fails(n.NVML_ERROR_LIB_RM_VERSION_MISMATCH):
        n.nvmlInit()


@scenario("2xt4", old=True)
def old_driver(box: FakeBox) -> None:
    first, _ = gpus(2)
    box.proc(0, 5, GIB)
    assert not issubclass(n.NVMLLibraryMismatchError, n.NVMLError), "a trap that is gone"
    try:
        n.nvmlDeviceGetComputeRunningProcesses(first)
    except n.NVMLLibraryMismatchError:
        pass
    else:
        raise AssertionError("the old library has the new symbol")
    assert [p.pid for p in n.nvmlDeviceGetComputeRunningProcesses_v2(first)] == [5]
    with fails(n.NVML_ERROR_FUNCTION_NOT_FOUND):
        n.nvmlDeviceGetMemoryInfo(first, n.nvmlMemory_v2)
    assert n.nvmlDeviceGetMemoryInfo(first).total


@scenario("1xh100")
def memory_limits_of_a_new_driver(box: FakeBox) -> None:
    (handle,) = gpus(1)
    with tempfile.TemporaryDirectory() as cgroup:
        limits, found = n.c_nvmlSetMemoryLimits_v1_t(), n.c_nvmlGetMemoryLimits_v1_t()
        limits.nameSpace = found.nameSpace = cgroup.encode()
        limits.softLimit, limits.hardLimit = 8 * GIB, 10 * GIB
        with fails(n.NVML_ERROR_FUNCTION_NOT_FOUND):
            n.nvmlDeviceSetMemoryLimits_v1(handle, limits)
        box.set(memory_limits=True, memory_limits_any_user=True)
        n.nvmlDeviceSetMemoryLimits_v1(handle, limits)
        box.proc(0, 7, 3 * GIB, cgroup=cgroup)
        box.proc(0, 8, 5 * GIB)
        n.nvmlDeviceGetMemoryLimits_v1(handle, found)
        assert (found.softLimit, found.hardLimit, found.currentUsed) == (8 * GIB, 10 * GIB, 3 * GIB)
        cuda_alloc(box.path, 6 * GIB, pid=9, cgroup=cgroup)
        try:
            cuda_alloc(box.path, 2 * GIB, pid=9, cgroup=cgroup)
        except MemoryError:
            limits.softLimit, limits.hardLimit = 0, n.NVML_DEVICE_MEMORY_LIMIT_MAX
        n.nvmlDeviceSetMemoryLimits_v1(handle, limits)
        cuda_alloc(box.path, 2 * GIB, pid=9, cgroup=cgroup)
        limits.nameSpace = b"/nonexistent/cgroup"
        with fails(n.NVML_ERROR_INVALID_ARGUMENT):
            n.nvmlDeviceSetMemoryLimits_v1(handle, limits)


@scenario("mixed4")
def cuda_visible_devices(box: FakeBox) -> None:
    state, uuids = box.read(), box.uuids

    def seen(wanted: str | None) -> list[int]:
        return [state["devices"].index(device) for device, _ in visible(state, wanted)]

    assert seen(None) == [0, 1, 2, 3]
    assert seen("2,1") == [2, 1]
    assert seen("0,2,-1,1") == [0, 2]
    assert seen("") == []
    assert seen(f"{uuids[3]},{uuids[1]}") == [3, 1]
    assert seen(uuids[3][:12]) == [3]
    assert seen("GPU-zz,1") == []
    assert seen("0,1,0") == []
    assert seen(f"0,{uuids[1]}") == [0]


@scenario("mixed4")
def cuda_memory(box: FakeBox) -> None:
    n.nvmlInit()
    fourth = box.uuids[3]
    os.environ["CUDA_VISIBLE_DEVICES"] = fourth
    assert cuda_alloc(box.path, GIB) == fourth
    handle = n.nvmlDeviceGetHandleByUUID(fourth)
    assert [p.pid for p in n.nvmlDeviceGetComputeRunningProcesses(handle)] == [os.getpid()]
    try:
        cuda_alloc(box.path, 100 * GIB)
    except MemoryError:
        return
    raise AssertionError("more memory than there is")
