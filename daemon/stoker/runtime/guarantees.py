"""Refuses a configuration whose guarantees this box cannot keep.

A guarantee is a `min_replicas` that somebody wrote. The default of 1 promises nothing: what of it finds no
device waits in sight.
"""

from __future__ import annotations

from dataclasses import replace

from stoker.config.outcome import EffectiveConfig, located, says
from stoker.decide.apportion import clash, kinds_of
from stoker.errors import ConfigError
from stoker.model.device import Inventory
from stoker.model.service import DesiredState

_PATH = ("scaling", "min_replicas")


def refuse_clash(
    effective: EffectiveConfig, inventory: Inventory, *, before: EffectiveConfig | None = None
) -> None:
    """Raise ConfigError, with the place of the `min_replicas` that is one too many, if the devices are not
    enough for what several services are sure of.

    Not so if they were not enough for what was in force `before`: where the box has become too small, other
    changes must still be possible. And not while nothing is known of the devices.
    """
    if before is not None and before.desired == effective.desired:
        return
    found = _clash(effective, inventory)
    if found is None or (before is not None and _clash(before, inventory) is not None):
        return
    service, why = found
    raise ConfigError(located(effective, service, _PATH, why))


def devices_decide(effective: EffectiveConfig) -> bool:
    """Whether it takes the devices to know that the guarantees can be kept."""
    return len(_guaranteed(effective).services) > 1


def _clash(effective: EffectiveConfig, inventory: Inventory) -> tuple[str, str] | None:
    desired = _guaranteed(effective)
    return clash(desired, kinds_of(list(desired.services.values()), inventory, ()))


def _guaranteed(effective: EffectiveConfig) -> DesiredState:
    services = {
        key: spec
        for key, spec in effective.desired.services.items()
        if spec.resources.gpu > 0
        and spec.scaling.min_replicas > 0
        and not spec.held
        and says(effective, key, _PATH)
    }
    return replace(effective.desired, services=services)
