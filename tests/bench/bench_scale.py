"""What so many replicas cost beside the plan: status, metrics, memory.

    python tests/bench/bench_scale.py [--sizes 10 100 1000 10000] [--rounds 5]

The plan itself is `bench_reconcile.py`'s, which makes the replicas here too. Two shapes: one pool of them,
and one service for each. Milliseconds on a CPU; bytes are allocations that stay (tracemalloc).
  pass         one event folded in, planned and routed, as in `bench_reconcile.py`
  status       GET /v1/status as JSON;  metrics: GET /metrics
  state        bytes per replica of the observed state and its plan's memory
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_reconcile import NOW, Loop, median_ms, there, wanted

from stoker.api.documents import status_document
from stoker.api.facade import Snapshot
from stoker.api.metrics import exposition
from stoker.decide.routing import routing_table


def measure(services: int, each: int, rounds: int) -> dict[str, float]:
    desired = wanted(services, each)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    loop = Loop(desired, there(desired))
    loop.event()
    state = (tracemalloc.get_traced_memory()[0] - before) / (services * each)
    tracemalloc.stop()

    def snapshot() -> Snapshot:
        return Snapshot(
            now=NOW, wall=NOW, pid=1, version="0", started=0.0, state_dir="/", desired=desired,
            observed=loop.observed, routes=routing_table(desired, loop.observed, loop.addresses),
            addresses=dict.fromkeys(desired.services, "http://127.0.0.1:1"),
        )  # fmt: skip

    seen = snapshot()
    return {
        "pass": median_ms(loop.event, rounds)[0],
        "status": median_ms(lambda: json.dumps(status_document(seen)), rounds)[0],
        "metrics": median_ms(lambda: exposition(seen), rounds)[0],
        "state": state,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("shape      replicas   pass ms  status ms  metrics ms  state bytes/replica")
    for size in given.sizes:
        for shape, services, each in (("pool", 1, size), ("services", size, 1)):
            found = measure(services, each, given.rounds)
            print(
                f"{shape:9} {size:9} {found['pass']:9.2f} {found['status']:10.2f} {found['metrics']:11.2f} "
                f"{found['state']:12.0f}"
            )


if __name__ == "__main__":
    main()
