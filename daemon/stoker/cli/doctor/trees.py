"""How whole process trees of workers are held and ended here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio

from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn
from stoker.errors import StokerError
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext, WorkerDriver

DRIVER = "process"
MOUNTS = Path("/proc/self/mountinfo")


def check(place: Place) -> Iterator[Finding]:
    """What the kernel offers, and what the driver makes of it for this user."""
    yield cgroups(cgroup_mounts(MOUNTS.read_text()))
    registry = PluginRegistry()
    registry.load()
    if DRIVER in registry.names("driver"):
        yield anyio.run(_way, registry, place)


def cgroup_mounts(mountinfo: str) -> tuple[str, bool]:
    """(where cgroup v2 is mounted or "", whether v1 controllers are there too). Pure."""
    second, first = "", False
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        kind = tail.split(" ", 1)[0]
        if kind == "cgroup2" and not second:
            second = head.split(" ")[4]
        first = first or kind == "cgroup"
    return second, first


def cgroups(found: tuple[str, bool]) -> Finding:
    """The verdict on the mounts."""
    mount, hybrid = found
    if not mount:
        remedy = "workers are held by sessions instead; boot with systemd.unified_cgroup_hierarchy=1 for more"
        return warn("cgroups", "no cgroup v2 hierarchy is mounted", remedy)
    # The root group has no cgroup.kill of its own; any group below it tells.
    below = sorted(Path(mount).glob("*/cgroup.kill"))
    kill = "with cgroup.kill" if below else "without cgroup.kill (its processes are ended one by one)"
    return ok("cgroups", f"v2 at {mount}{' beside v1 controllers' if hybrid else ''}, {kill}")


async def _way(registry: PluginRegistry, place: Place) -> Finding:
    context = PluginContext(
        instance="doctor",
        state_dir=place.state_dir,
        runtime_dir=place.runtime_dir,
        environ=place.environ,
        log=lambda message: None,
    )
    try:
        driver: WorkerDriver = registry.factory("driver", DRIVER)(context)
    except StokerError as error:
        return fail("process trees", str(error), "a kernel of 5.3 or newer is needed")
    await driver.aclose()
    return judge(getattr(driver, "description", ""))


def judge(description: str) -> Finding:
    """The verdict on the way that the driver has chosen. Pure."""
    if description.startswith("cgroup"):
        return ok("process trees", description)
    remedy = "run the daemon as root, or as a systemd service with Delegate=yes, for cgroups"
    return warn("process trees", description or "the driver does not say how", remedy)
