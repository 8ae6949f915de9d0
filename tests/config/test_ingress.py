"""Addresses at which clients ask: certificates and front doors."""

from pathlib import Path

import pytest
import trustme

from config.conftest import Box
from stoker.model.door import Door, DoorRule

HEAD = "services:\n  web: {command: run, depends: [db]}\n  db: {command: run}\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem, and other.pem, the key of another."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    one, other = ca.issue_cert("localhost"), ca.issue_cert("localhost")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in one.cert_chain_pems))
    (folder / "key.pem").write_bytes(one.private_key_pem.bytes())
    (folder / "other.pem").write_bytes(other.private_key_pem.bytes())
    (folder / "locked.pem").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    (folder / "text").write_text("hello\n")
    return folder


def door(box: Box, text: str) -> Door:
    box.write("stoker.yaml", HEAD + text)
    (found,) = box.load().desired.doors
    return found


def test_the_service_that_no_other_calls_is_at_the_door(box: Box) -> None:
    found = door(box, "ingress: {}\n")
    assert (found.url, found.waiting_page) == ("http://127.0.0.1:8080", 2.0)
    assert found.rules == (DoorRule(service="stoker/web"),)


def test_routes_and_an_entry(box: Box) -> None:
    text = (
        "ingress: {port: 9000, host: '::1', entry: db, "
        "routes: [{service: web, path: /w/, host: A.b, strip: true}]}\n"
    )
    found = door(box, text)
    assert found.url == "http://[::1]:9000"
    assert found.rules == (
        DoorRule(service="stoker/web", host="a.b", path="/w", strip=True),
        DoorRule(service="stoker/db"),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ingress: {entry: wbe}", "4:18: ingress.entry: there is no service wbe; did you mean web?"),
        (
            "ingress: {routes: [{service: wep}]}",
            "4:30: ingress.routes.0.service: there is no service wep; did you mean web?",
        ),
        ("ingress: {routes: [{path: /a}]}", "4:20: ingress.routes.0: names no service; add service: NAME"),
        (
            "ingress: {routes: [{service: web}, {service: db, path: /}]}",
            "4:36: ingress.routes.1: is for the same requests as the route to stoker/web; remove one of them",
        ),
        (
            "ingress: {routes: [{service: web, path: a}]}",
            ("4:41: ingress.routes.0.path: must be a path that begins with /, for example "
            "/chat; found the text \"a\""),
        ),
        ("ingress: {prot: 1}", "4:11: ingress.prot: unknown key; did you mean port?"),
        (
            "ingress: {trusted_proxies: [10.0.0.0/99]}",
            ("4:29: ingress.trusted_proxies.0: must be an address or a network, for example "
            "10.0.0.0/8; found the text \"10.0.0.0/99\""),
        ),
        (
            "ingress: {tls: {cert: a.pem}}",
            "4:11: ingress.tls: needs `key`, the path of a PEM file, for example tls/key.pem",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_with_its_place(box: Box, text: str, problem: str) -> None:
    box.write("stoker.yaml", HEAD + text + "\n")
    assert box.problems() == [f"stoker.yaml:{problem}"]


def test_without_one_service_at_the_top_it_has_to_be_said(box: Box) -> None:
    box.write("stoker.yaml", "services: {a: {command: x}, b: {command: x}}\ningress: {}\n")
    (problem,) = box.problems()
    assert problem == (
        "stoker.yaml:2:1: ingress: needs an `entry` or `routes`: no single service is at the top (a, b)"
    )


def test_deployments_share_a_door_and_no_requests(box: Box) -> None:
    box.write("a.yaml", "services: {web: {command: x}}\ningress: {}\n")
    box.write(
        "b.yaml", "services: {web: {command: x}}\ningress: {routes: [{service: web, path: /b}], entry: web}\n"
    )
    assert box.problems("a.yaml", "b.yaml") == [
        "b.yaml:2:1: ingress: any host / leads to a/web already; add a host or a path"
    ]
    box.write("b.yaml", "services: {web: {command: x}}\ningress: {routes: [{service: web, host: b.c}]}\n")
    box.write("a.yaml", "services: {web: {command: x}}\ningress: {port: 8080}\n")
    (problem,) = box.problems("a.yaml", "b.yaml")
    assert "any host / leads to a/web already" in problem
    box.write(
        "b.yaml",
        "services: {w: {command: x}, v: {command: x}}\ningress: {routes: [{service: w, host: b.c}]}\n",
    )
    (found,) = box.load("a.yaml", "b.yaml").desired.doors
    assert [rule.service for rule in found.rules] == ["a/web", "b/w"]
    box.write("b.yaml", "services: {web: {command: x, endpoint: {port: 8080}}}\n")
    assert box.problems("a.yaml", "b.yaml") == [
        "a.yaml:2:17: ingress.port: port 8080 is already the address of b/web; give one of them another"
    ]


@pytest.mark.parametrize(
    ("cert", "key", "problem"),
    [
        ("no.pem", "key.pem", "cert: cannot read {0}/no.pem: No such file or directory"),
        ("cert.pem", "no.pem", "key: cannot read {0}/no.pem: No such file or directory"),
        (".", "key.pem", "cert: cannot read {0}: Is a directory"),
        ("cert.pem", "other.pem", "key: {0}/other.pem is not the key of the certificate in {0}/cert.pem"),
        ("text", "key.pem", "cert: {0}/text holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"),
        (
            "cert.pem", "cert.pem",
            "key: {0}/cert.pem holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)",
        ),
        (
            "cert.pem", "locked.pem",
            ("key: {0}/locked.pem is locked by a passphrase, which nobody could type at a "
            "restart; remove it"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["services.web.endpoint.tls", "ingress.tls"])
def test_a_pair_that_is_none_is_told_with_its_place(
    box: Box, pair: Path, where: str, cert: str, key: str, problem: str
) -> None:
    tls = f"{{tls: {{cert: {pair / cert}, key: {pair / key}}}}}"
    at_service = f"services:\n  web:\n    command: x\n    endpoint: {tls}\n"
    box.write(
        "stoker.yaml",
        at_service if where.startswith("s") else f"services: {{web: {{command: x}}}}\ningress: {tls}\n",
    )
    (told,) = box.problems()
    place, _, words = told.partition(": ")
    assert words == f"{where}.{problem.format(pair)}"
    assert place.startswith("stoker.yaml:4:" if where.startswith("s") else "stoker.yaml:2:")


def test_a_new_certificate_is_a_change(box: Box, pair: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        box.write(f"tls/{name}", (pair / name).read_text())
    box.write(
        "stoker.yaml",
        "services: {web: {command: x, endpoint: {tls: {cert: tls/cert.pem, key: tls/key.pem}}}}\n",
    )
    before = box.load()
    tls = before.desired.services["stoker/web"].endpoint.tls
    assert tls is not None
    assert (tls.cert, tls.key) == (str(box.folder / "tls/cert.pem"), str(box.folder / "tls/key.pem"))
    assert {tls.cert, tls.key} <= set(before.watch)
    assert box.load().desired == before.desired
    other = trustme.CA().issue_cert("localhost")
    box.write("tls/cert.pem", other.cert_chain_pems[0].bytes().decode())
    box.write("tls/key.pem", other.private_key_pem.bytes().decode())
    assert box.load().desired != before.desired
    box.write("tls/key.pem", "")
    with pytest.raises(Exception, match="holds no private key") as refused:
        box.load()
    assert tls.key in refused.value.watch
