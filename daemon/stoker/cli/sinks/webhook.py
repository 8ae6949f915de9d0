"""Events to a URL, one POST each, signed as Standard Webhooks have it, tried again until they arrive.

    webhook-id, webhook-timestamp, webhook-signature: v1,BASE64(HMAC-SHA256(secret, "id.timestamp.body"))

The id stays the same from try to try, so that a receiver can leave out what it has had. Events go in order;
one that is refused for good (4xx) or does not arrive in ten minutes is given up, so that others come through.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from stoker.api.facade import DaemonFacade
from stoker.api.narrate import event_document, severity
from stoker.model.event import Event
from stoker.runtime.options import Observer

LEVELS = ("info", "warning", "error")
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
PATIENCE = 600.0
"""Seconds for which one event is tried."""
TIMEOUT = 10.0
AGAIN = frozenset({0, 408, 425, 429})
"""Answers below 500 after which it is worth trying again; 0: none came."""

Post = Callable[[str, bytes, Mapping[str, str]], tuple[int, str]]
"""(url, body, headers) -> status and words; 0 where no answer came. May block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to, what, and with which secret (None: unsigned)."""

    url: str
    least: str = "warning"
    secret: bytes | None = None

    def wants(self, event: Event) -> bool:
        """Whether the event is worth a message."""
        return LEVELS.index(severity(event)) >= LEVELS.index(self.least)


def webhook(target: Target) -> Observer:
    """An observer that sends there until the daemon ends."""

    async def send(facade: DaemonFacade) -> None:
        courier = Courier(target)
        async with aclosing(facade.events(facade.beginning)) as events:
            async for event in events:
                if target.wants(event):
                    await courier.deliver(event)

    return send


class Courier:
    """Brings one event after the other. `post` sends, `wall` gives seconds since the epoch, `say` tells."""

    def __init__(
        self,
        target: Target,
        *,
        post: Post | None = None,
        wall: Callable[[], float] = time.time,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._target = target
        self._post = post
        self._wall = wall
        self._say = say or (lambda words: sys.stderr.write(f"stoker: {words}\n"))
        self._well = True

    async def deliver(self, event: Event) -> bool:
        """Bring it; returns whether it arrived."""
        body = json.dumps(event_document(event), ensure_ascii=False, separators=(",", ":")).encode(
            errors="replace"
        )
        pause, tried_until = FIRST_PAUSE, anyio.current_time() + PATIENCE
        while True:
            status, words = await self._try(f"evt_{int(event.wall * 1000):x}_{event.id}", body)
            if 200 <= status < 300:
                if not self._well:
                    self._say(f"webhook {self._target.url}: events arrive again")
                self._well = True
                return True
            if self._well:
                self._say(f"webhook {self._target.url}: {words}; event {event.id} is tried again for a while")
            self._well = False
            lasting = status < 500 and status not in AGAIN
            if lasting or anyio.current_time() + pause > tried_until:
                self._say(f"webhook {self._target.url}: event {event.id} is given up: {words}")
                return False
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _try(self, identity: str, body: bytes) -> tuple[int, str]:
        headers = {"content-type": "application/json", "user-agent": "stoker"}
        headers |= signed(self._target.secret, identity, int(self._wall()), body)
        if self._post is not None:
            return self._post(self._target.url, body, headers)
        return await anyio.to_thread.run_sync(
            partial(post, self._target.url, body, headers), abandon_on_cancel=True
        )


def signed(secret: bytes | None, identity: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of a message. Pure."""
    headers = {"webhook-id": identity, "webhook-timestamp": str(at)}
    if secret is not None:
        whole = f"{identity}.{at}.".encode() + body
        digest = base64.b64encode(hmac.new(secret, whole, hashlib.sha256).digest())
        headers["webhook-signature"] = f"v1,{digest.decode()}"
    return headers


def secret_of(text: str) -> bytes:
    """The key in a secret's file: `whsec_` and base64 as Standard Webhooks write it, else the text itself."""
    text = text.strip()
    if text.startswith("whsec_"):
        return base64.b64decode(text.removeprefix("whsec_"))
    return text.encode()


def post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Send it by the standard library. A redirect is an answer: the signature is for this address alone."""
    import http.client
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """Follow none."""

    opener = urllib.request.build_opener(Stay)
    request = urllib.request.Request(url, body, dict(headers), method="POST")
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            return int(answer.status), ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, f"it answered {error.code}"
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return 0, f"it cannot be reached: {reason}"
