"""The control loop: wait, fold events in, ask `reconcile`, do what it says. Nothing else decides.

It is the only writer of the observed state. It speaks anyio only and takes every part by a port, so
that the same loop runs on a virtual clock with fake parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import anyio
import anyio.lowlevel

from stoker.decide.lifecycle import InvalidTransitionError, fold
from stoker.decide.memo import Memo
from stoker.decide.reconcile import reconcile
from stoker.decide.revisions import in_force, reconsider
from stoker.decide.routing import routing_table
from stoker.model.action import Action, KillReplica, Plan
from stoker.model.event import Event, Notice, RevisionRejected
from stoker.model.service import ServiceKey
from stoker.model.state import DesiredState, ObservedState, RoutingTable
from stoker.runtime.journal import Journal

Addresses = Mapping[ServiceKey, tuple[str, int]]

WORTH_A_REST, REST, LONGEST_REST = 0.001, 2.0, 0.01
"""A step that took longer than the first, in seconds, is followed by a rest of so many times that, at most so
long: what comes meanwhile (hundreds of workers that start at once) is planned for together."""
MAX_ROUNDS = 50
"""Plans performed in a row without waiting. A plan that is not empty after so many is a fault in a rule;
the loop then says so and slows down instead of spinning."""
NONE_YET = RoutingTable()
"""Before a first one is made of what is wanted."""


class ControlLoop:
    """Keeps what is wanted true. `perform` starts an action and returns the fact that it was started;
    `publish` hands a changed routing table on; `addresses` gives each service its stable address."""

    def __init__(
        self,
        *,
        journal: Journal,
        perform: Callable[[Action], Event],
        publish: Callable[[RoutingTable], None],
        addresses: Callable[[DesiredState], Addresses],
        serial: int = 0,
    ) -> None:
        self.desired = DesiredState()
        """What is in force: the configuration, less revisions that failed."""
        self._configured = DesiredState()
        self.state = ObservedState(serial=serial)
        self.routes = NONE_YET
        self.reconcile_seconds = 0.0
        self.journal = journal
        self._perform = perform
        self._publish = publish
        self._addresses = addresses
        self._memo = Memo()
        self._inbox: deque[Event] = deque()
        self._wake = anyio.Event()
        self._emptied = anyio.Event()
        self._listeners: list[Callable[[Event], None]] = []

    def post(self, event: Event) -> None:
        """Tell the loop a fact; it is folded in at its next step. Quick, callable from any task."""
        self._inbox.append(event)
        self._wake.set()

    def configure(self, desired: DesiredState) -> None:
        """Put a new wanted state in force."""
        self._configured = desired
        self.state = reconsider(self.state, desired)
        self.desired = in_force(desired, self.state)
        self._wake.set()

    def stop(self) -> None:
        """Begin to drain everything."""
        self.state = replace(self.state, stopping=True)
        self._wake.set()

    def hurry(self) -> None:
        """Kill what still runs: the operator asked a second time."""
        for replica in list(self.state.replicas.values()):
            if replica.alive and not replica.kill_sent:
                kill = KillReplica(replica=replica.id, service=replica.service, reason="told to hurry")
                self.post(self._perform(kill))

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` after each folded event."""
        self._listeners.append(listener)

    async def until_empty(self) -> None:
        """Return when no replica is left."""
        while self.state.replicas or self._inbox:
            await self._emptied.wait()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            self._wake, began = anyio.Event(), anyio.current_time()
            wake_at = self.act()
            await anyio.lowlevel.checkpoint()  # starts that were begun are on their way before anything else
            self.settle()
            spent = anyio.current_time() - began
            if spent > WORTH_A_REST:
                await anyio.sleep(min(REST * spent, LONGEST_REST))
            if self._inbox:
                await anyio.lowlevel.checkpoint()
                continue
            delay = None if wake_at is None else max(0.0, wake_at - anyio.current_time())
            with anyio.move_on_after(delay):
                await self._wake.wait()

    def act(self) -> float | None:
        """Fold, plan and act until there is nothing to do; returns when to look again by itself."""
        self._addresses(self.desired)  # what starts now is told where the others are
        for _ in range(MAX_ROUNDS):
            while self._inbox:
                self._fold(self._inbox.popleft())
            plan = self._plan()
            if plan.empty:
                break
            for action in plan.actions:
                self._fold(self._perform(action))
        else:
            names = ", ".join(str(action) for action in plan.actions[:3])
            self._fold(
                Notice(
                    message=f"a bug: the plan has no end ({names} ...); tried again in 1 s",
                    severity="error",
                )
            )
            plan = Plan(wake_at=anyio.current_time() + 1)
        return plan.wake_at

    def settle(self) -> None:
        """Let routers and whoever waits know what is there now."""
        self._route()
        if not self.state.replicas:
            emptied, self._emptied = self._emptied, anyio.Event()
            emptied.set()

    def _plan(self) -> Plan:
        now = anyio.current_time()
        plan = reconcile(self.desired, self.state, now, memo=self._memo)
        self.reconcile_seconds = anyio.current_time() - now
        return plan

    def _fold(self, event: Event) -> None:
        stamped = self.journal.record(event, anyio.current_time())
        try:
            self.state = fold(self.state, stamped, self.desired)
        except InvalidTransitionError as error:
            # A fault of ours: it must be seen, and must not take the daemon down.
            self.journal.record(
                Notice(
                    message=f"a bug, to be reported: an event was ignored, since {error}", severity="error"
                ),
                stamped.at,
            )
        if isinstance(stamped, RevisionRejected):
            self.desired = in_force(self._configured, self.state)
        for listener in self._listeners:
            listener(stamped)

    def _route(self) -> None:
        addresses = self._addresses(self.desired)
        found = self._memo.look(self.desired, self.state)
        table = routing_table(self.desired, self.state, addresses, found=found, memo=self._memo.routes)
        if table != self.routes or self.routes is NONE_YET:
            self.routes = table
            self._publish(table)
