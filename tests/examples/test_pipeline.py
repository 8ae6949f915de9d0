"""The pipeline example: its model is real, its files are valid, its load generator measures honestly."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "pipeline"
STOKER = Path(sys.executable).with_name("stoker")
UNSEEN = {
    "english": ["My sister has found a good job", "Where is the nearest bakery?"],
    "german": ["Meine Schwester hat eine gute Arbeit gefunden", "Wo ist die nächste Bäckerei?"],
    "french": ["Ma sœur a trouvé un bon travail", "Où est la boulangerie la plus proche ?"],
    "spanish": ["Mi hermana ha encontrado un buen trabajo", "¿Dónde está la panadería más cercana?"],
}


def module(name):
    """One of the example's modules, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"pipeline_{name}", FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def languages(path):
    model, trigrams = module("inference").Model(path), module("preprocess").trigrams
    for language, texts in UNSEEN.items():
        for text in texts:
            scores = model.scores(trigrams(text))
            assert sum(scores.values()) == pytest.approx(1)
            yield language, max(scores, key=scores.get)


def test_the_model_tells_languages_of_sentences_it_has_not_seen():
    answers = list(languages(FOLDER / "model.json"))
    assert sum(wanted == got for wanted, got in answers) >= len(answers) - 1


def test_training_makes_such_a_model(tmp_path):
    script = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import train, pathlib; "
    script += f"train.main(pathlib.Path({str(tmp_path / 'model.json')!r}))"
    subprocess.run([sys.executable, "-B", "-c", script], check=True, timeout=60)
    answers = list(languages(tmp_path / "model.json"))
    assert sum(wanted == got for wanted, got in answers) >= len(answers) - 1


def test_the_load_follows_its_shape():
    shape = module("load").Shape(peak=20, ramp=10, hold=5, rest=3)
    arrivals = shape.arrivals()
    assert arrivals == sorted(arrivals)
    assert len(arrivals) == pytest.approx(20 * 10 + 20 * 5, abs=2)
    assert sum(at < 5 for at in arrivals) == pytest.approx(25, abs=1)
    assert sum(10 <= at < 15 for at in arrivals) == pytest.approx(100, abs=1)
    assert not [at for at in arrivals if at > 25]
    assert shape.seconds == 28


def test_percentiles_of_what_was_measured():
    percentile = module("load").percentile
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert math.isnan(percentile([], 0.5))


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"language":"german"}', 1),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 0),
        (b"", 0),
    ],
)
def test_every_other_answer_is_a_failure(answer, ok):
    load = module("load")

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async def one():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        tally = load.Tally()
        async with server:
            await load.request(f"http://127.0.0.1:{port}", "x", load.time.monotonic(), 5.0, tally)
        return tally

    tally = asyncio.run(one())
    assert (tally.ok, tally.failed) == (ok, 1 - ok)
    assert sum(tally.errors.values()) == 1 - ok


def test_a_silent_service_is_a_failure():
    load = module("load")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tally = load.Tally()
        asyncio.run(load.request(url, "x", load.time.monotonic(), 0.2, tally))
    assert tally.errors == {"no answer in 0.2 s": 1}


@pytest.fixture
def environment(tmp_path):
    """A daemon of its own, and no daemon left behind; nothing of the machine's is touched."""
    own = {"STOKER_SOCKET": f"{tmp_path}/s", "STOKER_STATE_DIR": f"{tmp_path}/state"}
    found = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **own}
    yield found
    if Path(own["STOKER_SOCKET"]).exists():
        subprocess.run([STOKER, "down"], env=found, check=False, capture_output=True, timeout=60)


@pytest.fixture
def pipeline(tmp_path):
    """A copy of the example on a port that is free, so that a running one is not disturbed."""
    copy = tmp_path / "pipeline"
    copy.mkdir()
    for file in FOLDER.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    text = (copy / "stoker.yaml").read_text()
    (copy / "stoker.yaml").write_text(text.replace("port: 8700", "port: 0"))
    return copy


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(150)
def test_pools_grow_under_load_and_shrink_after_it(pipeline, environment):
    shape = ["--peak", "18", "--ramp", "4", "--hold", "6", "--rest", "32"]
    command = [sys.executable, pipeline / "load.py", "--up", *shape]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=140)
    assert done.returncode == 0, done.stdout + done.stderr
    ready = [int(count) for count in re.findall(r"^ *\d+s .* inference (\d+)/", done.stdout, re.MULTILINE)]
    assert max(ready) >= 2, done.stdout
    assert ready[-1] == 0, done.stdout
