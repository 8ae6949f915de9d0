"""Forwards what workers write to the journal, from where it was left off, as long as its daemon lives.

    python -m stoker.to_journal --logs DIR --positions FILE [--muted SERVICE,...] [--socket PATH]

The logs stay the source: no worker waits for the journal, and what it cannot take now it gets later. On
standard input come the names of logs whose worker has ended, so that an unfinished last line is told too; its
end is the daemon's, and ours after one more look.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from stoker.api.logtext import LogText
from stoker.to_journal.entries import SOCKET, about, datagram, told
from stoker.to_journal.journal import Journal, JournalAwayError
from stoker.to_journal.positions import Positions
from stoker.to_journal.watch import LogWatch

PIECE = 256 * 1024
"""Bytes of one log before it is the turn of the next."""
LONGEST = 48 * 1024
"""Bytes of a line; the rest is another line, as for all that is printed under systemd."""
PAUSE = 0.02
"""Seconds in which the writes of workers are gathered."""
LAST_PATIENCE = 2.0
"""Seconds in which the journal may take what is left when the daemon has ended."""
NICE = 5
"""Workers go first where cores are few."""


class Forwarding:
    """From the logs to the journal."""

    def __init__(self, logs: Path, positions: Positions, *, muted: frozenset[str], socket: str) -> None:
        self._logs = logs
        self._positions = positions
        self._muted = muted
        self._watch = LogWatch(logs)
        self._journal = Journal(socket, self._patient)
        self._over_at = 0.0
        """When the daemon has ended; 0 while it lives."""
        self._ended: set[str] = set()
        self._heard = b""

    def run(self) -> None:
        """Until the daemon has ended and all is forwarded."""
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        poll.register(0, select.POLLIN)
        while True:
            more = self._round()
            if self._over_at and not (more and self._patient()):
                return
            stirred = {number for number, _ in poll.poll(0 if more or self._watch.grown else None)}
            if 0 in stirred:
                self._hear()
                if self._over_at:
                    poll.unregister(0)
            if not more:
                time.sleep(PAUSE if not self._over_at else 0)
            self._watch.look()

    def _round(self) -> bool:
        """A piece of each log that has grown; returns whether any has more."""
        names = deque(self._watch.grown | self._ended)
        self._watch.grown.clear()
        try:
            while names:
                name = names[0]
                last = name in self._ended
                if self._take(name, last=last):
                    self._watch.grown.add(name)
                elif last:
                    self._ended.discard(name)
                names.popleft()
        except JournalAwayError:
            return False  # the next daemon's goes on here
        return bool(self._watch.grown)

    def _take(self, name: str, *, last: bool) -> bool:
        """Forward a piece of a log; returns whether there may be more. `last`: its worker has ended."""
        try:
            text = LogText(str(self._logs / name))
        except OSError:
            return False
        try:
            size, at = text.size, self._positions.of(name, text.identity[1])
            at = at if at <= size else 0  # somebody has cut it off
            service, _, file = name.rpartition("/")
            if service in self._muted:
                self._positions.set(name, size)
                return False
            about_it = datagram(about(service, file.removesuffix(".log")))
            start, piece = text.read(at, PIECE)
            if start > at:
                words = f"{start - at} bytes of this output were rotated away before the journal took them"
                self._journal.send(datagram({"MESSAGE": words, "PRIORITY": "4"}) + about_it)
                self._positions.set(name, start)
            done = self._lines(name, start, piece, about_it, last=last)
            return bool(done) and start + done < size
        finally:
            text.close()

    def _lines(self, name: str, at: int, piece: bytes, about_it: bytes, *, last: bool) -> int:
        """Forward the lines of a piece that begins at that offset; returns how long they are."""
        done = 0
        while done < len(piece):
            end = piece.find(b"\n", done, done + LONGEST + 1)
            whole = end >= 0
            if not whole:
                end = min(done + LONGEST, len(piece))
                if end - done < LONGEST and not (last and len(piece) < PIECE):
                    break
            if line := piece[done:end].rstrip(b"\r"):
                message, priority = told(line)
                self._journal.send(datagram({"MESSAGE": message, "PRIORITY": priority}) + about_it)
            done = end + whole
            self._positions.set(name, at + done)
        return done

    def _hear(self) -> None:
        """Names of logs whose worker has ended, or the daemon's end."""
        said = os.read(0, 65536)
        *lines, self._heard = (self._heard + said).split(b"\n")
        self._ended.update(map(os.fsdecode, lines))
        if not said:
            self._over_at = time.monotonic()

    def _patient(self) -> bool:
        if not self._over_at and select.select([0], [], [], 0)[0]:
            self._hear()
        return not self._over_at or time.monotonic() < self._over_at + LAST_PATIENCE


def main() -> None:
    """Run until the daemon has ended."""
    parser = argparse.ArgumentParser(prog="python -m stoker.to_journal")
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--positions", type=Path, required=True)
    parser.add_argument("--muted", default="")
    parser.add_argument("--socket", default=SOCKET)
    given = parser.parse_args()
    os.nice(NICE)
    given.positions.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with given.positions.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # that of the daemon before may still be at its last look
        positions = Positions(given.positions, given.logs)
        muted = frozenset(filter(None, given.muted.split(",")))
        with suppress(KeyboardInterrupt):
            Forwarding(given.logs, positions, muted=muted, socket=given.socket).run()


if __name__ == "__main__":
    main()
