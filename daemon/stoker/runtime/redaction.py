"""Takes the values of secrets out of what workers say and Stoker repeats: last words, probes' output, status.

A worker's own log is its own; what Stoker quotes of it goes to events, status, the journal, to whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from stoker.decide.environment import variable_name
from stoker.errors import WorkerError
from stoker.model.event import Event, ReplicaEvent, WorkerAdopted, WorkerSpawned
from stoker.model.replica import ExitStatus
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.runtime.secret_files import SecretFiles

SHORTEST = 4
"""Values of fewer characters are not looked for: half of all texts would hold them."""
TEXTS = ("reason", "message", "error")
"""Fields of events in which a worker may be quoted."""


class Redaction:
    """Stands before `post` for those who hear workers. Values are learned when a worker starts and looked up
    again when there is something to take out: a secret may have changed meanwhile, or the daemon."""

    def __init__(
        self,
        secrets: SecretFiles,
        *,
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        post: Callable[[Event], None],
    ) -> None:
        self._secrets = secrets
        self._lookup = lookup
        self._post = post
        self._known: dict[ServiceKey, dict[str, str]] = {}
        """By service: value -> name of its variable."""

    def post(self, event: Event) -> None:
        """Hand an event on without secrets."""
        self._post(self.clean(event))

    def clean(self, event: Event) -> Event:
        """The event without values of secrets of its service."""
        key = event.service if isinstance(event, ReplicaEvent) else getattr(event, "service", "")
        spec = self._lookup(key)
        if not key or ((spec is None or not spec.secrets) and key not in self._known):
            return event
        if isinstance(event, WorkerSpawned | WorkerAdopted):
            self._learn(key, spec)
            return event
        changes: dict[str, Any] = {}
        for field in fields(event):
            value = getattr(event, field.name)
            if isinstance(value, ExitStatus) and value.detail:
                changes[field.name] = replace(value, detail=self._text(key, spec, value.detail))
            elif field.name in TEXTS and isinstance(value, str):
                changes[field.name] = self._text(key, spec, value)
        return replace(event, **changes)

    def text(self, service: ServiceKey, text: str) -> str:
        """A quotation without values of secrets of its service."""
        return self._text(service, self._lookup(service), text)

    def _text(self, key: ServiceKey, spec: ServiceSpec | None, text: str) -> str:
        self._learn(key, spec)
        known = self._known.get(key, {})
        for value in sorted(known, key=len, reverse=True):  # one may be the beginning of another
            text = _without(value, f"[{known[value]}]", text)
        return text

    def _learn(self, key: ServiceKey, spec: ServiceSpec | None) -> None:
        for name in spec.secrets if spec is not None else ():
            try:
                value = self._secrets.read(name, spec.deployment, spec.name) if spec is not None else ""
            except WorkerError:
                continue  # the start that needs it says so
            for line in value.splitlines():
                if len(line) >= SHORTEST:
                    self._known.setdefault(key, {})[line] = variable_name(name)


def _without(value: str, instead: str, text: str) -> str:
    """The text without the value, also where a quotation was cut off in the middle of it."""
    text = text.replace(value, instead)
    for size in range(min(len(value) - 1, len(text)), SHORTEST - 1, -1):
        if text.endswith(value[:size]):
            return text[:-size] + instead
    return text
