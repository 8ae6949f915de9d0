"""A page of another site, in a real Chromium, against a socket that ssh has forwarded to the same desk: the
browser lends it everything that it has, and nothing is done and nothing told."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.fakes import FakeDaemon, served
from stoker.api.unixsocket import connect

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]

ATTACKS = """
const at = `http://127.0.0.1:${new URLSearchParams(location.search).get("port")}`;
const told = [];
async function attempt(name, path, options) {
  try {
    const answer = await fetch(at + path, options);
    told.push([name, answer.type, answer.type === "opaque" ? "" : await answer.text()]);
  } catch (error) { told.push([name, "failed", ""]); }
}
const body = JSON.stringify({service: "infer", replicas: 0});
await attempt("simple post", "/v1/down", {method: "POST", mode: "no-cors"});
const as = (kind) => ({method: "POST", body, headers: {"content-type": kind}});
await attempt("text post", "/v1/scale", {...as("text/plain"), mode: "no-cors"});
await attempt("credentials", "/v1/down", {method: "POST", credentials: "include"});
await attempt("json post", "/v1/scale", as("application/json"));
await attempt("read", "/v1/status", {});
await attempt("beacon", "/v1/status", {mode: "no-cors"});
navigator.sendBeacon(at + "/v1/down", "");
const image = new Image();
await new Promise((done) => { image.onload = image.onerror = done; image.src = at + "/v1/status"; });
const frame = document.createElement("iframe");
frame.src = at + "/";
await new Promise((done) => { frame.onload = done; document.body.append(frame); setTimeout(done, 2000); });
let inside = "";
try { inside = frame.contentDocument.body.textContent; } catch (error) { inside = ""; }
told.push(["frame", "", inside]);
window.told = told;
"""


@contextmanager
def site(**pages: bytes) -> Iterator[int]:
    """Another site on a port of its own."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path.partition("?")[0].strip("/") or "index", b"")
            self.send_response(200)
            self.send_header("content-type", "text/javascript" if "js" in self.path else "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def forwarded(path: str) -> Iterator[int]:
    """`ssh -L PORT:SOCKET`, without ssh."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def join(here: socket.socket) -> None:
        with here, connect(path) as there:
            back = threading.Thread(target=carry, args=(there, here))
            back.start()
            carry(here, there)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=join, args=(listener.accept()[0],), daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_page_of_another_site_can_do_and_learn_nothing(tmp_path: Path) -> None:
    daemon = FakeDaemon()
    form = b"<form id=f method=post enctype=text/plain action='http://127.0.0.1:%d/v1/down'></form>"
    page = b"<!doctype html><body><script type=module src=/js></script>"
    with (
        served(daemon, tmp_path / "s.sock") as live,
        forwarded(live.socket) as port,
        site(index=page, js=ATTACKS.encode(), form=form % port) as evil,
        sync_api.sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{port}/")
        sync_api.expect(tab.locator("article.pool")).to_have_count(
            2, timeout=30_000
        )  # its owner's own tab works
        tab = browser.new_page()
        for name in ("127.0.0.1", "localhost"):  # another origin of the same site, and another site
            tab.goto(f"http://{name}:{evil}/?port={port}")
            tab.wait_for_function("window.told", timeout=60_000)
            told = tab.evaluate("window.told")
            assert len(told) == 7
            assert not [entry for entry in told if "infer" in entry[2]], "nothing is learnt"
            tab.goto(f"http://{name}:{evil}/form")
            tab.evaluate("document.getElementById('f').submit()")
            tab.wait_for_url("**/v1/down", timeout=30_000)
            assert "another site" in tab.content()
        browser.close()
        assert daemon.calls == [], "nothing is done"
