"""Images: whether they are on the box, and fetching them before anything waits for it."""

from __future__ import annotations

from collections.abc import Callable

from stoker.errors import WorkerError
from stoker.model.service import Container, Probe
from stoker_podman.api import EngineError, EngineLostError
from stoker_podman.health import probe_of
from stoker_podman.kind import Kind


async def provide(kind: Kind, container: Container, say: Callable[[str], None]) -> Probe | None:
    """Return the image's own check when it is there; `say` hears what takes time. Raises WorkerError."""
    await _fetch(kind, container, say)
    try:
        return probe_of(await kind.healthcheck(container.image))
    except (EngineError, EngineLostError) as error:
        raise WorkerError(str(error)) from error


async def _fetch(kind: Kind, container: Container, say: Callable[[str], None]) -> None:
    image = container.image
    try:
        there = await kind.has(image)
        if there and container.pull != "always":
            return
        if container.pull == "never":
            raise WorkerError(
                f"the image {image} is not on this box, and `pull: never` keeps it from being fetched; "
                f"{kind.name} pull {image}, or remove `pull`"
            )
        say(f"pulling image {image}")
        refusal = await kind.pull(image)
    except EngineLostError as error:
        raise WorkerError(str(error)) from error
    except EngineError as error:
        refusal = str(error)
    if refusal and not there:
        raise WorkerError(f"cannot pull image {image}: {refusal}")
