"""What this plugin brings: the `slurm` driver, and what it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from stoker.errors import PluginError
from stoker.model.service import Resources, ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, Shortfalls, WorkerDriver, WorkerDriverFactory

NEEDED = ("sbatch", "squeue", "scancel", "srun", "scontrol")


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """Workers as jobs of a Slurm cluster."""
    return {"slurm": _make}


@impl
def stoker_driver_shortfalls() -> Mapping[str, Shortfalls]:
    """What a worker on another node cannot have."""
    return {"slurm": shortfalls}


def shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    """Pure."""
    resources = spec.elsewhere.resources if spec.elsewhere is not None else Resources()
    probe = spec.probes.startup
    found = {
        "probes.startup.notify": (
            probe is not None and probe.notify,
            "has no NOTIFY_SOCKET on other nodes; use http, tcp or exec",
        ),
        "preload": (spec.preload, "starts each replica by itself: nothing is forked from a warm process"),
        "user": (spec.user, "runs every job as the daemon's own user, and refuses to start it as another"),
        "group": (spec.group, "runs every job with the daemon's own groups, and refuses others"),
        "limits.cpu": (spec.limits.cpu, "holds what the cluster holds of `resources.cpu`; say it there"),
        "limits.memory": (
            spec.limits.memory,
            "holds what the cluster holds of `resources.memory`; say it there",
        ),
        "limits.pids": (spec.limits.pids, "holds no such limit"),
        "resources.gpu_memory": (
            resources.gpu_memory,
            "does not know the memory of GPUs; name a `gpu_type` of the cluster",
        ),
        "resources.gpu": (resources.gpu % 1, "gives whole GPUs: a part of one is asked for as one"),
        "scaling.policy.metric": (
            any(rule.metric in ("utilization", "gpu") for rule in spec.scaling.policies),
            "measures only workers on the daemon's own box",
        ),
    }
    return {key: why for key, (asked, why) in found.items() if asked}


def _make(context: PluginContext) -> WorkerDriver:
    path = context.options.get("environ", context.environ).get("PATH")
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        raise PluginError(
            f"it needs Slurm's commands, and there is no {missing[0]} here: install them, or mend PATH"
        )
    from stoker_slurm.driver import SlurmDriver

    return SlurmDriver(context)
