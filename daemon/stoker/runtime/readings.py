"""Asks what policies want to know from elsewhere (a Prometheus, say), and keeps the newest answers.

Only services whose rules need it cost anything. A failure is said once, and again when it fails
in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import anyio

from stoker.errors import StokerError
from stoker.model.event import Event, Notice
from stoker.model.load import Reading
from stoker.model.service import PolicySpec, ServiceKey
from stoker.model.state import DesiredState
from stoker.plugin.ports import MeasuringPolicy, Policy

PERIOD = 15.0
"""Seconds between two questions of a rule, unless its parameter `period` says otherwise."""
TIMEOUT = 10.0
"""Seconds for an answer."""

Asked = tuple[ServiceKey, PolicySpec]


@dataclass(slots=True)
class _Question:
    """`due`: monotonic seconds."""

    due: float
    reading: Reading | None = None
    trouble: str = ""


class Readings:
    """The newest reading of each rule. `policy` makes a policy by its metric's name (raises StokerError);
    `answered` hears whose reading is new."""

    def __init__(
        self,
        *,
        policy: Callable[[str], Policy],
        desired: Callable[[], DesiredState],
        post: Callable[[Event], None],
        answered: Callable[[ServiceKey], None],
    ) -> None:
        self._policy = policy
        self._desired = desired
        self._post = post
        self._answered = answered
        self._questions: dict[Asked, _Question] = {}

    def of(self, service: ServiceKey, rule: PolicySpec) -> Reading | None:
        """What was answered last, None if nothing ever was."""
        question = self._questions.get((service, rule))
        return None if question is None else question.reading

    async def run(self, reconsidered: Callable[[], anyio.Event]) -> None:
        """Ask until cancelled. `reconsidered` gives the event of the next change of the configuration."""
        while True:
            changed = reconsidered()
            self._keep(dict(self._wanted()))
            now = anyio.current_time()
            due = [asked for asked, question in self._questions.items() if question.due <= now]
            async with anyio.create_task_group() as tasks:
                for service, rule in due:
                    tasks.start_soon(self._ask, service, rule)
            times = [question.due for question in self._questions.values()]
            with anyio.move_on_after(max(0.0, min(times) - anyio.current_time()) if times else None):
                await changed.wait()

    def _wanted(self) -> Iterator[tuple[Asked, None]]:
        for key, spec in self._desired().services.items():
            for rule in spec.scaling.policies:
                if self._measuring(rule) is not None:
                    yield (key, rule), None

    def _keep(self, wanted: dict[Asked, None]) -> None:
        now = anyio.current_time()
        self._questions = {asked: self._questions.get(asked) or _Question(due=now) for asked in wanted}

    def _measuring(self, rule: PolicySpec) -> MeasuringPolicy | None:
        try:
            policy = self._policy(rule.metric)
        except StokerError:
            return None  # the autoscaler says so when it asks it to decide
        return policy if isinstance(policy, MeasuringPolicy) else None

    async def _ask(self, service: ServiceKey, rule: PolicySpec) -> None:
        policy, question = self._measuring(rule), self._questions[service, rule]
        if policy is None:
            return
        trouble = f"no answer within {TIMEOUT:g} s"
        try:
            with anyio.move_on_after(TIMEOUT):
                value = await policy.measure(rule)
                question.reading, trouble = Reading(value=value, at=anyio.current_time()), ""
        except StokerError as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - a policy is a stranger; no reading is no data
            trouble = f"{type(error).__name__}: {error}"
        question.due = anyio.current_time() + float(dict(rule.params).get("period", PERIOD))
        if trouble and trouble != question.trouble:
            message = f"metric {rule.metric} cannot be read: {trouble}"
            self._post(Notice(message=message, severity="warning", service=service))
        question.trouble = trouble
        self._answered(service)
