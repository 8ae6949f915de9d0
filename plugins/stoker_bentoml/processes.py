"""Several processes behind one listening socket: what `workers: N` means to BentoML."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
SETTLED = 5.0
"""Seconds a process must have lived for its end to be an accident. One that ends sooner ends them all, so
that the fault is seen where restarts are counted."""


def keep(count: int, run: Callable[[int], None]) -> None:
    """Run that many processes, numbered from 1, until told to end. Raises SystemExit."""
    _import_first()
    living: dict[int, tuple[int, float]] = {}
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True
        for pid in list(living):
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for index in range(1, count + 1):
        living[_fork(index, run)] = index, time.monotonic()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    code = 0
    while living:
        pid, status = os.wait()
        if pid not in living:
            continue
        with_signal = {signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, with_signal)
        index, since = living.pop(pid)
        if not ending and time.monotonic() - since < SETTLED:
            code = os.waitstatus_to_exitcode(status) or 1
            end()
        elif not ending:
            living[_fork(index, run)] = index, time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, with_signal)
    sys.exit(code if code >= 0 else 128 - code)


def _import_first() -> None:
    """Import once what all processes import: they share the memory, and a new one is there at once."""
    for name in ("_bentoml_impl.server.app", "uvicorn"):
        importlib.import_module(name)


def _fork(index: int, run: Callable[[int], None]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if os.getppid() == parent:
            run(index)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:  # noqa: BLE001 - the root of a process: its fault is printed, its code says it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
