"""Last stage and front door: asks the two stages before it and words the answer.

The addresses of the services it depends on are in its environment; what stands behind them, and how many
replicas of it, is Stoker's business.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

TIMEOUT = 30.0


def call(stage: str, document: dict[str, Any]) -> dict[str, Any]:
    """POST a JSON document to a stage and return its answer. Raises OSError for any answer but 200."""
    address = urlsplit(os.environ[f"STOKER_URL_{stage}"])
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT)
    try:
        connection.request("POST", "/", json.dumps(document), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{stage} answered {response.status}: {body[:200].decode(errors='replace')}")
    return json.loads(body)


async def language(request: Request) -> JSONResponse:
    """Text in the body -> the language it is in."""
    text = (await request.body()).decode(errors="replace")
    try:
        features = await run_sync(call, "PREPROCESS", {"text": text})
        answer = await run_sync(call, "INFERENCE", features)
    except OSError as error:
        return JSONResponse({"error": str(error)}, status_code=502)
    best = max(answer["scores"], key=answer["scores"].get)
    confidence = round(answer["scores"][best], 3)
    return JSONResponse({"language": best, "confidence": confidence, "answered_by": answer["replica"]})


async def usage(request: Request) -> PlainTextResponse:
    """What a browser sees that is pointed at the address."""
    return PlainTextResponse(
        f"POST a text here to learn its language:\n  curl -d 'Wo ist der Bahnhof?' {request.url}\n"
    )


app = Starlette(routes=[Route("/", language, methods=["POST"]), Route("/", usage)])
