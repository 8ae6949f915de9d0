"""A process that has imported what a service's replicas need, and forks them. Run as a script, by the
service's own Python, in its environment; uses the standard library alone.

It begins with a socket of records as its output. Each record that it gets is a number, with descriptors as
ancillary data. The first brings a file with JSON (what to import) and a log. It answers with JSON: that it is
ready, or why no replica may be forked from it; then it ends. Each further one is a replica to be made: a file
with the order's JSON, the log, and a gate. The answer is its pid.

A replica is forked twice, so that the daemon, a subreaper, becomes its parent. It makes itself what a fresh
process would be, says so at its gate, and waits there until the daemon has put it where it belongs; an end of
file at the gate is the end. Then it runs the service's command in the place where this script ran. The end
of the daemon is the end of this process, not of those that it made.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.machinery
import io
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import time
import types
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_MM_MAP = struct.Struct("=12QII")
"""`struct prctl_mm_map`: eleven addresses, then no auxiliary vector and no file."""
_READ_WRITE, _PRIVATE_ANONYMOUS = 3, 0x22
_SET_MEMPOLICY = {"x86_64": 238}.get(os.uname().machine, 237)
_MPOL_PREFERRED = 1
_MASK_BITS = 64
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random")
_NOT_INITIALIZED = 3
"""CUDA_ERROR_NOT_INITIALIZED: what libcuda answers as long as nobody has called cuInit."""


def main() -> dict[str, Any] | None:
    """Serve until the daemon is gone, which returns None; in a new replica return its order."""
    link = socket.socket(fileno=os.dup(1))
    _, descriptors = _receive(link)
    if not descriptors:
        return None
    paper, log = descriptors
    wanted = _read(paper)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != wanted["parent"]:
        return None
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = wanted["path"]  # as for the command itself, where this script's folder is now
    own = _descriptors()
    began = time.monotonic()
    gc.disable()
    reason = _prepare(wanted, own)
    if reason:
        link.send(json.dumps({"refused": reason[:1000]}).encode())
        return None
    # What is there now is there in every replica: never looked at by the collector, its pages stay shared.
    gc.collect()
    gc.freeze()
    _flush()
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    os.close(devnull)
    link.send(json.dumps({"ready": round(time.monotonic() - began, 3)}).encode())
    return _serve(link)


def _serve(link: socket.socket) -> dict[str, Any] | None:
    while True:
        number, descriptors = _receive(link)
        if not descriptors:
            return None
        paper, log, gate = descriptors
        order = _read(paper)
        try:
            pid = _fork()
        except OSError as error:
            answer = {"number": number, "pid": 0, "step": "clone", "errno": error.errno or 0}
        else:
            if pid == 0:
                link.close()
                _settle(order, log, socket.socket(fileno=gate))
                return order
            answer = {"number": number, "pid": pid}
        os.close(log)
        os.close(gate)
        link.send(json.dumps(answer).encode())


# --- before the first fork ----------------------------------------------------------------------------------


def _prepare(wanted: dict[str, Any], own: set[int]) -> str:
    """Import the modules; return why this process may not be forked, "" if it may."""
    if not _relocate(_split(_raw("cmdline")), _split(_raw("environ"))):
        return (
            "this kernel does not let a process move its environment (it lacks CONFIG_CHECKPOINT_RESTORE, "
            "or a seccomp profile forbids PR_SET_MM_MAP)"
        )
    for name in wanted["modules"]:
        threads, children = _threads(), _children()
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - the user's code: it may raise, or exit
            return f"{name} cannot be imported: {type(error).__name__}: {error}"
        if _children() - children:
            return f"{name} starts a process when it is imported, which all replicas would share"
        if _threads() - threads and not _ends_at_a_fork(threads):
            words = ", ".join(_thread_names(threads))
            return f"{name} starts threads when it is imported ({words}), and a fork has only one"
    return _cuda_trouble() or _descriptor_trouble(own)


def _threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


def _children() -> set[int]:
    found: set[int] = set()
    for thread in _threads():
        with contextlib.suppress(OSError):
            found.update(map(int, _raw(f"task/{thread}/children").split()))
    return found


def _ends_at_a_fork(before: set[int]) -> bool:
    """Whether the threads that are new since `before` know of forks: they end before one and are started
    again where they are needed, as those of OpenBLAS. Found out by a fork."""
    if threading.active_count() > 1:
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return not _threads() - before


def _thread_names(before: set[int]) -> list[str]:
    """What can be told of the threads that are new: Python's own with the function that they run."""
    python = {one.native_id: f"{one.name} of {_module(one)}" for one in threading.enumerate()}
    found = []
    for thread in sorted(_threads() - before):
        name = python.get(thread, "")
        with contextlib.suppress(OSError):
            name = name or os.fsdecode(_raw(f"task/{thread}/comm")).strip()
        found.append(name or str(thread))
    return found[:5]


def _module(thread: threading.Thread) -> str:
    return str(getattr(getattr(thread, "_target", None), "__module__", type(thread).__module__))


def _cuda_trouble() -> str:
    """Whether CUDA was initialised: no process that was forked afterwards could use it."""
    torch = sys.modules.get("torch")
    asked = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    if asked is not None and asked():
        return "CUDA was initialised (torch.cuda.is_initialized()); a fork cannot use it"
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        mapped = {line.split(None, 5)[-1].strip() for line in file if "/" in line}
    for path in sorted(mapped):
        if path.startswith("/dev/nvidia"):
            return f"CUDA was initialised ({path} is mapped); a fork cannot use it"
        if os.path.basename(path).startswith("libcuda.so"):
            count = ctypes.c_int()
            if ctypes.CDLL(path).cuDeviceGetCount(ctypes.byref(count)) != _NOT_INITIALIZED:
                return "CUDA was initialised (cuInit was called); a fork cannot use it"
    return ""


def _descriptor_trouble(own: set[int]) -> str:
    """Whether the imports left a descriptor open, which all replicas would share."""
    for descriptor in sorted(_descriptors() - own):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("/dev/nvidia"):
            return f"CUDA was initialised ({target} is open); a fork cannot use it"
        if target not in _HARMLESS:
            return f"an import left {target} open (descriptor {descriptor}), which all replicas would share"
    return ""


# --- a replica ----------------------------------------------------------------------------------------------


def _fork() -> int:
    """Fork a grandchild, whose parent ends at once; returns its pid here and 0 in it. Raises OSError."""
    reader, writer = os.pipe()
    try:
        middle = os.fork()
        if middle == 0:
            try:
                pid = os.fork()
            except OSError as error:
                os.write(writer, f"{-(error.errno or 1)}".encode())
                os._exit(1)
            if pid:
                os.write(writer, f"{pid}".encode())
                os._exit(0)
            return 0
        os.close(writer)
        writer = -1
        answer = int(os.read(reader, 20) or b"-11")
        os.waitpid(middle, 0)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer


def _settle(order: dict[str, Any], log: int, gate: socket.socket) -> None:
    """In the replica: be what a fresh process would be, then wait to be let through the gate."""
    step, number = "session", 0
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        for descriptor in _descriptors() - {0, 1, 2, gate.fileno()}:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{descriptor}") not in _HARMLESS:
                    os.close(descriptor)
        step = "chdir"
        os.chdir(order["cwd"])
        step = "limits"
        _place(order["cores"], order["node"])
        if order["umask"] is not None:
            os.umask(order["umask"])
        step = "environment"
        _take_names(order)
        _forget_the_past()
        step = ""
    except OSError as error:
        number = error.errno or 5
    except ValueError:
        number = 22
    gate.send(json.dumps({"step": step, "errno": number}).encode())
    if step or gate.recv(1) != b"+":
        os._exit(127)
    gate.close()


def _place(cores: list[int], node: int | None) -> None:
    """Near the devices; a preference."""
    if cores:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
    if node is not None and 0 <= node < _MASK_BITS - 1:
        mask = ctypes.c_uint64(1 << node)
        _LIBC.syscall(_SET_MEMPOLICY, _MPOL_PREFERRED, ctypes.byref(mask), _MASK_BITS)


def _take_names(order: dict[str, Any]) -> None:
    """Command line and environment, for this program and for those who look at it in /proc."""
    argv = [os.fsencode(word) for word in order["argv"]]
    environ = {os.fsencode(name): os.fsencode(value) for name, value in order["env"].items()}
    if not _relocate(argv, [name + b"=" + value for name, value in environ.items()]):
        raise OSError(ctypes.get_errno(), "prctl")
    # What the interpreter and the imports have set themselves they would have set here.
    for name in _GIVEN.keys() - environ.keys():
        os.environb.pop(name, None)
    os.environb.update({name: value for name, value in environ.items() if _GIVEN.get(name) != value})


def _forget_the_past() -> None:
    """What the imports found out of this process and is different in a replica."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]
    # Python's own generator does this by itself.
    with contextlib.suppress(Exception):
        sys.modules["numpy.random"].seed()
    gc.enable()


def _relocate(argv: list[bytes], environ: list[bytes]) -> bool:
    """Have the kernel show these words as this process's command line and environment, as after an exec. The
    old place is too small for them. Needs no privilege. False: it does not do that; `errno` says why."""
    words, variables = (b"".join(text + b"\0" for text in part) for part in (argv, environ))
    size = len(words) + len(variables)
    _LIBC.mmap.restype = ctypes.c_void_p
    _LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _LIBC.sbrk.restype = ctypes.c_void_p
    begin = _LIBC.mmap(None, size or 1, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)  # for the life of the process
    if begin in (None, ctypes.c_void_p(-1).value):
        return False
    ctypes.memmove(begin, words + variables, size)
    field = _raw("stat").rpartition(b")")[2].split()
    code, end_code, stack = field[23], field[24], field[25]
    data, end_data, heap = field[42], field[43], field[44]
    middle = begin + len(words)
    packed = _MM_MAP.pack(
        *map(int, (code, end_code, data, end_data, heap)),
        _LIBC.sbrk(0),
        int(stack),
        begin,
        middle,
        middle,
        begin + size,
        *(0, 0, 0xFFFFFFFF),
    )
    place = ctypes.create_string_buffer(packed, len(packed))
    zero, length = ctypes.c_ulong(0), ctypes.c_ulong(len(packed))
    return bool(_LIBC.prctl(_PR_SET_MM, ctypes.c_ulong(_PR_SET_MM_MAP), place, length, zero) == 0)


def run(order: dict[str, Any]) -> None:
    """Run the command in this process, as the interpreter would have from the beginning."""
    fresh = types.ModuleType("__main__")
    fresh.__dict__.update(__builtins__=sys.modules["builtins"], __annotations__={})
    sys.modules["__main__"] = fresh
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = order["argv"]
    sys.argv[:] = [order["script"] or "-m", *order["arguments"]]
    if order["module"]:
        sys.modules.pop(order["module"], None)
        runpy._run_module_as_main(order["module"])  # type: ignore[attr-defined]  # noqa: SLF001 - it is what -m does
        return
    path = os.path.abspath(order["script"])
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    fresh.__dict__.update(__file__=path, __loader__=loader, __cached__=None, __spec__=None)
    with io.open_code(path) as file:
        code = loader.source_to_code(file.read(), path)
    exec(code, fresh.__dict__)


# --- small things -------------------------------------------------------------------------------------------


def _receive(link: socket.socket) -> tuple[int, list[int]]:
    """The next record: its number and its descriptors, none at the end."""
    try:
        data, descriptors, _, _ = socket.recv_fds(link, 64, 3)
    except ConnectionResetError:  # the daemon was killed with an answer of ours unread
        return 0, []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its arguments have no names
    return int(data or b"0"), descriptors


def _read(paper: int) -> dict[str, Any]:
    with open(paper, "rb") as file:
        file.seek(0)
        found: dict[str, Any] = json.load(file)
    return found


def _descriptors() -> set[int]:
    """Those that are open; not the one by which this is read."""
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


def _raw(name: str) -> bytes:
    with open(f"/proc/self/{name}", "rb") as file:
        return file.read()


def _split(area: bytes) -> list[bytes]:
    return area.split(b"\0")[:-1]


_GIVEN = dict(entry.partition(b"=")[::2] for entry in _split(_raw("environ")))
"""The environment that this process was started with."""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


if __name__ == "__main__":
    replica = main()
    if replica is None:
        os._exit(0)
    sys.modules["_stoker_template"] = sys.modules["__main__"]
    run(replica)
