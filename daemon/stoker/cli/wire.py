"""Just enough HTTP/1.1 to talk to one's own daemon over a unix socket.

The standard library's client would do, but loading it (with TLS and mail parsing) takes longer than
everything else `stoker status` does together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BufferedReader

from stoker.api.unixsocket import connect, peer_of
from stoker.errors import StokerError

AGENT = "stoker"


class Exchange:
    """One request and its answer; closes its connection at the end of a `with`. Raises OSError when the
    daemon is not there, EOFError when it goes in the middle of an answer."""

    def __init__(self, path: str, timeout: float) -> None:
        self._socket = connect(path, timeout)
        try:
            peer = peer_of(self._socket)
            if peer.uid not in {0, os.geteuid(), os.stat(path).st_uid}:
                raise StokerError(
                    f"{path} is served by uid {peer.uid}, to whom it does not belong, and is not trusted; "
                    "remove it, or name the daemon's own socket with --socket"
                )
        except (OSError, StokerError):
            self._socket.close()
            raise
        self._file: BufferedReader = self._socket.makefile("rb")
        self._headers: dict[str, str] = {}
        self.status = 0

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, method: str, target: str, body: bytes | None) -> None:
        """Send the request and read the answer's head into `status`."""
        head = f"{method} {target} HTTP/1.1\r\nhost: {AGENT}\r\nconnection: close\r\n"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self._socket.sendall(head.encode("ascii") + b"\r\n" + (body or b""))
        words = self._line().split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            raise EOFError("no HTTP answer")
        self.status = int(words[1])
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self._headers[name.lower()] = value.strip().lower()

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self._pieces())

    def lines(self) -> Iterator[bytes]:
        """The body line by line as it comes; quiet times of any length are normal."""
        self._socket.settimeout(None)
        rest = b""
        for piece in self._pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def _pieces(self) -> Iterator[bytes]:
        if self._headers.get("transfer-encoding") == "chunked":
            while size := int(self._line().partition(b";")[0], 16):
                yield self._exactly(size)
                self._line()
        elif "content-length" in self._headers:
            yield self._exactly(int(self._headers["content-length"]))
        else:
            while piece := self._file.read1(65536):
                yield piece

    def _line(self) -> bytes:
        line = self._file.readline(65536)
        if not line.endswith(b"\n"):
            raise EOFError("the connection ended")
        return line.rstrip(b"\r\n")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the connection ended")
        return data
