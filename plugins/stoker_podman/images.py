"""Images: whether they are on the box, and fetching them before anything waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

from stoker.errors import WorkerError
from stoker.model.service import Container
from stoker_podman.api import Engine, EngineError, EngineLostError


async def provide(engine: Engine, container: Container, say: Callable[[str], None]) -> None:
    """Return when the image is there; `say` hears what takes time. Raises WorkerError."""
    image = container.image
    try:
        there = await _is_there(engine, image)
        if there and container.pull != "always":
            return
        if container.pull == "never":
            raise WorkerError(
                f"the image {image} is not on this box, and `pull: never` keeps it from being fetched; "
                f"podman pull {image}, or remove `pull`"
            )
        say(f"pulling image {image}")
        refusal = await _pull(engine, image)
    except EngineLostError as error:
        raise WorkerError(str(error)) from error
    except EngineError as error:
        refusal = str(error)
    if refusal and not there:
        raise WorkerError(f"cannot pull image {image}: {refusal}")


async def _is_there(engine: Engine, image: str) -> bool:
    try:
        await engine.call("GET", f"/images/{quote(image, safe='')}/exists")
    except EngineError as error:
        if error.status == 404:
            return False
        raise
    return True


async def _pull(engine: Engine, image: str) -> str:
    """Fetch it; returns what the engine complains of, "" for nothing."""
    said = bytearray()
    await engine.stream("POST", "/images/pull", said.extend, reference=image, quiet="true")
    complaint = ""
    for line in said.splitlines():
        try:
            complaint = json.loads(line).get("error", "") or complaint
        except ValueError:
            continue
    return " ".join(complaint.split())
