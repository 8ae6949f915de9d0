"""What nvitop and gpustat see of the box that this process sees, as JSON; for a Python that has both.

Rows of [uuid, name, MiB of memory, pids]; nvitop has a row for each MIG instance, without a name.
"""

from __future__ import annotations

import json
import sys


def by_nvitop() -> list[list[object]]:
    """Through nvitop's own device classes."""
    from nvitop import Device, MigDevice, NotApplicable

    rows: list[list[object]] = []
    for device in Device.all():
        parts = device.mig_devices() if device.is_mig_mode_enabled() else [device]
        for part in parts:
            name = part.name() if not isinstance(part, MigDevice) else None
            total = part.memory_total()
            size = None if total is NotApplicable else total // 2**20
            rows.append([part.uuid(), name, size, sorted(part.processes())])
    return rows


def by_gpustat() -> list[list[object]]:
    """Through gpustat's query."""
    from gpustat import new_query

    return [
        [gpu.uuid, gpu.name, gpu.memory_total, sorted(p["pid"] for p in gpu.processes or ())]
        for gpu in new_query().gpus
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"nvitop": by_nvitop(), "gpustat": by_gpustat()}))
