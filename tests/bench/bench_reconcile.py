"""What deciding costs: the pass of config, plan and routing table, and the memory of a replica.

    python tests/bench/bench_reconcile.py [--sizes 10 100 1000 10000] [--rounds 20] [--out FILE]

Two shapes of so many ready replicas: one pool of them, and one service for each. Milliseconds on a CPU:
  config       the file read, checked and made into the wanted state (only up to `--config-limit` services)
  cold         a plan without anything remembered (a daemon's first look, `stoker plan`)
  quiet        a plan of the loop when nothing happened
  pass         one event folded in, the plan of the loop, the routing table: what each event costs
  routes       a routing table without anything remembered
The pass at 10,000 replicas may take 50 ms and a replica 10 KiB.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from stoker.config.load import load
from stoker.config.sources import ConfigRequest
from stoker.decide.lifecycle import fold
from stoker.decide.memo import Memo
from stoker.decide.reconcile import reconcile
from stoker.decide.routing import routing_table
from stoker.model.event import ReplicaBecameReady, ReplicaBecameUnready
from stoker.model.replica import Replica, WorkerHandle
from stoker.model.service import Command, Scaling, ServiceSpec, revision
from stoker.model.state import DesiredState, ObservedState

ALLOWED_MS, ALLOWED_BYTES = 50.0, 10 * 1024
NOW = 1000.0


def wanted(services: int, each: int) -> DesiredState:
    """So many services of so many replicas."""
    specs = [
        ServiceSpec(
            deployment="bench",
            name=f"s{number}",
            launch=Command(("serve", "--port", "{port}")),
            working_dir="/",
            scaling=Scaling(min_replicas=each, max_replicas=each),
            envs=(("MODEL_PATH", f"/models/{number}"),),
        )
        for number in range(services)
    ]
    return DesiredState(services={spec.key: spec for spec in specs}, generation=1)


def there(desired: DesiredState) -> ObservedState:
    """All of them ready."""
    replicas = {}
    for spec in desired.services.values():
        for number in range(spec.scaling.min_replicas):
            name = f"{spec.name}-{number}"
            replicas[name] = Replica(
                id=name, service=spec.key, revision=revision(spec), phase="ready", created=float(number),
                started=1.0, ready_at=2.0, endpoint=f"127.0.0.1:{20000 + len(replicas) % 10000}",
                reason="running; no probe is declared", cause=f"e{len(replicas)}",
                handle=WorkerHandle(driver="process", pid=len(replicas) + 2, start_time=len(replicas),
                                    boot_id="b", extra=(("log", f"/var/lib/stoker/logs/{name}.log"),)),
            )  # fmt: skip
    return ObservedState(replicas=replicas)


def median_ms(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median and 95th percentile, in time on a CPU: nothing here waits, and the machine may be busy."""
    took = []
    for _ in range(rounds):
        began = time.thread_time()
        call()
        took.append((time.thread_time() - began) * 1e3)
    return statistics.median(took), statistics.quantiles(took, n=20)[-1]


def config_ms(services: int, each: int, rounds: int) -> float:
    """The whole way from the file to the wanted state."""
    section = {"command": ["serve"], "scaling": {"min_replicas": each, "max_replicas": each}}
    with tempfile.TemporaryDirectory(prefix="b-") as directory:
        path = Path(directory, "stoker.yaml")
        text = json.dumps(
            {"name": "bench", "services": {f"s{n}": section for n in range(services)}}, indent=1
        )
        path.write_text(text)
        return median_ms(lambda: load(ConfigRequest(files=(str(path),))), max(2, min(rounds, 5)))[0]


class Loop:
    """The deciding part of the control loop."""

    def __init__(self, desired: DesiredState, observed: ObservedState) -> None:
        self.desired, self.observed = desired, observed
        self.memo = Memo()
        self.addresses = {key: ("127.0.0.1", number) for number, key in enumerate(desired.services)}
        self._events = cycle((self._unready, self._ready))
        self._victims = cycle(observed.replicas.values())
        self.step()

    def _unready(self) -> ReplicaBecameUnready:
        self._victim = next(self._victims)
        return ReplicaBecameUnready(
            replica=self._victim.id, service=self._victim.service, at=NOW, reason="probe failed"
        )

    def _ready(self) -> ReplicaBecameReady:
        return ReplicaBecameReady(replica=self._victim.id, service=self._victim.service, at=NOW)

    def event(self) -> None:
        """One event and all that follows from it."""
        self.observed = fold(self.observed, next(self._events)(), self.desired)
        self.step()

    def step(self) -> None:
        plan = reconcile(self.desired, self.observed, NOW, memo=self.memo)
        assert plan.empty
        found = self.memo.pools
        routing_table(self.desired, self.observed, self.addresses, found=found, memo=self.memo.routes)

    def quiet(self) -> None:
        reconcile(self.desired, self.observed, NOW, memo=self.memo)

    def cold(self) -> None:
        reconcile(self.desired, self.observed, NOW)

    def routes(self) -> None:
        routing_table(self.desired, self.observed, self.addresses)


def measure(services: int, each: int, given: argparse.Namespace) -> dict[str, float]:
    desired = wanted(services, each)
    gc.collect()
    tracemalloc.start()
    loop = Loop(desired, there(desired))
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] / (services * each)
    tracemalloc.stop()
    found: dict[str, float] = {"bytes_per_replica": size}
    if services <= given.config_limit:
        found["config_ms"] = config_ms(services, each, given.rounds)
    for name, call in (
        ("cold", loop.cold),
        ("quiet", loop.quiet),
        ("pass", loop.event),
        ("routes", loop.routes),
    ):
        found[f"{name}_ms"], found[f"{name}_ms_p95"] = median_ms(call, given.rounds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--config-limit", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reconcile.json")
    given = parser.parse_args()
    results = {}
    for size in given.sizes:
        for shape, services, each in (("pool", 1, size), ("services", size, 1)):
            found = results[f"{shape}-{size}"] = measure(services, each, given)
            cells = (f"{name} {value:.2f}" for name, value in found.items() if not name.endswith("p95"))
            print(f"{shape:>9} {size:>6}  {'  '.join(cells)}  (pass p95 {found['pass_ms_p95']:.2f})")
    about = {"python": platform.python_version(), "load": os.getloadavg()[0]}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    late = [name for name, found in results.items() if found["pass_ms"] > ALLOWED_MS]
    big = [
        name
        for name, found in results.items()
        if name.endswith("0000") and found["bytes_per_replica"] > ALLOWED_BYTES
    ]
    return 1 if late or big else 0


if __name__ == "__main__":
    sys.exit(main())
