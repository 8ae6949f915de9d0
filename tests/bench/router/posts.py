"""POST requests, each with a number, while workers are killed: which failed, and who had read them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLIENTS = 32


class Posts:
    """Clients on kept connections that send `requests` of them in all."""

    def __init__(self, port: int, requests: int) -> None:
        self._port = port
        self._left = iter(range(requests))
        self.requests = requests
        self.answered: list[int] = []
        self.failed: list[int] = []

    async def run(self) -> None:
        """Send them all."""
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        connection = None
        for number in self._left:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = connection
            writer.write(b"POST /%d HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\nx" % number)
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
            except (asyncio.IncompleteReadError, OSError, TimeoutError):
                head = b""
            (self.answered if b" 200 " in head[:13] else self.failed).append(number)
            if not head or b"connection: close" in head.lower():
                writer.close()
                connection = None

    def judge(self, receipts: Iterable[Path]) -> dict[str, Any]:
        """What came of them, by what the workers have read."""
        text = b"".join(path.read_bytes() for path in receipts)
        read = Counter(map(int, re.findall(rb"POST /(\d+) HTTP", text)))
        return {
            "requests": self.requests,
            "failed": len(self.failed),
            "of these read by a worker that was then killed": sum(number in read for number in self.failed),
            "of these unread in its socket": sum(number not in read for number in self.failed),
            "done twice": sum(count > 1 for count in read.values()),
            "answered but never read": sum(number not in read for number in self.answered),
        }
