"""A little of the CUDA driver API by ctypes: enough to sit on a device, take memory, and do wrong. It needs
the driver's own library and nothing else."""

from __future__ import annotations

import ctypes
import uuid

_BAD_STORE = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry bad()
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    mov.u64 %rd1, 16;
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
"""


class CudaError(RuntimeError):
    """A call that was not answered with success."""


class Cuda:
    """The first visible device, through its primary context. Raises CudaError, OSError without a driver."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", ctypes.c_uint(0))
        count, device = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        raw = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetUuid", raw, device)
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self.count = count.value
        self.uuid = f"GPU-{uuid.UUID(bytes=bytes(raw))}"

    def take(self, size: int) -> None:
        """Allocate so many bytes and touch them."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), ctypes.c_size_t(size))
        self._call("cuCtxSynchronize")

    def misbehave(self) -> None:
        """Write where nothing is mapped: the driver reports an Xid, and the context is of no use any more."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(_BAD_STORE))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(b"bad"))
        ones = [ctypes.c_uint(1)] * 6
        self._call("cuLaunchKernel", function, *ones, ctypes.c_uint(0), None, None, None)
        self._call("cuCtxSynchronize")

    def _call(self, name: str, *args: object) -> None:
        code = getattr(self._library, name)(*args)
        if code:
            raise CudaError(f"{name} answers {code}")
