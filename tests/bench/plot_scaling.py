"""Draws the pictures of docs/scaling.md: generated loads under foresight and others, start-up 60 s.

python tests/bench/plot_scaling.py [DIRECTORY]        docs/ if none is given
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench_scaling import Load, generated, policies, service_of

from stoker.simulate.plot import write_plot
from stoker.simulate.replay import Case, replay

STARTUP = 60.0
PICTURES = {"rush": ("foresight", "kpa")}
"""By load: the policies side by side."""


def draw(load: Load, names: Sequence[str], path: Path) -> None:
    """One picture."""
    cases = [
        Case(
            spec=service_of(load, name), trace=load.trace, startup=STARTUP, slo_wait=load.slo_wait, initial=3
        )
        for name in names
    ]
    outcomes = [replay([case], policies())[0] for case in cases]
    write_plot(str(path), outcomes, [f"{load.name}, {name}" for name in names])


def main(arguments: Sequence[str]) -> int:
    """Draw all of them."""
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[2] / "docs"
    for load in generated():
        if load.name in PICTURES:
            draw(load, PICTURES[load.name], folder / f"scaling-{load.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
