"""What this plugin brings."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.plugin import impl
from stoker.plugin.ports import ApplicationFactory
from stoker_bentoml.application import BentoApplication


@impl
def stoker_applications() -> Mapping[str, ApplicationFactory]:
    """What the key `bento` of a file names."""
    return {"bento": BentoApplication}
