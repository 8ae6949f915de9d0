"""The event loop of daemons, silent about a race that is nobody's fault."""

from __future__ import annotations

import asyncio
from typing import Any

_RACE = "Exception in callback Future.set_result("


class Loop(asyncio.SelectorEventLoop):
    """As asyncio's own. anyio's unix sockets have a future's `set_result` called when they can be read; where
    the wait was cancelled in the same turn, that future is done, and asyncio would print a traceback."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See asyncio."""
        race = isinstance(context.get("exception"), asyncio.InvalidStateError)
        if not (race and context["message"].startswith(_RACE)):
            super().call_exception_handler(context)


OPTIONS = {"loop_factory": Loop}
"""For anyio's asyncio backend."""
