"""The router's hop in the trace of a request: how long it waited, who had it, which tries failed. Pure."""

from __future__ import annotations

from stoker.cli.sinks.span import Attributes, Moment, Place, Span
from stoker.model.trace import RequestSpan


def request_span(request: RequestSpan, offset: float) -> Span:
    """The request as a span with OpenTelemetry's names for HTTP. `offset`: what has to be added to monotonic
    seconds for those since the epoch."""
    arrived, ended = request.arrived + offset, request.ended + offset
    moments = [
        Moment("try failed", failed.at + offset, {"stoker.replica": failed.worker, "reason": failed.reason})
        for failed in request.failed
    ]
    if request.began:
        moments.append(Moment("answer begun", request.began + offset))
    if not request.status:
        moments.append(Moment("client went away", ended))
    name = request.service.rpartition("/")[2]
    wait = Span(name="wait for a worker", begin=arrived, end=min(arrived + request.waited, ended))
    return Span(
        name=f"{request.method} {name}",
        begin=arrived,
        end=ended,
        attributes=_attributes(request),
        steps=(wait,) if request.waited > 0 else (),
        moments=tuple(moments),
        trouble=_trouble(request),
        place=Place(request.trace, request.parent, request.span),
        server=True,
    )


def _attributes(request: RequestSpan) -> Attributes:
    deployment, _, service = request.service.rpartition("/")
    said: Attributes = {
        "http.request.method": request.method,
        "http.response.status_code": request.status,
        "url.path": request.path,
        "server.address": request.host,
        "client.address": request.client,
        "user_agent.original": request.agent,
        "stoker.deployment": deployment,
        "stoker.service": service,
        "stoker.replica": request.worker,
        "stoker.wait": round(request.waited, 6),
        "stoker.tries": request.tries,
    }
    return {key: value for key, value in said.items() if value or key in ("stoker.wait", "stoker.tries")}


def _trouble(request: RequestSpan) -> str:
    """As HTTP servers have it: what is the caller's own doing is no failure of ours."""
    if request.status < 500:
        return ""
    return request.failed[-1].reason if request.failed else f"status {request.status}"
