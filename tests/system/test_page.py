"""The web page in a real Chromium, over a real daemon on a fake eight-GPU box."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakenvml.fakebox import FakeBox
from fakenvml.fixtures import fake_box
from system.harness import Box, Load

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
WORKER = Path(__file__).with_name("worker.py")
EXPECT = 15_000
"""Milliseconds that the page gets to show what is expected of it."""
sync_api.expect.set_options(timeout=EXPECT)


def deployment(**changes: object) -> str:
    infer = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "resources": {"gpu": 1},
        "scaling": {"min_replicas": 2, "max_replicas": 2},
        "drain": {"timeout": "1s", "grace": "1s"},
        **changes,
    }
    cpu = {"command": infer["command"], "drain": infer["drain"]}
    return f"name: app\nservices:\n  infer: {json.dumps(infer)}\n  cpu: {json.dumps(cpu)}\n"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("page")
    with Box(folder, **fake_box("8xh100", folder).environ) as box:
        box.write(deployment())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        box.up("--listen", f"127.0.0.1:{port}")
        box.ready("infer", 2)
        box.ready("cpu", 1)
        yield box


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Tab:
    """One page in a context of its own; what it asks for and complains of is kept."""

    def __init__(self, browser, **context) -> None:
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(EXPECT)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def expect(self, selector: str):
        return sync_api.expect(self.page.locator(selector))

    def pool(self, name: str):
        return self.page.locator(f"article[aria-label='app/{name}']")


@pytest.fixture
def tab(browser, box) -> Iterator[Tab]:
    (url,) = json.loads(box.run("ui", "-o", "json").stdout)["urls"]
    tab = Tab(browser, viewport={"width": 1400, "height": 900})
    tab.page.goto(url)
    tab.expect("article.pool").to_have_count(2)
    yield tab
    tab.context.close()


def test_everything_is_there_and_nothing_comes_from_elsewhere(tab, box):
    tab.expect("article[aria-label='app/infer'] .cell[data-phase=ready]").to_have_count(2)
    tab.expect(".device").to_have_count(8)
    tab.expect("#summary").to_contain_text("3 of 3 ready")
    ids = [replica["id"] for replica in box.replicas("infer")]
    for replica in ids:
        tab.expect("#devices").to_contain_text(replica)
        tab.expect("#events").to_contain_text(f"{replica} ready")
    assert "token" not in tab.page.url
    origin = tab.page.url.rstrip("/")
    assert tab.asked
    assert {url for url in tab.asked if not url.startswith(f"{origin}/")} == set()
    assert tab.complaints == []


def test_load_is_drawn_as_it_happens(tab, box):
    def painted() -> int:
        return tab.page.evaluate(
            """() => { const c = document.querySelector("article[aria-label='app/cpu'] canvas");
            const flight = getComputedStyle(document.documentElement).getPropertyValue('--flight').trim();
            const want = [1, 3, 5].map((i) => parseInt(flight.slice(i, i + 2), 16));
            const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            let found = 0;
            for (let i = 0; i < data.length; i += 4)
              if (want.every((v, k) => Math.abs(data[i + k] - v) < 12) && data[i + 3] > 200) found += 1;
            return found; }"""
        )

    before = painted()
    with Load(box.service("cpu")["url"], threads=2) as load:
        load.more(50)
        box.until(lambda: painted() > before + 10, "the load is drawn")
    assert tab.complaints == []


def test_why_and_story_by_click_and_by_keyboard(tab, box):
    replica = box.replicas("infer", "ready")[0]
    tab.page.locator(f".cell[title^='{replica['id']}']").click()
    tab.expect("#panel").to_contain_text("GPU")
    tab.expect("#panel").to_contain_text(str(replica["pid"]))
    tab.page.get_by_role("tab", name="Story").click()
    tab.expect("#panel .chain").to_contain_text(f"{replica['id']} started as pid {replica['pid']}")
    tab.page.keyboard.press("Escape")
    tab.expect("#panel").to_be_hidden()
    tab.expect(f".cell[title^='{replica['id']}']").to_be_focused()
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("ArrowRight")
    tab.expect("article[aria-label='app/infer'] .name").to_be_focused()
    tab.page.keyboard.press("Enter")
    tab.expect("#panel").to_contain_text("fixed at 2")
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("cp")
    tab.expect("article.pool").to_have_count(1)
    assert tab.complaints == []


def test_scale_stop_start_and_cordon(tab, box):
    cpu = tab.pool("cpu")
    cpu.get_by_role("button", name="More replicas").click()
    box.until(lambda: box.service("cpu")["max_replicas"] == 2, "one replica more is allowed")
    sync_api.expect(cpu.locator(".bounds")).to_have_text("1..2")
    stop, sure = (cpu.get_by_role("button", name=name) for name in ("Stop", "Sure?"))
    stop.click()
    sync_api.expect(sure).to_be_visible()
    sync_api.expect(stop).to_be_visible()  # after three seconds it asks no more
    assert box.service("cpu")["target"] == 1, "one press must not stop a service"
    stop.click()
    sure.click()
    sync_api.expect(cpu.locator(".badge")).to_have_text("stopped")
    cpu.get_by_role("button", name="Start", exact=True).click()
    sync_api.expect(cpu.locator(".cell[data-phase=ready]")).to_have_count(1)
    free = tab.page.locator(".device", has=tab.page.locator("[data-free]")).last
    free.click()
    tab.page.locator("#panel").get_by_role("button", name="Cordon", exact=True).click()
    tab.expect(".device[data-health=cordoned]").to_have_count(1)
    box.run("gpus", "uncordon", next(d["uuid"] for d in box.status()["devices"] if d["health"] == "cordoned"))
    tab.expect(".device[data-health=cordoned]").to_have_count(0)
    box.run("unset", "services.cpu.scaling.min_replicas", "services.cpu.scaling.max_replicas")
    assert tab.complaints == []


def test_a_refused_file_is_shown_with_its_place(tab, box):
    box.write(deployment(colour="red"))
    tab.expect(".alert").to_contain_text("stoker.yaml:3:")
    tab.expect(".alert").to_contain_text("colour")
    box.write(deployment())
    tab.expect(".alert").to_have_count(0)


def test_a_service_that_serves_nothing_is_named_above_all_and_leads_to_its_replica(tab, box):
    crash = {"command": ["sh", "-c", "echo no model here >&2; exit 3"], "restart": {"backoff": 60}}
    box.write(deployment() + f"  broken: {json.dumps(crash)}\n")
    tab.expect(".outage").to_contain_text("broken serves nothing")
    tab.expect(".outage").to_contain_text("no model here")
    tab.page.locator(".outage button").click()
    tab.expect("#panel").to_contain_text(box.replicas("broken")[0]["id"])
    box.write(deployment())
    tab.expect(".outage").to_have_count(0)


def test_what_an_operator_should_know_stands_above_all(tab, box):
    gpus = FakeBox(box.environ["FAKENVML_STATE"])
    gpus.xid(7, 79)
    tab.expect(".notice").to_contain_text("Xid 79")
    tab.expect("#summary").to_contain_text("1 GPU out of use")
    tab.expect("#events").to_contain_text(gpus.uuids[7][:12])
    tab.expect(f"#events li:has-text('{gpus.uuids[7]}')").to_have_count(0)  # nobody reads all 40 of it


def test_without_a_token_it_asks_for_one(browser, box):
    (url,) = json.loads(box.run("ui", "-o", "json").stdout)["urls"]
    bare, _, token = url.partition("#token=")
    tab = Tab(browser)
    tab.page.goto(bare)
    tab.expect("dialog").to_contain_text("wants its token")
    tab.page.fill("dialog input", "wrong")
    tab.page.keyboard.press("Enter")
    tab.expect("dialog").to_contain_text("wants its token")
    tab.page.fill("dialog input", token)
    tab.page.keyboard.press("Enter")
    tab.expect("article.pool").to_have_count(2)
    tab.context.close()


def test_whoever_may_look_only_is_offered_nothing_else(browser, box):
    (url,) = json.loads(box.run("ui", "--view", "-o", "json").stdout)["urls"]
    tab = Tab(browser, viewport={"width": 1400, "height": 900})
    tab.page.goto(url)
    tab.expect("#summary").to_contain_text("view only")
    tab.expect("article[aria-label='app/infer'] .bounds").to_be_visible()
    for words in ("Stop", "Restart", "+"):
        sync_api.expect(tab.pool("infer").get_by_text(words, exact=True)).to_be_hidden()
    tab.page.locator("article[aria-label='app/infer'] .name").click()
    tab.expect("#panel").to_contain_text("replicas wanted")
    sync_api.expect(tab.page.locator("#panel").get_by_text("Scale", exact=True)).to_be_hidden()
    tried = """() => fetch('/v1/restart', {method: 'POST', body: '{"service": "app/infer"}',
        headers: {authorization: 'Bearer ' + sessionStorage['stoker.token']}}).then((a) => a.status)"""
    assert tab.page.evaluate(tried) == 403
    tab.context.close()


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_every_width_fits(browser, box, width):
    (url,) = json.loads(box.run("ui", "-o", "json").stdout)["urls"]
    tab = Tab(browser, viewport={"width": width, "height": 800})
    tab.page.goto(url)
    tab.expect("article.pool").to_have_count(2)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.context.close()


def test_dark_and_light_by_the_system_and_by_a_key(browser, box):
    (url,) = json.loads(box.run("ui", "-o", "json").stdout)["urls"]

    def ground() -> str:
        return tab.page.evaluate("getComputedStyle(document.body).backgroundColor")

    seen = []
    for scheme in ("dark", "light"):
        tab = Tab(browser, color_scheme=scheme)
        tab.page.goto(url)
        tab.expect("article.pool").to_have_count(2)
        seen.append(ground())
        tab.page.keyboard.press("t")
        seen.append(ground())
        tab.context.close()
    assert seen[0] == seen[3]
    assert seen[1] == seen[2]
    assert seen[0] != seen[1]


def test_it_finds_the_next_daemon_by_itself(tab, box):
    """The last test: it ends the daemon of this module."""
    (url,) = json.loads(box.run("ui", "-o", "json").stdout)["listening"]
    box.kill()
    sync_api.expect(tab.page.locator("body:not([data-link=live])")).to_have_count(1)
    box.up("--listen", url)
    tab.expect("body[data-link=live]").to_have_count(1)
    tab.expect("#summary").to_contain_text("3 of 3 ready")
