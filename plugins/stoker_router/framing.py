"""Where a message body ends: counted, chunked, or with the connection. Pure.

Bytes pass through as they came; these only follow them. Chunked framing is checked to the letter, because
a worker that read it otherwise than we do would see another request in the middle of a body.
"""

from __future__ import annotations

import re
from typing import Protocol

from stoker_router.head import CHUNKED, UNTIL_CLOSE, BadMessage

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*+\r\n"
)
"""Extensions without the spaces that RFC 9112 lets a recipient pass over: not every worker does."""
_TRAILER_LINE = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*+\r\n")
_MAX_LINE = 8 * 1024
_MAX_TRAILERS = 64

_SIZE, _DATA_END, _TRAILER = range(3)


class Body(Protocol):
    """Follows one body through the pieces in which it arrives."""

    def take(self, data: bytes, start: int) -> int:
        """Follow `data` from `start`; return where in it the message ends, -1 if it goes on.

        Raises BadMessage.
        """
        ...


def body_of(length: int) -> Body:
    """What follows a body of that length (bytes, CHUNKED or UNTIL_CLOSE)."""
    if length == CHUNKED:
        return Chunked()
    return UntilClose() if length == UNTIL_CLOSE else Counted(length)


class Counted:
    """A body of `left` more bytes."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    def take(self, data: bytes, start: int) -> int:
        """See `Body.take`."""
        end = start + self.left
        if end <= len(data):
            return end
        self.left = end - len(data)
        return -1


class UntilClose:
    """A body that ends with the connection."""

    __slots__ = ()

    def take(self, data: bytes, start: int) -> int:
        """See `Body.take`."""
        del data, start
        return -1


class Chunked:
    """A chunked body. `_left` counts the data still to come of a chunk; else a line is being read."""

    __slots__ = ("_left", "_line", "_state", "_trailers")

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._state = _SIZE
        self._trailers = 0

    def take(self, data: bytes, start: int) -> int:
        """See `Body.take`."""
        position = start
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            end = data.find(b"\n", position) + 1
            line = self._line + (data[position:end] if end else data[position:])
            if len(line) > _MAX_LINE:
                raise BadMessage(400, "a line of the chunked body is too long")
            if not end:
                if 0 <= line.find(b"\r") < len(line) - 1:
                    raise BadMessage(400, "a line of the chunked body has a CR inside")
                self._line = line
                return -1
            self._line = b""
            position = end
            if self._read(line):
                return position
        return -1

    def _read(self, line: bytes) -> bool:
        """Understand one line; True if it was the body's last."""
        if self._state == _SIZE:
            matched = _SIZE_LINE.fullmatch(line)
            if matched is None:
                raise BadMessage(400, "malformed chunk size")
            self._left = int(matched[1], 16)
            self._state = _DATA_END if self._left else _TRAILER
        elif self._state == _DATA_END:
            if line != b"\r\n":
                raise BadMessage(400, "a chunk is longer than its size says")
            self._state = _SIZE
        elif line == b"\r\n":
            return True
        else:
            self._trailers += 1
            if _TRAILER_LINE.fullmatch(line) is None or self._trailers > _MAX_TRAILERS:
                raise BadMessage(400, "malformed trailer field")
        return False
