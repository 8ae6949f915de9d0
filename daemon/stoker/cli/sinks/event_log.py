"""Every event as a line of JSON at the end of a file, which may be moved away at any time (logrotate)."""

from __future__ import annotations

import json
import os
import sys
from io import FileIO

from stoker.api.facade import DaemonFacade
from stoker.api.narrate import event_document
from stoker.runtime.options import Observer


def event_log(path: str) -> Observer:
    """An observer that writes there until the daemon ends; trouble is said once, and tried again."""

    async def write(facade: DaemonFacade) -> None:
        log = EventLog(path)
        try:
            async for event in facade.events(facade.beginning):
                log.write(event_document(event))
        finally:
            log.close()

    return write


class EventLog:
    """One file, opened anew when another stands at its place or none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._troubled = False

    def write(self, document: object) -> None:
        """One line, whole or not at all."""
        line = (
            json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"
        )
        try:
            self._place().write(line)
            self._troubled = False
        except OSError as error:
            self.close()
            if not self._troubled:
                sys.stderr.write(f"stoker: events cannot be written to {self._path}: {error.strerror}\n")
            self._troubled = True

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _place(self) -> FileIO:
        if self._file is not None and not self._stands():
            self.close()
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = FileIO(os.open(self._path, flags, 0o640), "ab")
        return self._file

    def _stands(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except OSError:
            return False
