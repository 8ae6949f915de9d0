"""Which files a plan of some files is about: those in force, the given ones in the place of their like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from stoker.config.load import EffectiveConfig
from stoker.config.sources import ConfigRequest, read


def planned_request(
    request: ConfigRequest, given: Sequence[str], in_force: EffectiveConfig | None
) -> ConfigRequest:
    """The request whose files are the given ones and those in force that they do not replace.

    A given file replaces itself and the file of a deployment of the same name; a given directory also all
    that lies in it, so that what is gone from there is seen to go. Blocking: reads the given files.
    """
    if in_force is None:
        return replace(request, files=tuple(given))
    paths = {os.path.abspath(path) for path in given}
    alone = replace(request, files=tuple(given), sets=(), overrides={}, profile=None)
    names = {one.name for one in read(alone).deployments}
    others = [os.path.abspath(one.file) for one in in_force.layers if one.name not in names]
    kept = [path for path in others if not {path, os.path.dirname(path)} & paths]
    return replace(request, files=(*kept, *given))
