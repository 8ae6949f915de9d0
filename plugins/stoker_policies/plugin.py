"""The built-in policies, through the same door as strangers'."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.plugin import impl
from stoker.plugin.ports import PolicyFactory
from stoker_policies.concurrency import Concurrency
from stoker_policies.queueing import Queue
from stoker_policies.static import Static
from stoker_policies.tracking import Gpu, Utilization


@impl
def stoker_policies() -> Mapping[str, PolicyFactory]:
    """Policies by the name that `scaling.policy.metric` uses."""
    return {
        "concurrency": lambda _: Concurrency(),
        "gpu": lambda _: Gpu(),
        "queue": lambda _: Queue(),
        "static": lambda _: Static(),
        "utilization": lambda _: Utilization(),
    }
