"""The built-in policies, through the same door as strangers'."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.plugin import impl
from stoker.plugin.ports import PolicyFactory
from stoker_policies.concurrency import Concurrency
from stoker_policies.foresight import Foresight
from stoker_policies.peers import Bento, Hpa, Kpa, Ray
from stoker_policies.prometheus import Prometheus
from stoker_policies.queueing import Queue
from stoker_policies.schedule import Schedule
from stoker_policies.static import Static
from stoker_policies.tracking import Gpu, Utilization


@impl
def stoker_policies() -> Mapping[str, PolicyFactory]:
    """Policies by the name that `scaling.policy.metric` uses."""
    return {
        "bento": lambda _: Bento(),
        "concurrency": lambda _: Concurrency(),
        "foresight": lambda _: Foresight(),
        "gpu": lambda _: Gpu(),
        "hpa": lambda _: Hpa(),
        "kpa": lambda _: Kpa(),
        "prometheus": lambda _: Prometheus(),
        "queue": lambda _: Queue(),
        "ray": lambda _: Ray(),
        "schedule": lambda _: Schedule(),
        "static": lambda _: Static(),
        "utilization": lambda _: Utilization(),
    }
