"""A run as a picture: replicas, load and queue, and where waits were too long. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stoker.errors import StokerError
from stoker.simulate.replay import Outcome

_MISS_BINS = 120
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def write_plot(path: str, outcomes: Sequence[Outcome], labels: Sequence[str]) -> None:
    """Write a PNG with one column of three panels per outcome. Raises StokerError without matplotlib, or
    when the file cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise StokerError("--plot needs matplotlib; install it with: pip install 'stoker[plot]'") from error
    figure = Figure(figsize=(max(9.0, 6.0 * len(outcomes)), 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        3, len(outcomes), sharex="col", sharey="row", squeeze=False, height_ratios=(3, 2, 2)
    )
    longest = max((outcome.ended for outcome in outcomes), default=0.0)
    unit, name = next(found for found in _UNITS if longest >= found[0] * 2 or found[0] == 1.0)
    for column, (outcome, label) in enumerate(zip(outcomes, labels, strict=True)):
        _replicas(panels[0][column], outcome, label, unit)
        _queue(panels[1][column], outcome, unit)
        _misses(panels[2][column], outcome, unit)
        panels[2][column].set_xlabel(name)
    for row, title in enumerate(("replicas", "requests queued", "late requests")):
        panels[row][0].set_ylabel(title)
    for panel in panels.flat:
        panel.set_ylim(bottom=0)
        panel.margins(x=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, axis="y", alpha=0.25)
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise StokerError(f"cannot write the plot {path}: {error.strerror or error}") from error


def _replicas(panel: Any, outcome: Outcome, label: str, unit: float) -> None:
    timeline = outcome.tally.timeline
    times = [entry[0] / unit for entry in timeline]
    bottom = [0.0] * len(timeline)
    for index, name, colour in (
        (1, "ready", "#8cc5a2"),
        (2, "starting", "#e8b84a"),
        (3, "draining", "#a9a9a9"),
    ):
        top = [low + entry[index] for low, entry in zip(bottom, timeline, strict=True)]
        panel.fill_between(times, bottom, top, step="post", color=colour, linewidth=0, label=name)
        bottom = top
    slots = outcome.case.spec.slots
    if slots:
        at = [moment.at / unit for moment in outcome.moments]
        busy = [moment.in_flight / slots for moment in outcome.moments]
        panel.step(at, busy, where="post", lw=0.7, color="#1c3d5a", label="in use")
    hours = outcome.tally.replica_seconds / 3600
    panel.set_title(f"{label}: {hours:.2f} replica-hours, {outcome.tally.starts} starts", fontsize=10)
    panel.legend(loc="upper right", fontsize=8, ncols=2)


def _queue(panel: Any, outcome: Outcome, unit: float) -> None:
    at = [moment.at / unit for moment in outcome.moments]
    queued = [moment.queued for moment in outcome.moments]
    panel.fill_between(at, queued, step="post", color="#c0603a", linewidth=0)


def _misses(panel: Any, outcome: Outcome, unit: float) -> None:
    trace, limit = outcome.case.trace, outcome.case.slo_wait
    late = [at / unit for at, wait in zip(trace.arrivals, outcome.waits, strict=True) if wait > limit]
    if late:
        panel.hist(late, bins=_MISS_BINS, range=(0.0, max(outcome.ended, 1.0) / unit), color="#b02a2a")
    share = len(late) / len(trace) if len(trace) else 0.0
    panel.set_title(f"waited longer than {limit:g} s: {len(late)} ({share:.2%})", fontsize=10)
