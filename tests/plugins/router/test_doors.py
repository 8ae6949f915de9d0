"""One address for several services: whom a request is for, and what people see while nobody is there."""

import json

import pytest

from plugins.router.harness import SERVICE, Router, client, get, together, until, worker
from stoker.model.door import Door, DoorRule
from stoker.plugin.testing.free_ports import free_port

HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


async def opened(router: Router, *rules: DoorRule, **settings) -> int:
    """The port of a door with these rules."""
    port = settings.pop("port", 0) or free_port()
    router.doors = (Door(host="127.0.0.1", port=port, rules=rules, **settings),)
    await router.apply()
    return port


async def test_by_path_and_by_host_the_most_exact_rule_counts(router: Router) -> None:
    async with worker("a") as a, worker("b") as b, worker("c") as c:
        for name, one in (("x/a", a), ("x/b", b), ("x/c", c)):
            await router.route(one.route(), service=name)
        rules = (
            DoorRule(service="x/a"),
            DoorRule(service="x/b", path="/b"),
            DoorRule(service="x/c", path="/b/c"),
            DoorRule(service="x/c", host="c.example"),
            DoorRule(service="x/b", host="c.example", path="/only"),
        )
        port = await opened(router, *rules)
        async with client(port) as one:
            for path, host, who in (
                ("/", "test", "a"), ("/b", "test", "b"), ("/b/x?y", "test", "b"), ("/bc", "test", "a"),
                ("/b/c", "test", "c"), ("/b/c/d", "test", "c"), ("/b?/c", "test", "b"),
                ("/b", "C.example:81", "c"), ("/only/1", "c.example.", "b"), ("*", "test", "a"),
                ("http://c.example/b", "test", "c"),
            ):  # fmt: skip
                one.send(f"OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
                assert (await one.answer()).body.decode() == who, (path, host)
        assert a.connections == b.connections == c.connections == 1


async def test_a_stripped_prefix_is_told(router: Router) -> None:
    async with worker() as one:
        await router.route(one.route())
        port = await opened(router, DoorRule(service=SERVICE, path="/chat", strip=True))
        for path, seen in (
            ("/chat", "/"), ("/chat/", "/"), ("/chat/a?b=/chat", "/a?b=/chat"), ("/chat?q", "/?q"),
            ("http://h/chat/z", "/z"),
        ):  # fmt: skip
            assert (await get(port, path)).status == 200
            assert one.heard[-1].line == f"GET {seen} HTTP/1.1"
            assert one.heard[-1].fields["x-forwarded-prefix"] == "/chat"


async def test_what_no_rule_names_is_404_in_the_form_that_was_asked_for(router: Router) -> None:
    async with worker() as one:
        await router.route(one.route())
        port = await opened(router, DoorRule(service=SERVICE, path="/a"))
        answer = await get(port, "/b")
        assert (answer.status, answer.error) == (404, "no service is at test/b")
        page = await get(port, "/b", HTML)
        assert page.fields["content-type"] == "text/html; charset=utf-8"
        assert b"No service is at test/b." in page.body
        assert (await get(port, "/b", "Accept: application/json, text/html")).error
        assert (await get(port, "/a/..%2fb")).status == 400
        assert (await get(port, "/a/%2e%2E/b")).status == 400
        assert one.heard == []


async def test_words_in_a_page_are_words(router: Router) -> None:
    await router.route(held='stopped <script>alert("x")</script>')
    port = await opened(router, DoorRule(service=SERVICE))
    page = await get(port, "/", HTML)
    assert page.status == 503
    assert b"<script>" not in page.body
    assert b"&lt;script&gt;" in page.body
    assert page.fields["retry-after"] == "5" == page.fields["refresh"]
    plain = await get(port, "/", "Accept: application/json")
    assert json.loads(plain.body) == {"error": 'stopped <script>alert("x")</script>'}
    assert "refresh" not in plain.fields


async def test_a_browser_is_shown_a_page_while_a_service_starts_and_others_wait(router: Router) -> None:
    await router.route()
    port = await opened(router, DoorRule(service=SERVICE), waiting_page=0.2)
    async with client(port) as program:
        program.get("/")
        page = await get(port, "/", HTML)
        assert (page.status, page.fields["refresh"]) == (503, "1")
        assert b"Web is starting." in page.body
        assert router.facts.demands
        async with worker() as one:
            await router.route(one.route())
            assert (await program.answer()).body == b"w"
            assert (await get(port, "/", HTML)).body == b"w"
    await router.settled(arrivals=3)
    assert router.facts.codes() == {"2xx": 2, "5xx": 1}


async def test_a_browser_waits_for_a_worker_that_is_only_busy(router: Router) -> None:
    async with worker() as one:
        one.gate.clear()
        await router.route(one.route(1))
        port = await opened(router, DoorRule(service=SERVICE), waiting_page=0.1)
        async with client(port) as first, client(port) as second:
            first.get("/")
            await until(lambda: one.busy)
            second.get("/", HTML)
            await until(lambda: router.facts.total("queued_seconds") > 0.2)
            one.gate.set()
            assert [answer.status for answer in await together(first.answer(), second.answer())] == [200, 200]


async def test_a_connection_outlives_a_service_behind_it_and_ends_with_its_door(router: Router) -> None:
    async with worker("a") as a, worker("b") as b:
        await router.route(a.route(), service="x/a")
        await router.route(b.route(), service="x/b")
        port = await opened(router, DoorRule(service="x/a", path="/a"), DoorRule(service="x/b", path="/b"))
        async with client(port) as one:
            one.get("/a")
            assert (await one.answer()).body == b"a"
            await router.remove("x/a")
            one.get("/b")
            assert (await one.answer()).body == b"b"
            one.get("/a")
            assert (await one.answer()).error == "no way leads from here to a; ask at its own address"
        async with client(port) as one:
            one.get("/b")
            await one.answer()
            router.doors = ()
            await router.apply()
            assert await one.closed()
    with pytest.raises(ConnectionRefusedError):
        await get(port)


async def test_a_service_that_another_router_has_is_reached_by_the_door_alone(router: Router) -> None:
    """The route is `inner`: its one worker is that router. Its own address is not opened here."""
    async with worker("other router") as other, worker("own") as own:
        own_port = free_port()
        await router.route(own.route(), port=own_port)
        port = await opened(router, DoorRule(service=SERVICE))
        assert (await get(port)).body == b"own"
        await router.route(other.route(), port=own_port, inner=True)
        async with client(port) as one:
            one.send(b"GET /x HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
            assert (await one.answer()).body == b"other router"
        assert other.heard[-1].fields["x-forwarded-for"].startswith("192.0.2.1")
        with pytest.raises(OSError):  # noqa: PT011 - refused
            await get(own_port)
        await router.route(own.route(), port=own_port, inner=False)
        assert (await get(own_port)).body == (await get(port)).body == b"own"
