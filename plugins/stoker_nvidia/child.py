"""The process that talks to the driver: one line in, one line of JSON out, until standard input ends. The
line says for how many seconds it may wait for a single GPU.

It is apart from the daemon because a call into a sick driver may hang or crash, and because a library
stays mapped until its process ends, so that only a new process can follow a driver upgrade.

    python -m stoker_nvidia.child           # serve: each line on stdin is answered with a report
    python -m stoker_nvidia.child --once    # print one report

STOKER_KERNEL_LOG names a file to read in place of /dev/kmsg.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
ONCE = 20.0
"""Seconds that a GPU may take where there is only one question: it may have to wake up."""


def main(argv: list[str]) -> int:
    """Serve, or answer once."""
    once = argv == ["--once"]
    if argv and not once:
        sys.stderr.write("usage: python -m stoker_nvidia.child [--once]\n")
        return 2
    if not once:
        _die_with_parent()
    from stoker_nvidia.kernel_log import KernelLog
    from stoker_nvidia.nvml import PATIENCE, Reader

    reader = Reader(KernelLog(os.environ.get("STOKER_KERNEL_LOG", "/dev/kmsg")))
    while line := str(ONCE) if once else sys.stdin.readline():
        report = reader.report(float(line) if line.strip() else PATIENCE)
        sys.stdout.write(json.dumps(report, separators=(",", ":")) + "\n")
        sys.stdout.flush()
        if once:
            break
    reader.close()
    return 0


def _die_with_parent() -> None:
    """The end of standard input is noticed only between two calls; one that hangs needs the signal."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
