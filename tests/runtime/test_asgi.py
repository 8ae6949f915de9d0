"""`python:` targets are found, told apart from factories, served, and ended without losing a request."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from stoker.asgi import TargetError, as_application, load

MODULE = """
import asyncio, functools, os
from stoker import service

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        print("in flight", flush=True)
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
    headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")] if scope["path"] == "/dated" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": scope["path"].encode()})

def factory():
    return app

def factory_with_options(debug=False, name="x", retries=3):
    return app

async def async_factory():
    return app

@service(scaling={"max_replicas": 2})
async def decorated(scope, receive, send):
    await app(scope, receive, send)

async def starred(*args):
    await app(*args)

class Application:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)

class Group:
    application = Application()

class TwoCalls:
    def __init__(self, scope):
        self.scope = scope
    async def __call__(self, receive, send):
        await app(self.scope, receive, send)

made = Application()
partial = functools.partial(app)
plain = lambda scope, receive, send: app(scope, receive, send)
number = 3

def broken():
    raise RuntimeError("the model file is missing")

def makes_nothing():
    return None

def wsgi(environ, start_response):
    return []

async def sick(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the model does not load"})
"""
SHAPES = (
    "app", "factory", "factory_with_options", "async_factory", "decorated", "starred", "Application",
    "Group.application", "TwoCalls", "made", "partial", "plain",
)  # fmt: skip


@dataclass
class Served:
    """A server that runs, and what it has said."""

    process: subprocess.Popen[str]
    port: int = 0

    def get(self, path: str, address: str = "127.0.0.1") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(address, self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.body = answer.read()
        finally:
            connection.close()
        assert answer.status == 200
        return answer

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start the program on a target in a directory that holds the module `made_up`."""
    (tmp_path / "made_up.py").write_text(MODULE)
    started = []

    def start(target: str, *options: str) -> Served:
        argv = [sys.executable, "-m", "stoker.asgi", target, *(options or ("--port", "0"))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        served = Served(subprocess.Popen(argv, cwd=tmp_path, text=True, **pipes))
        started.append(served.process)
        return served

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def serve(run: Callable[..., Served]) -> Callable[..., Served]:
    """The same, and wait until it serves."""

    def start(target: str, *options: str) -> Served:
        served = run(target, *options)
        line = served.process.stderr.readline()
        assert line.startswith(f"serving {target} on http://"), line + served.process.stderr.read()
        served.port = int(line.rpartition(":")[2])
        return served

    return start


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what is served ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["app", "async_factory", "decorated", "TwoCalls"])
def test_applications_are_served(serve: Callable[..., Served], name: str) -> None:
    assert serve(f"made_up:{name}").get("/x").body == b"/x"


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_application_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"shape_{name.partition('.')[0]}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def call() -> None:
        found = load(f"shape_{name.partition('.')[0]}:{name}")
        if name == "async_factory":
            found = as_application(await found, name)
        await found({"type": "http", "path": "/x"}, None, send)

    asyncio.run(call())
    assert sent[-1]["body"] == b"/x"


def test_the_attribute_is_app_unless_named(serve: Callable[..., Served]) -> None:
    assert serve("made_up").get("/x").body == b"/x"


def test_answers_are_dated_once(serve: Callable[..., Served]) -> None:
    served = serve("made_up:app")
    answer = served.get("/x")
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 3
    assert "server" not in answer.headers
    assert served.get("/dated").headers.get_all("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


def test_it_sleeps_while_nothing_happens(serve: Callable[..., Served]) -> None:
    """Hundreds of idle workers must not keep a machine awake."""
    served = serve("made_up:app")
    served.get("/x")

    def switches() -> int:
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)

    deadline, seen = time.monotonic() + 10, switches()
    while True:
        time.sleep(0.5)
        before, seen = seen, switches()
        if seen - before <= 1:
            break  # half a second of sleep; a server that ticks would have woken five times in each
        assert time.monotonic() < deadline


def test_ipv6(serve: Callable[..., Served]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    assert serve("made_up:app", "--host", "::1", "--port", "0").get("/x", "::1").body == b"/x"


def test_a_unix_socket(run: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a path short enough for a socket
    served = run("made_up:app", "--socket", "w")
    assert served.process.stderr.readline() == "serving made_up:app on w\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("w")
        client.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\n/x\r\n" in answer


# --- how it ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight(
    serve: Callable[..., Served], tmp_path: Path, signum: int
) -> None:
    served = serve("made_up:app")
    answers: list[bytes] = []
    caller = threading.Thread(target=lambda: answers.append(served.get("/slow").body))
    caller.start()
    assert served.process.stdout.readline() == "in flight\n"
    os.kill(served.process.pid, signum)
    until(lambda: refuses(served.port))
    assert served.process.poll() is None
    (tmp_path / "go").touch()
    caller.join(10)
    code, out, err = served.ended()
    assert answers == [b"/slow"]
    assert (code, out, err) == (0, "lifespan ended\n", "")


def test_an_idle_connection_does_not_hold_up_the_end(serve: Callable[..., Served]) -> None:
    served = serve("made_up:app")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("GET", "/x")
    connection.getresponse().read()
    served.process.terminate()
    assert served.ended()[0] == 0
    connection.close()


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:app", "no module 'nowhere' in"),
        ("made_pu:app", "did you mean 'made_up'?"),
        ("made_up.inner:app", "no module 'made_up.inner'"),
        ("email.mine.typo:app", "no module 'email.mine'"),
        ("email.mesage:app", "did you mean 'message'?"),
        ("made_up:aap", "made_up has no attribute 'aap'; did you mean 'app'?"),
        (
            "made_up:Group.applicatoin",
            "made_up.Group has no attribute 'applicatoin'; did you mean 'application'?",
        ),
        ("made_up:number", "made_up:number is no ASGI application but of type int"),
        ("made_up:makes_nothing", "made_up:makes_nothing() is no ASGI application but of type NoneType"),
        ("made_up:wsgi", "WSGI"),
        ("made_up.py:app file", "not of the form module:attribute"),
        ("../made_up:app", "not of the form module:attribute"),
    ],
)
def test_a_target_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    (tmp_path / "made_up.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_up", raising=False)
    with pytest.raises(TargetError) as caught:
        load(target)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_that_is_none_is_one_line_and_2(run: Callable[..., Served]) -> None:
    code, out, err = run("made_up:aap").ended()
    assert (code, out) == (2, "")
    assert err == "error: made_up has no attribute 'aap'; did you mean 'app'?\n"


def test_what_the_users_own_code_raises_is_shown_without_ours(run: Callable[..., Served]) -> None:
    code, _, err = run("made_up:broken").ended()
    assert code == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("RuntimeError: the model file is missing\n")
    assert "asgi.py" not in err


def test_an_import_that_fails_inside_the_module_is_the_users(
    run: Callable[..., Served], tmp_path: Path
) -> None:
    (tmp_path / "needy.py").write_text("import a_package_that_is_missing\n")
    code, _, err = run("needy:app").ended()
    assert code == 1
    assert 'needy.py", line 1' in err
    assert err.endswith("ModuleNotFoundError: No module named 'a_package_that_is_missing'\n")
    assert "importlib" not in err


def test_a_startup_that_fails_ends_with_1(run: Callable[..., Served]) -> None:
    code, _, err = run("made_up:sick").ended()
    assert code == 1
    assert "the model does not load" in err


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(
    run: Callable[..., Served], tmp_path: Path
) -> None:
    (tmp_path / "heavy.py").write_text("print('loaded')\n")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, err = run("heavy:app", "--port", str(port)).ended()
    assert (code, out) == (1, "")
    assert err == f"error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
