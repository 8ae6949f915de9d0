"""Output as both engines send it: frames of STREAM 0 0 0 LENGTH TEXT, the length in four bytes."""

from __future__ import annotations

import struct

_HEAD = struct.Struct(">BxxxI")


class Frames:
    """Takes pieces as they come, gives the texts of whole frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The frames that this piece completes."""
        data, at, found = self._rest + piece, 0, []
        while len(data) - at >= _HEAD.size:
            _, length = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if end > len(data):
                break
            found.append(data[at + _HEAD.size : end])
            at = end
        self._rest = data[at:]
        return found
