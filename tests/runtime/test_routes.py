"""What the router may have in flight, as far as the daemon can tell."""

from __future__ import annotations

from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.runtime.routes import RouteFeed


def test_until_a_table_was_published_any_worker_may_be_in_use() -> None:
    feed = RouteFeed()
    assert feed.knows("web-1"), "the router may go by the table of the daemon before"
    worker = WorkerRoute(id="web-1", endpoint="127.0.0.1:1")
    route = Route(service="demo/web", host="127.0.0.1", port=2, workers=(worker,))
    feed.publish(RoutingTable(routes={"demo/web": route}))
    assert feed.knows("web-1")
    assert not feed.knows("web-2")
    feed.publish(RoutingTable())
    assert not feed.knows("web-1")
