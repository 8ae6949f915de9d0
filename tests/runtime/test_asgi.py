"""`python:` targets are found, told apart from factories, served, and ended without losing a request."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

MODULE = """
import asyncio
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
        await asyncio.sleep(0.6)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})

def factory():
    return app

@service(scaling={"max_replicas": 2})
async def decorated(scope, receive, send):
    await app(scope, receive, send)

class Application:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)

made = Application()
number = 3

def broken():
    raise RuntimeError("the model file is missing")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


@pytest.fixture
def serve(tmp_path):
    """Start a target; gives the process and its port."""
    (tmp_path / "made_up.py").write_text(MODULE)
    started = []

    def start(target: str, *, wait: bool = True):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "stoker.asgi", target, "--port", str(port)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        deadline = time.monotonic() + 20
        while wait:
            try:
                get(port, "/")
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return process, port

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["app", "factory", "decorated", "made", "Application"])
def test_every_shape_of_application_is_served(serve, name):
    _, port = serve(f"made_up:{name}")
    assert get(port, "/x") == b"/x"


def test_sigterm_finishes_what_is_in_flight(serve):
    process, port = serve("made_up:app")
    answers: list[bytes] = []
    caller = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
    caller.start()
    time.sleep(0.2)  # the request must be in flight, which nobody outside can see
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    caller.join(10)
    assert answers == [b"/slow"]
    assert process.returncode in {0, -signal.SIGTERM}
    assert "lifespan ended" in out


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("made_up:aap", "did you mean 'app'?"),
        ("made_up:number", "a int is no ASGI application"),
    ],
)
def test_a_target_that_does_not_exist_is_one_line(serve, target, said):
    process, _ = serve(target, wait=False)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_what_the_users_own_code_raises_is_shown_whole(serve):
    process, _ = serve("made_up:broken", wait=False)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" in err
    assert err.rstrip().endswith("RuntimeError: the model file is missing")
