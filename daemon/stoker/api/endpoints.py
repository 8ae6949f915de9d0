"""What the API answers: each method reads a request, asks the daemon, gives a document."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from stoker.api import documents, requests
from stoker.api.answers import JSONResponse
from stoker.api.facade import DaemonFacade
from stoker.api.history import history_document
from stoker.api.live import Feed
from stoker.api.names import resolve_device, resolve_replica, resolve_service
from stoker.api.openapi import ENDPOINTS, document
from stoker.api.page import Page
from stoker.api.preview import plan_document
from stoker.api.problems import BadRequestError
from stoker.api.routes import routes_answer
from stoker.api.settling import Settling
from stoker.api.streams import JSON_LINES, SSE, EndlessResponse, request_lines, server_sent_events, start_of
from stoker.decide.demand import KEPT_SECONDS
from stoker.decide.health import IN_BED
from stoker.errors import NotFoundError
from stoker.model.event import TargetChanged
from stoker.model.service import ServiceKey

DECISIONS = 8
"""Changes of a target that `explain` tells."""
_BODIES = {endpoint.name: endpoint.body for endpoint in ENDPOINTS}


class Endpoints:
    """The answers of one daemon. `closing` is set when it ends, so that endless answers end too;
    `settling` is what others wait for when it begins."""

    def __init__(self, facade: DaemonFacade) -> None:
        self.closing = anyio.Event()
        self._facade = facade
        self._feed = Feed(facade)
        self._page = Page()
        self.settling = Settling(facade)

    # --- reading ---

    async def index(self, request: Request) -> Response:
        """The page, for whoever opens the address in a browser."""
        return self._page.answer("index.html", request.headers.get("if-none-match", ""))

    async def page_file(self, request: Request) -> Response:
        """A part of the page."""
        return self._page.answer(request.path_params["file"], request.headers.get("if-none-match", ""))

    async def api_index(self, request: Request) -> Response:
        """A few words for whoever opens the socket by hand."""
        version = self._facade.snapshot().version
        routes = "\n".join(f"{e.method:5}{e.path:22} {e.summary}" for e in ENDPOINTS)
        return PlainTextResponse(
            f"Stoker {version}. This is its API; /v1/openapi.json describes it.\n\n{routes}\n"
        )

    async def healthz(self, request: Request) -> Response:
        """Answers at all: the loop turns."""
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format; its library is loaded when first asked for."""
        from stoker.api.metrics import written

        text, kind = await written(self._facade.snapshot(), request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    async def openapi(self, request: Request) -> Response:
        """The description of this API."""
        return JSONResponse(document(self._facade.snapshot().version))

    async def status(self, request: Request) -> Response:
        """The pool table."""
        snapshot = await self.settling.settled()
        name = request.query_params.get("service")
        return JSONResponse(
            documents.status_document(snapshot, resolve_service(snapshot, name) if name else None)
        )

    async def plan(self, request: Request) -> Response:
        """The files in force, read again."""
        return JSONResponse(plan_document(await self._facade.preview(()), self._facade.snapshot().now))

    async def config(self, request: Request) -> Response:
        """The effective file."""
        return JSONResponse(dict(await self._facade.config_document()))

    async def explain(self, request: Request) -> Response:
        """A replica, a service or a config path."""
        asked = request.query_params
        if name := asked.get("replica"):
            return JSONResponse(await self._explain_replica(name))
        if name := asked.get("service"):
            return JSONResponse(_explained(self._facade, name))
        if name := asked.get("path"):
            return JSONResponse({"kind": "path", **await self._facade.explain_path(name)})
        if name := asked.get("of"):
            return JSONResponse(await self._explain_any(name))
        raise BadRequestError("say what to explain: ?of=, or ?path=, ?service=, ?replica=")

    async def events(self, request: Request) -> Response:
        """A stream, or with `follow=false` the kept events as one document."""
        tail = requests.number(request, "tail")
        start = start_of(self._facade, None if tail is None else int(tail))
        after = request.headers.get("last-event-id") or request.query_params.get("after") or start
        if requests.flag(request, "follow", default=True):
            return EndlessResponse(server_sent_events(self._facade, after), self.closing, media_type=SSE)
        return JSONResponse({"events": documents.story_events(self._facade.recent_events(after))})

    async def live(self, request: Request) -> Response:
        """The page's stream: the state, then what changes."""
        self._feed.check_room()
        return EndlessResponse(self._feed.messages(), self.closing, media_type=SSE)

    async def history(self, request: Request) -> Response:
        """The last hour, service by service, so that other answers need not wait for all of it."""
        snapshot = self._facade.snapshot()
        offset = snapshot.wall - snapshot.now
        seconds = requests.number(request, "seconds")
        since = max(0.0, snapshot.now - (KEPT_SECONDS if seconds is None else seconds))
        services = {}
        for key, found in self._facade.history(since).items():
            services.update(history_document({key: found}, offset))
            await anyio.lowlevel.checkpoint()
        return JSONResponse({"now": round(snapshot.wall, 2), "services": services})

    async def devices(self, request: Request) -> Response:
        """Devices and owners."""
        return JSONResponse(documents.devices_document(self._facade.snapshot()))

    async def routes(self, request: Request) -> Response:
        """Addresses, for routers on other boxes."""
        return routes_answer(request, self._facade, self.closing)

    async def plugins(self, request: Request) -> Response:
        """Plugins and their parts."""
        return JSONResponse(documents.plugins_document(self._facade.plugins()))

    async def story(self, request: Request) -> Response:
        """The chain behind a replica."""
        replica = request.path_params["replica"]
        events = documents.story_events(self._facade.story(replica))
        return JSONResponse({"replica": replica, "events": events})

    async def logs(self, request: Request) -> Response:
        """Workers' output. Unknown names are found out before the stream begins."""
        from stoker.api.logs import LogTail

        name = self._log_name(request.query_params.get("service"))
        tail = requests.number(request, "tail")
        stream = LogTail(
            partial(self._facade.logs, name),
            follow=requests.flag(request, "follow", default=False),
            tail=None if tail is None else int(tail),
            since=requests.number(request, "since"),
        )
        await stream.open()
        return EndlessResponse(stream.lines(), self.closing, media_type=JSON_LINES)

    async def record(self, request: Request) -> Response:
        """Requests as they end. That it cannot be had is found out before the stream begins."""
        name = request.query_params.get("service")
        snapshot = self._facade.snapshot()
        services = [resolve_service(snapshot, name)] if name else list(snapshot.desired.services)
        batches = self._facade.record(services)
        await anext(batches)
        lines = request_lines(batches, snapshot.wall - snapshot.now)
        return EndlessResponse(lines, self.closing, media_type=JSON_LINES)

    # --- changing ---

    async def plan_files(self, request: Request) -> Response:
        """Other files against the running state."""
        body = await self._body(request, "plan_files")
        profile = requests.text(body, "profile") if body.get("profile") is not None else None
        files, sets = requests.texts(body, "files"), requests.texts(body, "sets")
        preview = await self._facade.preview(files, profile=profile, sets=sets)
        return JSONResponse(plan_document(preview, self._facade.snapshot().now))

    async def scale(self, request: Request) -> Response:
        """New bounds for a service."""
        body = await self._body(request, "scale")
        if "replicas" in body:
            low = high = requests.count(body, "replicas")
        else:
            low, high = requests.count(body, "min_replicas"), requests.count(body, "max_replicas")
        if low > high:
            raise BadRequestError(f"min_replicas {low} is larger than max_replicas {high}")
        key = self._service(body)
        await self._facade.scale(key, low, high)
        return _done(f"{key}: {low}" if low == high else f"{key}: {low}..{high}", service=key)

    async def set_values(self, request: Request) -> Response:
        """Live overrides on."""
        values = requests.mapping(await self._body(request, "set_values"), "values")
        await self._facade.set_override(values)
        await self.settling.settled()
        return _done(f"set {', '.join(values)}")

    async def unset_values(self, request: Request) -> Response:
        """Live overrides off."""
        paths = requests.texts(await self._body(request, "unset_values"), "paths")
        if not paths:
            raise BadRequestError("the field 'paths' must name at least one path")
        await self._facade.unset_override(paths)
        await self.settling.settled()
        return _done(f"unset {', '.join(paths)}")

    async def restart(self, request: Request) -> Response:
        """New workers, the old ones by the update strategy."""
        key = self._service(await self._body(request, "restart"))
        await self._facade.restart(key)
        return _done(f"{key}: restarting", service=key)

    async def stop(self, request: Request) -> Response:
        """Held at zero."""
        key = self._service(await self._body(request, "stop"))
        await self._facade.hold(key, held=True)
        return _done(f"{key}: held at zero", service=key)

    async def start(self, request: Request) -> Response:
        """Released."""
        key = self._service(await self._body(request, "start"))
        await self._facade.hold(key, held=False)
        return _done(f"{key}: released", service=key)

    async def cordon(self, request: Request) -> Response:
        """Nothing new on a device."""
        uuid = self._device(await self._body(request, "cordon"))
        await self._facade.mark_device(uuid, "cordoned")
        stay = self._holders(uuid)
        more = f"; {', '.join(stay)} {'stays' if len(stay) == 1 else 'stay'} on it" if stay else ""
        return _done(f"{uuid}: cordoned{more}", device=uuid, replicas=stay)

    async def uncordon(self, request: Request) -> Response:
        """A device is back in use; what made it suspect, or unfit for sets, is forgiven."""
        uuid = self._device(await self._body(request, "uncordon"))
        before = self._facade.snapshot()
        device = before.observed.inventory.get(uuid)
        out = uuid in before.marks or (device and (device.unlinked or device.health == "suspect"))
        await self._facade.mark_device(uuid, None)
        return _done(f"{uuid}: {'in use again' if out else 'was not cordoned'}", device=uuid)

    async def release(self, request: Request) -> Response:
        """A device without any worker."""
        uuid = self._device(await self._body(request, "release"))
        before = self._facade.snapshot()
        devices, go = before.observed.inventory.devices, self._holders(uuid)
        ill = any(d.health in IN_BED for d in devices if uuid in (d.uuid, d.parent))
        await self._facade.mark_device(uuid, "released")
        if ill and uuid not in before.marks:
            text = f"{uuid}: on probation, and then in use again if it stays well"
            return _done(text, device=uuid, replicas=[])
        more = f"{', '.join(go)} will drain and move elsewhere" if go else "no worker was on it"
        return _done(f"{uuid}: released; {more}", device=uuid, replicas=go)

    async def listen(self, request: Request) -> Response:
        """The API on TCP, opened."""
        address = requests.text(await self._body(request, "listen"), "address")
        opened = await self._facade.listen(address)
        return _done(f"listening on {opened}", address=opened)

    async def reload(self, request: Request) -> Response:
        """The files, read again."""
        await self._body(request, "reload")
        await self._facade.reload()
        generation = (await self.settling.settled()).desired.generation
        return _done(f"config generation {generation} in force", generation=generation)

    async def reexec(self, request: Request) -> Response:
        """A new daemon in this process, begun."""
        await self._body(request, "reexec")
        await self._facade.reexec()
        return _done("the daemon is being replaced")

    async def down(self, request: Request) -> Response:
        """The end, begun."""
        await self._body(request, "down")
        await self._facade.down()
        return _done("draining")

    # --- parts of answers ---

    async def _body(self, request: Request, name: str) -> dict[str, Any]:
        body = await requests.read_body(request)
        requests.check_fields(body, _BODIES[name])
        return body

    def _service(self, body: dict[str, Any]) -> ServiceKey:
        return resolve_service(self._facade.snapshot(), requests.text(body, "service"))

    def _device(self, body: dict[str, Any]) -> str:
        return resolve_device(self._facade.snapshot(), requests.text(body, "device"))

    def _holders(self, uuid: str) -> list[str]:
        """Ids of the replicas on a device or on the instances it is cut into."""
        observed = self._facade.snapshot().observed
        mine = {uuid, *(device.uuid for device in observed.inventory.devices if device.parent == uuid)}
        found = observed.replicas.values()
        return sorted(r.id for r in found if any(taken.uuid in mine for taken in r.reservations))

    async def _explain_replica(self, name: str) -> documents.Document:
        snapshot = self._facade.snapshot()
        replica, story = resolve_replica(snapshot, name), self._facade.story(name)
        said = [] if replica.phase == "ready" else await self._facade.last_lines(name)
        return documents.explain_replica(snapshot, replica, story, said)

    async def _explain_any(self, name: str) -> documents.Document:
        snapshot = self._facade.snapshot()
        if name in snapshot.observed.replicas:
            return await self._explain_replica(name)
        try:
            return _explained(self._facade, name)
        except NotFoundError as no_service:
            try:
                return {"kind": "path", **await self._facade.explain_path(name)}
            except NotFoundError as no_path:
                # A dotted name was meant as a path; anything else more likely as a service or replica.
                raise (no_path if "." in name else no_service) from None

    def _log_name(self, name: str | None) -> str | None:
        """A service's key where the name is one; replicas, also those that are gone, go as they are."""
        if not name:
            return None
        try:
            return resolve_service(self._facade.snapshot(), name)
        except NotFoundError:
            return name


def _explained(facade: DaemonFacade, name: str) -> documents.Document:
    """A service with the last decisions and the hour that they were made in."""
    snapshot = facade.snapshot()
    key = resolve_service(snapshot, name)
    events = facade.recent_events()
    decided = [event for event in events if isinstance(event, TargetChanged) and event.service == key]
    past = history_document(facade.history(), snapshot.wall - snapshot.now)
    return documents.explain_service(snapshot, key, decided[-DECISIONS:], past.get(key))


def _done(message: str, **more: Any) -> Response:
    return JSONResponse({"ok": True, "message": message, **more})
