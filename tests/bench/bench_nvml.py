"""What the NVML process costs: memory, CPU, wake-ups; and what other readers see of the same box.

    python tests/bench/bench_nvml.py [--seconds 60] [--presets 8xh100,...] [--readers PYTHON] [--out FILE]

Each preset is a fake box with a process on every GPU. The device source runs its child at the default period
for so many seconds. `--readers` is a Python that has nvitop and gpustat; both are asked about the same box,
and what they show otherwise than Stoker's source is printed ([] is nothing). Prints one line a preset, and
writes JSON. The fake library answers from a file, which costs more CPU than a driver's ioctl.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakenvml.fakebox import FakeBox
from fakenvml.others import disagreements, occupy
from stoker.model.device import Inventory
from stoker.plugin.ports import PluginContext
from stoker_nvidia.source import NvidiaSource

MOST_RSS, MOST_CORE = 40 * 2**20, 0.002


async def cost(box: FakeBox, seconds: float) -> tuple[dict[str, Any], Inventory]:
    """What the child of a source costs over that time, start-up aside; and the inventory it told."""
    environ = {**os.environ, **box.environ}
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    context = PluginContext(instance="bench", state_dir="/", runtime_dir="/", environ=environ)
    told: list[Inventory] = []
    first = anyio.Event()

    def keep(inventory: Inventory) -> None:
        told.append(inventory)
        first.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(NvidiaSource(context).run, keep)
        await first.wait()
        (child,) = (p for p in psutil.Process().children() if "stoker_nvidia.child" in p.cmdline())
        cpu, switches = _cpu(child), child.num_ctx_switches().voluntary
        await anyio.sleep(seconds)
        figures = {
            "rss_mib": round(child.memory_info().rss / 2**20, 1),
            "core_percent": round(100 * (_cpu(child) - cpu) / seconds, 3),
            "wakeups_per_s": round((child.num_ctx_switches().voluntary - switches) / seconds, 2),
            "threads": child.num_threads(),
        }
        tasks.cancel_scope.cancel()
    return figures, told[-1]


def _cpu(process: psutil.Process) -> float:
    """CPU seconds, to the nanosecond: the clock ticks of /proc/PID/stat are too coarse for so little."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def main() -> int:
    """Measure, print, write; returns 1 if a bound is not kept."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--presets", default="8xh100,4xa100,2xt4,a100-mig7,mixed4,1xh100")
    parser.add_argument("--readers", default="")
    parser.add_argument("--out", default="")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for preset in given.presets.split(","):
        with tempfile.TemporaryDirectory() as directory:
            box = FakeBox.preset(preset, Path(directory, "box.json"))
            occupy(box)
            figures, told = anyio.run(cost, box, given.seconds)
            if given.readers:
                figures |= disagreements(box, told, given.readers)
        results[preset] = figures
        sys.stdout.write(f"{preset:10} {json.dumps(figures)}\n")
        sys.stdout.flush()
    if given.out:
        Path(given.out).write_text(json.dumps(results, indent=1) + "\n")
    kept = all(
        figures["rss_mib"] * 2**20 < MOST_RSS and figures["core_percent"] < 100 * MOST_CORE
        for figures in results.values()
    )
    sys.stdout.write(f"under 40 MiB and 0.2 % of a core: {'yes' if kept else 'NO'}\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
