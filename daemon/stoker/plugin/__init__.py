"""Floor 2: the door through which parts come, Stoker's own as well as strangers'.

`impl` marks a hook implementation; `stoker.plugin.hookspecs` lists the hooks, `stoker.plugin.ports`
the objects they make, `stoker.plugin.testing` the suites that prove them.
"""

from __future__ import annotations

import pluggy

__all__ = ["impl"]

impl = pluggy.HookimplMarker("stoker")
