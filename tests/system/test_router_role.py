"""`stoker up --role router`: clients on another box (here: another loopback address) find the services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from stoker.plugin.testing.driver_bench import running
from stoker.plugin.testing.free_ports import free_port
from system.harness import STOKER, Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

WORKER = Path(__file__).with_name("worker.py")
HERE, THERE = "127.0.0.1", "127.0.0.2"


class FarBox(Box):
    """A box with a router alone."""

    def route(self, home: str, token: Path, *args: str) -> None:
        """Start it and wait until it answers."""
        words = ["--role", "router", "--daemon", home, "--token-file", str(token), "--at", THERE, *args]
        with (self.directory / "daemon.out").open("ab") as out:
            self.daemon = subprocess.Popen(
                [*STOKER, "up", *words], env=self.environ, cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.until(lambda: self.run("status", check=False).returncode == 0, "it answers", seconds=40)

    def routes(self) -> dict[str, dict[str, Any]]:
        """The services of its status, by name."""
        return {service["name"]: service for service in self.status()["services"]}

    def leads(self, name: str, port: int) -> None:
        """Wait until that service is open at that port."""
        url = f"http://{THERE}:{port}"
        self.until(lambda: self.routes().get(name, {}).get("url") == url, f"{name} at {url}", seconds=40)


def deployment(port: int, **more: Any) -> str:
    web = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "scaling": {"min_replicas": 2, "max_replicas": 2},
        "endpoint": {"port": port},
    }
    return json.dumps({"name": "shop", "services": {"web": web, **more}})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "home").mkdir()
    with Box(tmp_path / "home") as box:
        yield box


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarBox]:
    (tmp_path / "far").mkdir()
    with FarBox(tmp_path / "far") as box:
        yield box


def test_clients_elsewhere_are_served_whoever_dies(home: Box, far: FarBox) -> None:
    """Over TLS with a token that may only look; no request fails while each of the two processes is killed
    and comes back, and an address that is changed at home is followed."""
    ca = trustme.CA()
    made = ca.issue_cert(HERE, common_name="box")
    chain, key, trusted = (home.directory / name for name in ("chain.pem", "key.pem", "ca.pem"))
    made.cert_chain_pems[0].write_to_path(chain)
    made.private_key_pem.write_to_path(key)
    ca.cert_pem.write_to_path(trusted)
    api, port, other = free_port(), free_port(), free_port()
    doors = ("--listen", f"{HERE}:{api}", "--tls-cert", str(chain), "--tls-key", str(key))
    way = (f"https://{HERE}:{api}", home.state_dir / "view-token", "--daemon-ca", str(trusted))
    home.write(deployment(port))
    home.up(*doors)
    home.ready("web", 2)

    far.route(*way)
    far.leads("web", port)
    daemon = far.status()["daemon"]
    assert (daemon["role"], daemon["of"], daemon["away"]) == ("router", way[0], "")
    assert f"router of {way[0]}" in far.run("status").stdout
    with Load(f"http://{THERE}:{port}/") as load:
        load.more(20)
        home.kill()
        far.until(lambda: far.status()["daemon"]["away"], "it sees that the daemon is gone", seconds=60)
        assert "what it told last is served" in far.run("status").stdout
        load.more(20)
        far.kill()  # and begins anew while there is no daemon to ask
        load.more(20)
        far.route(*way)
        far.leads("web", port)
        load.more(20)
        home.up(*doors)
        far.until(lambda: not far.status()["daemon"]["away"], "it follows the new daemon", seconds=60)
        load.more(20)
    assert load.failures == []

    home.write(deployment(other))
    far.leads("web", other)
    with Load(f"http://{THERE}:{other}/") as load:
        load.more(5)
    assert load.failures == []
    home.down()
    router = _router_of(far)
    far.daemon.send_signal(signal.SIGINT)  # type: ignore[union-attr]
    assert far.daemon.wait(60) == 0  # type: ignore[union-attr]
    far.daemon = None
    assert not running(router)


def _router_of(box: Box) -> int:
    state = str(box.state_dir).encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = _words(entry)
        if b"stoker_router" in words and state in words:
            return int(entry.parent.name)
    raise AssertionError("it has no router")


def _words(entry: Path) -> list[bytes]:
    try:
        return entry.read_bytes().split(b"\0")
    except OSError:
        return []


def test_what_it_is_not_and_who_is_refused_is_said(home: Box, far: FarBox, tmp_path: Path) -> None:
    api, port = free_port(), free_port()
    locked = {"command": ["sleep", "600"], "endpoint": {"host": "127.0.0.3", "port": free_port()}}
    home.write(deployment(port, other=locked))
    home.up("--listen", f"{HERE}:{api}")
    strange = tmp_path / "strange"
    strange.write_text("a-token-of-some-other-daemon")
    url = f"http://{HERE}:{api}"

    far.route(url, strange)
    far.until(lambda: "401" in far.status()["daemon"]["away"], "it is refused", seconds=40)
    far.down()
    far.route(url, home.state_dir / "view-token")
    far.leads("web", port)
    assert (
        far.routes()["other"]["home"] == f"http://{locked['endpoint']['host']}:{locked['endpoint']['port']}"
    )
    refused = far.run("scale", "web", "3", check=False)
    assert refused.returncode == 1
    assert f"only a router, of the daemon at {url}" in refused.stderr
    for words, why in (
        (("--role", "router"), "--daemon https://HOST:PORT"),
        (("--role", "router", "--daemon", url, str(home.file)), "runs no services"),
        (("--role", "router", "--daemon", "box", "--token-file", str(strange)), "is no daemon's address"),
        (("--at", THERE), "add --role router"),
    ):
        done = far.run("up", *words, check=False)
        assert done.returncode in (1, 2)
        assert why in done.stderr
    assert os.path.exists(far.state_dir / "routes.json")
