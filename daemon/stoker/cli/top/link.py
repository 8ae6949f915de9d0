"""Hears the daemon's stream in a thread of its own and hands each message on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from stoker.cli.client import Client
from stoker.errors import StokerError

AGAIN = 1.0
"""Seconds until a lost daemon is tried again."""

Heard = Callable[[str, Mapping[str, Any]], object]


class Link:
    """One connection, made again when it breaks. `heard` and `standing` are called in the thread; `standing`
    gets "live" or why it is not."""

    def __init__(self, client: Client, *, heard: Heard, standing: Callable[[str], object]) -> None:
        self._client = client
        self._heard = heard
        self._standing = standing
        self._over = threading.Event()
        # A daemon thread: it waits in a read, and must not hold the end of the program.
        self._thread = threading.Thread(target=self._run, name="stoker-live", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Hand nothing on any more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._listen()
                self._tell("the daemon has ended; waiting for the next one")
            except StokerError as error:
                self._tell(str(error))
            self._over.wait(AGAIN)

    def _listen(self) -> None:
        kind = ""
        for line in self._client.lines("/v1/live"):
            if self._over.is_set():
                return
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                message = json.loads(line.removeprefix("data: "))
                if kind == "state":
                    self._tell("live")
                self._heard(kind, message)

    def _tell(self, words: str) -> None:
        if not self._over.is_set():
            self._standing(words)
