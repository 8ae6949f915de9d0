"""Suites that prove a part keeps the promises of its port; shipped for whoever writes one.

Each kind of part has modules of its own here. Needs pytest and anyio's pytest plugin.
"""

import pytest

_WITH_ASSERTIONS = (
    *("driver_bench", "driver_ends", "driver_heirs", "driver_starts"),
    *("router", "router_bench", "router_flow", "router_life", "router_limits", "router_load", "router_peers"),
)

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _WITH_ASSERTIONS))
