"""What one daemon leaves to the next beside its store: its events, what each service was when it was good,
how long its replicas took to start, and what its policies have learned."""

from __future__ import annotations

from collections.abc import Callable

from stoker.model.event import Event
from stoker.model.state import ObservedState
from stoker.plugin.processes import boot_id
from stoker.runtime.event_log import EventLog
from stoker.runtime.good_revisions import GoodRevisions
from stoker.runtime.journal import Journal
from stoker.runtime.scaling_memories import ScalingMemories
from stoker.runtime.startup_times import StartupTimes


class Keepsakes:
    """Those of one state directory. `trouble` is told what cannot be written."""

    def __init__(self, state_dir: str, trouble: Callable[[str], None]) -> None:
        self.events = EventLog(state_dir, trouble)
        self.revisions = GoodRevisions(state_dir, trouble)
        self.startups = StartupTimes(state_dir, trouble)
        self.memories = ScalingMemories(state_dir, trouble, boot=boot_id())

    def journal(self, wall: Callable[[], float]) -> Journal:
        """A journal that goes on where the last one ended. `wall` gives seconds since the epoch."""
        events = self.events
        return Journal(wall, past=events.past, last_number=events.last_number, kept=events.add)

    def follow(self, event: Event, state: ObservedState) -> None:
        """Take note of a folded event and the state after it."""
        self.revisions.follow(state)
        self.startups.observe(event)

    def close(self) -> None:
        """All has ended in good order: the events stay, and what begins next begins with no revision to go
        back to."""
        self.revisions.clear()
        self.events.flush()
