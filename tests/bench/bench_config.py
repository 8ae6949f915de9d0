"""What a file of many services costs: to check it, and to find the one change in it.

    python tests/bench/bench_config.py [-n 200] [--rounds 10] [--out FILE]

  validate   the file read, merged, checked and made into the wanted state (allowed at 200: 300 ms)
  reload     the same of the file with one service changed, and the plan against N ready replicas, which must
             concern that service alone (allowed at 200: 100 ms)
  check      `stoker check` as a whole process: interpreter, imports, validation

Milliseconds on a CPU and, behind the stroke, by the clock.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from bench_reconcile import NOW, there

from stoker.config.load import changed_keys, load
from stoker.config.sources import ConfigRequest
from stoker.decide.memo import Memo
from stoker.decide.reconcile import reconcile
from stoker.model.state import DesiredState

VALIDATE_MS, RELOAD_MS = 300.0, 100.0


def document(count: int, changed: int | None = None) -> str:
    """A file of so many services with what services have; one with another variable."""
    services = {
        f"s{number}": {
            "command": f"python serve.py --port {{port}} --shard {number}",
            "instance_type": "cpu.small",
            "scaling": {
                "min_replicas": 1,
                "max_replicas": 4,
                "policy": {"metric": "concurrency", "target": 4},
            },
            "traffic": {"concurrency": 4, "timeout": 60},
            "envs": {"MODEL_PATH": f"/models/{number}", "LEVEL": "debug" if number == changed else "info"},
            "probes": {"readiness": {"http": "/readyz", "period": "1s"}},
        }
        for number in range(count)
    }
    return yaml.safe_dump({"name": "bench", "envs": {"ZONE": "a"}, "services": services}, sort_keys=False)


def timed(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median milliseconds on a CPU and by the clock."""
    on_cpu, by_clock = [], []
    for _ in range(rounds):
        cpu, clock = time.thread_time(), time.perf_counter()
        call()
        on_cpu.append((time.thread_time() - cpu) * 1e3)
        by_clock.append((time.perf_counter() - clock) * 1e3)
    return statistics.median(on_cpu), statistics.median(by_clock)


def whole_process(path: Path) -> None:
    subprocess.run([Path(sys.executable).with_name("stoker"), "check", path], check=True, capture_output=True)


def check_ms(path: Path, rounds: int) -> tuple[float, float]:
    """`stoker check`, in the CPU time of the child."""
    on_cpu, by_clock = [], []
    for _ in range(rounds):
        before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        whole_process(path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        on_cpu.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1e3)
        by_clock.append((time.perf_counter() - clock) * 1e3)
    return statistics.median(on_cpu), statistics.median(by_clock)


def read(path: Path) -> DesiredState:
    return load(ConfigRequest(files=(str(path),))).desired


def measure(given: argparse.Namespace) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory(prefix="b-") as directory:
        path, other = Path(directory, "bench.yaml"), Path(directory, "changed.yaml")
        path.write_text(document(given.n))
        other.write_text(document(given.n, changed=given.n // 2))
        before = read(path)
        observed, memo = there(before), Memo()
        assert reconcile(before, observed, NOW, memo=memo).empty

        def reload() -> None:
            after = read(other)
            changed = {key: keys for key, keys in changed_keys(before, after).items() if keys}
            plan = reconcile(after, observed, NOW, memo=memo)
            assert list(changed) == [f"bench/s{given.n // 2}"], changed
            assert {action.service for action in plan.actions} == set(changed), plan

        def validate() -> None:
            read(path)

        return {
            "validate": timed(validate, given.rounds),
            "reload": timed(reload, given.rounds),
            "check": check_ms(path, min(given.rounds, 5)),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "config.json")
    given = parser.parse_args()
    found = measure(given)
    print(f"{given.n} services, medians of {given.rounds}; load {os.getloadavg()[0]:.2f}")
    for name, (cpu, clock) in found.items():
        print(f"  {name:9}{cpu:8.0f} |{clock:6.0f} ms")
    about = {"n": given.n, "python": platform.python_version(), "load": os.getloadavg()[0]}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**about, "ms_on_cpu_and_by_clock": found}, indent=1) + "\n")
    return 1 if found["validate"][0] > VALIDATE_MS or found["reload"][0] > RELOAD_MS else 0


if __name__ == "__main__":
    sys.exit(main())
