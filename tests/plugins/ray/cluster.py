"""A Ray cluster of several nodes on this machine, for as long as standard input lasts: a program of its own.

python cluster.py NODES GPUS      prints the address; then each line `kill N` ends a node, `add` brings one
"""

import json
import os
import sys

FAST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,  # a head that was stopped finds its first question unanswered
}
MEMORY = 80 << 20


def main(nodes: int, gpus: int) -> None:
    from ray.cluster_utils import Cluster

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    common = {"node_ip_address": "127.0.0.1", "object_store_memory": MEMORY}
    head = {**common, "num_cpus": 8, "num_gpus": gpus, "include_dashboard": False, "_system_config": FAST}
    cluster = Cluster(initialize_head=True, head_node_args=head)

    def add() -> None:
        number = len(workers)
        workers.append(
            cluster.add_node(**common, num_cpus=4, num_gpus=gpus, resources={f"node{number}": 100}, wait=True)
        )

    workers: list = []
    for _ in range(nodes):
        add()
    out.write(json.dumps({"address": cluster.address}) + "\n")
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "kill":
            cluster.remove_node(workers[int(rest[0])], allow_graceful=False)
        elif word == "add":
            add()
        out.write(json.dumps({"done": line.strip()}) + "\n")
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
