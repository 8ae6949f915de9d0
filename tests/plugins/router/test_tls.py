"""Certificates, and who is believed about where a request comes from."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from plugins.router.harness import SERVICE, Client, Router, client, get, until, worker
from stoker.model.door import Door, DoorRule, Tls
from stoker_router.proxied import BadHeader, read_header


class Authority:
    """A certificate authority of the test's, and pairs of files made by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.clients: list[Client] = []

    def issue(self, name: str = "localhost") -> Tls:
        """A new certificate in the same two files."""
        made = self.ca.issue_cert(name)
        tls = Tls(cert=str(self.folder / "cert.pem"), key=str(self.folder / "key.pem"))
        Path(tls.cert).write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        Path(tls.key).write_bytes(made.private_key_pem.bytes())
        return tls

    async def connect(self, port: int, name: str = "localhost", before: bytes = b"") -> Client:
        """A connection that trusts this authority; `before` is sent in plain text."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(before)
        sock.setblocking(False)
        opened = asyncio.open_connection(sock=sock, ssl=context, server_hostname=name, limit=1 << 22)
        made = Client(*await asyncio.wait_for(opened, 15))
        self.clients.append(made)
        return made


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    made = Authority(tmp_path)
    yield made
    for one in made.clients:  # the end of TLS takes an answer, for which a closing loop does not wait
        one.abort()
        with contextlib.suppress(OSError):
            await asyncio.wait_for(one.writer.wait_closed(), 15)


async def test_https_with_everything_that_http_has(router: Router, authority: Authority) -> None:
    async with worker() as one:
        port = await router.route(one.route(), tls=authority.issue())
        made = await authority.connect(port)
        assert made.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        made.get("/a")
        assert (await made.answer()).body == b"w"
        assert one.heard[-1].fields["x-forwarded-proto"] == "https"
        made.post("/b", b"x" * 300_000)
        assert (await made.answer()).body == b"w"
        assert one.heard[-1].body == b"x" * 300_000
        made.send("GET / HTTP/1.1\r\n\r\n")
        assert (await made.answer()).status == 400
        assert await made.closed()
        made.writer.close()


async def test_a_client_that_goes_away_is_felt_by_the_worker(router: Router, authority: Authority) -> None:
    async with worker() as one:
        one.gate.clear()
        port = await router.route(one.route(), tls=authority.issue())
        made = await authority.connect(port)
        made.get("/")
        await until(lambda: one.busy)
        made.abort()
        await until(lambda: one.hung_up)


async def test_a_new_certificate_drops_no_connection(router: Router, authority: Authority) -> None:
    async with worker() as one:
        port = await router.route(one.route(), tls=authority.issue("first.example"))
        before = await authority.connect(port, "first.example")
        before.get("/")
        await before.answer()
        await router.route(one.route(), tls=Tls(**_fields(authority.issue("second.example")), version="2"))
        after = await authority.connect(port, "second.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            await authority.connect(port, "first.example")
        for made in (before, after):
            made.get("/")
            assert (await made.answer()).body == b"w"
            made.writer.close()


async def test_a_bad_certificate_is_said_and_the_one_before_stays(
    router: Router, authority: Authority
) -> None:
    async with worker() as one:
        tls = authority.issue()
        port = await router.route(one.route(), tls=tls)
        other = trustme.CA().issue_cert("localhost")
        Path(tls.key).write_bytes(other.private_key_pem.bytes())
        await router.route(one.route(), tls=Tls(**_fields(tls), version="bad"))
        await until(lambda: router.facts.troubles)
        assert (
            "the key is of another certificate; the certificate from before stays"
            in router.facts.troubles[-1][1]
        )
        made = await authority.connect(port)
        made.get("/")
        assert (await made.answer()).body == b"w"
        made.writer.close()


async def test_without_a_usable_certificate_nothing_is_said_in_plain_text(
    router: Router, authority: Authority
) -> None:
    missing = Tls(cert="/nowhere/cert.pem", key="/nowhere/key.pem", version="1")
    async with worker() as one:
        port = await router.route(one.route(), tls=missing)
        await until(lambda: router.facts.troubles)
        assert "No such file" in router.facts.troubles[-1][1]
        await router.route(one.route(), tls=Tls(**_fields(authority.issue()), version="2"))
        made = await authority.connect(port)
        made.get("/")
        assert (await made.answer()).body == b"w"
        made.writer.close()
        await router.route(one.route(), tls=None)
        assert (await get(port)).body == b"w"


def _fields(tls: Tls) -> dict[str, str]:
    return {"cert": tls.cert, "key": tls.key}


# --- the PROXY protocol -----------------------------------------------------------------------------------

V2 = b"\r\n\r\n\0\r\nQUIT\n"
FROM = bytes([203, 0, 113, 7]), bytes([10, 0, 0, 1])


def v2(command: int = 0x21, family: int = 0x11, body: bytes = b"".join(FROM) + b"\0\1\0\2") -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(body)) + body


@pytest.mark.parametrize(
    ("header", "who"),
    [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n", "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (v2(), "203.0.113.7"),
        (v2(family=0x21, body=socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(20)), "2001:db8::7"),
        (v2(body=b"".join(FROM) + b"\0\1\0\2" + b"\x04\0\1x"), "203.0.113.7"),
        (v2(command=0x20), "127.0.0.1"),
    ],
)
async def test_a_proxy_says_whose_the_connection_is(router: Router, header: bytes, who: str) -> None:
    async with worker() as one:
        port = await router.route(one.route(), proxy_protocol=True)
        async with client(port) as made:
            for cut in (header[:5], header[5:]):
                made.send(cut)
                await made.writer.drain()
                await asyncio.sleep(0.01)
            made.get("/", "X-Forwarded-For: 6.6.6.6")
            assert (await made.answer()).body == b"w"
        chain = one.heard[-1].fields["x-forwarded-for"]
        assert chain == (who if who != "127.0.0.1" else "6.6.6.6, 127.0.0.1")


async def test_a_proxy_header_comes_before_tls(router: Router, authority: Authority) -> None:
    async with worker() as one:
        port = await router.route(one.route(), tls=authority.issue(), proxy_protocol=True)
        made = await authority.connect(port, before=b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n")
        made.get("/")
        assert (await made.answer()).body == b"w"
        assert one.heard[-1].fields["x-forwarded-for"] == "203.0.113.7"
        made.writer.close()


@pytest.mark.parametrize(
    "wrong",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n",
     b"P" * 200, v2(command=0x31), v2(body=b"\0")],
)  # fmt: skip
async def test_who_does_not_say_who_he_is_is_not_served(router: Router, wrong: bytes) -> None:
    async with worker() as one:
        port = await router.route(one.route(), proxy_protocol=True)
        async with client(port) as made:
            made.send(wrong)
            with contextlib.suppress(ConnectionResetError):
                assert await made.closed()
        assert one.heard == []


async def test_a_stranger_may_not_say_whose_a_connection_is(router: Router) -> None:
    async with worker() as one:
        port = await router.route(one.route(), proxy_protocol=True, trusted_proxies=("192.0.2.0/24",))
        async with client(port) as made:
            assert await made.closed()


@given(st.binary(max_size=80))
def test_any_beginning_is_a_header_or_none(tail: bytes) -> None:
    for begin in (b"", b"PROXY ", V2, V2 + b"\x21\x11\0\x0c"):
        try:
            found = read_header(begin + tail)
        except BadHeader:
            continue
        if found is not None:
            assert 0 < found[0] <= len(begin + tail)


async def test_only_a_trusted_proxy_is_believed(router: Router) -> None:
    said = (
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Prefix: /x",
        "Forwarded: for=6.6.6.6",
    )
    async with worker() as one:
        port = await router.route(one.route(), trusted_proxies=("10.0.0.0/8",))
        await get(port, "/", *said)
        fields = one.heard[-1].fields
        assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == ("127.0.0.1", "http")
        assert "forwarded" not in fields
        assert "x-forwarded-prefix" not in fields
        await router.route(one.route(), trusted_proxies=("127.0.0.1/32",))
        await get(port, "/", *said)
        fields = one.heard[-1].fields
        assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == ("6.6.6.6, 127.0.0.1", "https")
        assert fields["forwarded"] == "for=6.6.6.6"


async def test_a_front_door_with_a_certificate(router: Router, authority: Authority) -> None:
    async with worker() as one:
        await router.route(one.route())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        rule = DoorRule(service=SERVICE)
        router.doors = (Door(host="127.0.0.1", port=port, tls=authority.issue(), rules=(rule,)),)
        await router.apply()
        made = await authority.connect(port)
        made.get("/")
        assert (await made.answer()).body == b"w"
        assert one.heard[-1].fields["x-forwarded-proto"] == "https"
        made.writer.close()
