"""What this plugin brings: the `process` driver."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.plugin import impl
from stoker.plugin.ports import WorkerDriverFactory


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """The default driver: local process trees."""
    from stoker_process.driver import ProcessDriver

    return {"process": ProcessDriver}
