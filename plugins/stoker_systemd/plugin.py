"""What this plugin brings: the `systemd` driver, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.errors import PluginError
from stoker.plugin import impl
from stoker.plugin.ports import PluginContext, WorkerDriver, WorkerDriverFactory


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """Workers as transient units."""
    return {"systemd": _make}


def _make(context: PluginContext) -> WorkerDriver:
    try:
        from stoker_systemd.driver import SystemdDriver
    except ModuleNotFoundError as error:
        raise PluginError(f"it needs {error.name}; pip install 'stoker[systemd]'") from error
    return SystemdDriver(context)
