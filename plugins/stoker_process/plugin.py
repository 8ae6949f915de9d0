"""What this plugin brings: the `process` driver, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.model.service import Command, ServiceSpec
from stoker.plugin import impl
from stoker.plugin.ports import Shortfalls, WorkerDriverFactory


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """The default driver: local process trees."""
    from stoker_process.driver import ProcessDriver

    return {"process": ProcessDriver}


@impl
def stoker_driver_shortfalls() -> Mapping[str, Shortfalls]:
    """What cannot be forked from a warm process."""
    return {"process": _shortfalls}


def _shortfalls(spec: ServiceSpec) -> Mapping[str, str]:
    from stoker_process.pythons import python_command

    if not spec.preload or not isinstance(spec.launch, Command) or python_command(spec.launch.argv):
        return {}
    return {
        "preload": "cannot fork this command's replicas from a warm process: it is not plainly "
        "`python -m MODULE` or `python FILE.py`; each starts by itself"
    }
