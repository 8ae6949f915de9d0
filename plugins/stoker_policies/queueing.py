"""Replicas for what waits, on top of those that are busy. Pure."""

from __future__ import annotations

from stoker.model.load import Decision
from stoker.plugin.ports import PolicyInput
from stoker_policies.reading import (
    ACTIVITY_WINDOW,
    active,
    in_words,
    no_opinion,
    parameter,
    replicas,
    settles_at,
    target_of,
    unseen,
)


class Queue:
    """replicas = busy ones (in flight / slots) + ceil(queued / target).

    The queue alone cannot say when to shrink: it is empty whenever the pool suffices. So replicas whose
    slots are in use are kept, and `target` requests in the queue are worth one more.

    Parameters: `target` queued requests per extra replica (default: traffic.concurrency, else 1), `window`
    seconds of the mean (5); the queue of this instant counts where it is longer than its mean.
    """

    def decide(self, given: PolicyInput) -> Decision:
        """Answer for the present queue."""
        seconds = parameter(given, "window", ACTIVITY_WINDOW)
        load = given.window(seconds)
        if blind := unseen(load):
            return no_opinion(given, blind)
        if not active(load):
            return Decision(target=0, reason=f"no request for {seconds:g} s", code="idle")
        slots = float(given.service.slots or 1)
        target = target_of(given, slots)
        queued = max(load.queued, float(load.queued_now))
        busy, extra = replicas(load.in_flight / slots), replicas(queued / target)
        wanted = max(1, busy + extra)
        more = "nothing queued"
        if queued:
            queue = f"queued {in_words(queued)} / target {target:g}"
            more = f"{queue} = {in_words(queued / target)} more, rounded up"
        return Decision(
            target=wanted,
            reason=f"in-flight {in_words(load.in_flight)} over {seconds:g} s keeps {busy} busy, {more}",
            code="queue",
            facts={"in_flight": load.in_flight, "queued": queued, "target": target},
            wake_at=settles_at(given, load, wanted),
        )
