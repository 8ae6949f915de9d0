"""Whose Xid it was: NVML does not tell, the driver's line in the kernel log mostly does.

    NVRM: Xid (PCI:0000:1e:00): 31, pid=4242, name=python3, Ch 00000008, ...

It is read only when an Xid was reported, and only as far as this process may (root, or a kernel with
`dmesg_restrict` off); without it a fault on a shared GPU has no culprit.
"""

from __future__ import annotations

import os
import re

_XID = re.compile(
    r"NVRM: Xid \(PCI:([0-9a-fA-F]+):([0-9a-fA-F]+):([0-9a-fA-F]+)[^)]*\): (\d+)(?:, pid='?(\d+))?"
)
_LONGEST, _MANY = 8192, 10_000
"""Bytes of a record, and records that are read at a time."""


class KernelLog:
    """What has been logged since it was opened."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            self._descriptor = -1

    def culprits(self) -> dict[tuple[str, int], int]:
        """The pid behind each Xid that was logged since the last call, by the GPU's place on the bus (as
        `place_of` gives it) and number."""
        found: dict[tuple[str, int], int] = {}
        for line in self._new():
            match = _XID.search(line)
            if match and match[5]:
                place = ":".join(part.lower() for part in match.group(1, 2, 3))
                found[place_of(place), int(match[4])] = int(match[5])
        return found

    def _new(self) -> list[str]:
        lines: list[str] = []
        while self._descriptor >= 0 and len(lines) < _MANY:
            try:
                record = os.read(self._descriptor, _LONGEST)
            except BrokenPipeError:  # older records were overwritten before they were read
                continue
            except OSError:  # nothing new
                break
            if not record:
                break
            lines += record.decode(errors="replace").splitlines()
        return lines


def place_of(bus_id: str) -> str:
    """Domain, bus and device of a PCI address in any of the ways in which they are written. Pure."""
    domain, bus, device = bus_id.lower().partition(".")[0].split(":")
    return f"{int(domain, 16):x}:{int(bus, 16):x}:{int(device, 16):x}"
