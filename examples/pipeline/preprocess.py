"""First stage: text in, hashed character trigrams out. An ordinary ASGI application."""

from __future__ import annotations

import zlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stoker import service

BUCKETS = 1024


def trigrams(text: str) -> dict[str, float]:
    """Return how much of the text each of 1024 buckets of character trigrams makes up."""
    padded = f"  {' '.join(text.lower().split())} "
    hashes = [zlib.crc32(padded[at : at + 3].encode()) % BUCKETS for at in range(len(padded) - 2)]
    return {str(bucket): hashes.count(bucket) / len(hashes) for bucket in sorted(set(hashes))}


async def features(request: Request) -> JSONResponse:
    """`{"text": ...}` -> `{"features": {bucket: share}}`."""
    text = (await request.json())["text"]
    return JSONResponse({"features": trigrams(text)})


# The code layer: defaults that stand next to the code. stoker.yaml beats them.
app = service(traffic={"concurrency": 8}, scaling={"max_replicas": 2})(
    Starlette(routes=[Route("/", features, methods=["POST"])])
)
