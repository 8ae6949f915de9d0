"""Questions that may hang, each with a time to be answered in.

A call into a driver cannot be called off. So the question is put in a thread of its own; one that does not
come back in time is left to itself, and the next question is put in another. What hangs is not asked again
until it has come back.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

_IN_THE_KERNEL = "D"


class HangsError(Exception):
    """The question is not answered. `seconds`: for how long already; `stuck`: not even a signal would end
    it."""

    def __init__(self, seconds: float, *, stuck: bool) -> None:
        self.seconds = seconds
        self.stuck = stuck
        super().__init__(f"no answer for {seconds:.1f} s")


class Guard:
    """Puts questions one after the other; of each key at most one is under way."""

    def __init__(self) -> None:
        self._asker: _Asker | None = None
        self._hanging: dict[Hashable, _Asker] = {}

    @property
    def hanging(self) -> bool:
        """Whether a question is under way that nobody waits for."""
        self._hanging = {key: asker for key, asker in self._hanging.items() if not asker.back.is_set()}
        return bool(self._hanging)

    def ask(self, key: Hashable, question: Callable[[], Any], within: float) -> Any:
        """The answer, or what the question raised. Raises HangsError if it takes longer than so many
        seconds, and at once if the last one of that key is still under way. What comes late is not told."""
        if self.hanging and key in self._hanging:
            raise self._hanging[key].hangs()
        asker = self._asker = self._asker or _Asker()
        asker.put(question)
        if not asker.back.wait(within):
            self._asker, self._hanging[key] = None, asker
            asker.release()
            raise asker.hangs()
        return asker.answer()


class _Asker:
    """A thread that answers until it is released."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self._questions: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answer: Any = None
        self._error: BaseException | None = None
        self._asked = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, question: Callable[[], Any]) -> None:
        """Have a question answered; `back` is set when it is."""
        self.back.clear()
        self._asked = time.monotonic()
        self._questions.put(question)

    def release(self) -> None:
        """Let the thread end after what it is at."""
        self._questions.put(None)

    def answer(self) -> Any:
        """What came back."""
        answer, error = self._answer, self._error
        self._answer = self._error = None
        if error is not None:
            raise error
        return answer

    def hangs(self) -> HangsError:
        """How long the question has been under way."""
        return HangsError(time.monotonic() - self._asked, stuck=_state(self._thread) == _IN_THE_KERNEL)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                self._answer = question()
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is taken
                self._error = error
            self.back.set()


def _state(thread: threading.Thread) -> str:
    """The kernel's letter for what the thread does, "" if that cannot be seen."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
