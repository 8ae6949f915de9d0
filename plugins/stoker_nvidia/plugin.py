"""What this plugin brings: the device source `nvidia`."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.plugin import impl
from stoker.plugin.ports import DeviceSource, DeviceSourceFactory, PluginContext


@impl
def stoker_device_sources() -> Mapping[str, DeviceSourceFactory]:
    """NVIDIA GPUs and MIG instances. Nothing is loaded or started before the source runs."""
    return {"nvidia": _source}


def _source(context: PluginContext) -> DeviceSource:
    from stoker_nvidia.source import NvidiaSource

    return NvidiaSource(context)
