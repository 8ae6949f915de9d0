"""A run as a picture: replicas, load and queue, and where waits were too long. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stoker.errors import StokerError
from stoker.simulate.replay import Outcome

_MISS_BINS = 120


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
    panels = figure.subplots(3, len(outcomes), sharex="col", squeeze=False)
    for column, (outcome, label) in enumerate(zip(outcomes, labels, strict=True)):
        _replicas(panels[0][column], outcome, label)
        _load(panels[1][column], outcome)
        _misses(panels[2][column], outcome)
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise StokerError(f"cannot write the plot {path}: {error.strerror or error}") from error


def _replicas(panel: Any, outcome: Outcome, label: str) -> None:
    timeline = outcome.tally.timeline
    times = [entry[0] for entry in timeline]
    bottom = [0.0] * len(timeline)
    for index, name, colour in (
        (1, "ready", "#4c9f70"),
        (2, "starting", "#e0b040"),
        (3, "draining", "#999999"),
    ):
        top = [low + entry[index] for low, entry in zip(bottom, timeline, strict=True)]
        panel.fill_between(times, bottom, top, step="post", color=colour, alpha=0.8, linewidth=0, label=name)
        bottom = top
    hours = outcome.tally.replica_seconds / 3600
    panel.set_title(f"{label}: {hours:.2f} replica-hours, {outcome.tally.starts} starts", fontsize=10)
    panel.set_ylabel("replicas")
    panel.legend(loc="upper right", fontsize=8)


def _load(panel: Any, outcome: Outcome) -> None:
    times = [moment.at for moment in outcome.moments]
    slots = outcome.case.spec.slots
    panel.plot(times, [moment.in_flight for moment in outcome.moments], lw=0.8, label="in flight")
    panel.plot(times, [moment.queued for moment in outcome.moments], lw=0.8, color="#c03030", label="queued")
    if slots:
        timeline = outcome.tally.timeline
        capacity = [entry[1] * slots for entry in timeline]
        panel.step([e[0] for e in timeline], capacity, where="post", lw=0.8, color="#4c9f70", label="slots")
    panel.set_ylabel("requests")
    panel.legend(loc="upper right", fontsize=8)


def _misses(panel: Any, outcome: Outcome) -> None:
    trace, limit = outcome.case.trace, outcome.case.slo_wait
    late = [at for at, wait in zip(trace.arrivals, outcome.waits, strict=True) if wait > limit]
    if late:
        panel.hist(late, bins=_MISS_BINS, range=(0.0, max(outcome.ended, 1.0)), color="#c03030")
    share = len(late) / len(trace) if len(trace) else 0.0
    panel.set_title(f"waited longer than {limit:g} s: {len(late)} ({share:.2%})", fontsize=10)
    panel.set_ylabel("late requests")
    panel.set_xlabel("seconds")
