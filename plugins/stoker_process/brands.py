"""What a process of a worker cannot take off by mistake: a brand, where there is no cgroup to hold its tree.

It is a limit on file locks, which the kernel hands on over fork, exec and new sessions and has made no use of
since 2.4: its number says whose worker's the process is. An environment does not do: `env -i` leaves the mark
in it behind, and programs that set their title write over it.
"""

from __future__ import annotations

import hashlib
import resource
from contextlib import suppress

_LOCKS = 10
"""RLIMIT_LOCKS; Python has no name for it."""
_LINE = b"Max file locks"


def number(mark: str) -> int:
    """The brand of the worker with that mark: 62 bits of its hash. Pure."""
    return int.from_bytes(hashlib.sha256(mark.encode()).digest()[:8], "big") >> 2


def limits(mark: str) -> tuple[tuple[int, int], ...]:
    """What to limit in a process that is to be made, as pairs of rlimit and value; () where that is not ours
    to set: we are somebody's branded process ourselves."""
    free = resource.getrlimit(_LOCKS)[1] == resource.RLIM_INFINITY
    return ((_LOCKS, number(mark)),) if free else ()


def put_on(pid: int, mark: str) -> None:
    """Brand a child of ours, and what it forks from now on."""
    for kind, value in limits(mark):
        with suppress(OSError, ValueError):  # another's by now, and we may not: its mark has to do
            resource.prlimit(pid, kind, (value, value))


def has(pid: int, mark: str) -> bool:
    """Whether that process is branded as the worker's with this mark."""
    try:
        with open(f"/proc/{pid}/limits", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return False
    line = next((line for line in text.splitlines() if line.startswith(_LINE)), b"")
    return line.removeprefix(_LINE).split()[:1] == [b"%d" % number(mark)]
