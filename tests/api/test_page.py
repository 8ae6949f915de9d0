"""The page's files as they are served, and that they keep to themselves."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

import stoker.api.page
from api.fakes import Served
from api.wire import Connection, refused

WEB = Path(stoker.api.page.__file__).parent / "web"
FILES = sorted(path.name for path in WEB.iterdir())


def ask(live: Served, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    with closing(Connection(live.socket)) as connection:
        connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_kind_and_a_strict_policy(live: Served, name: str) -> None:
    status, headers, body = ask(live, f"/page/{name}")
    assert status == 200
    assert body == (WEB / name).read_bytes()
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    status, _, body = ask(live, f"/page/{name}", if_none_match=headers["etag"])
    assert (status, body) == (304, b"")


def test_the_page_stands_at_the_root(live: Served) -> None:
    status, headers, body = ask(live, "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert body == (WEB / "index.html").read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "..", "%2e%2e%2fpage.py", "..%2fserver.py", ""])
def test_nothing_else_is(live: Served, name: str) -> None:
    assert refused(live.socket, "GET", f"/page/{name}")["status"] == 404


def test_the_page_names_files_of_its_own_only() -> None:
    for name in FILES:
        text = (WEB / name).read_text()
        assert not re.findall(r"(?:src|href|from|url)\s*[=(]?\s*[\"']?(?:https?:)?//", text), name
        for asked in re.findall(r"[\"'(](?:/page/|\./)([\w.-]+)[\"')]", text):
            assert asked in FILES, f"{name} asks for {asked}"
    assert "<script>" not in (WEB / "index.html").read_text()
    assert not re.search(r"\son\w+=|style=", (WEB / "index.html").read_text()), "inline code or style"
