"""`stoker init`: each kind of project becomes a file that passes `stoker check`, and nothing found is run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.conftest import Result
from stoker.cli.init.draft import command_of, service_name

Stoker = Callable[..., Result]

COMPOSE = """
services:
  db: {image: postgres:16}
  api:
    build: {context: ./api}
    image: acme/api
    command: uvicorn main:app --port 8000
    ports: ["8080:8000"]
    environment: [MODE=fast, DEBUG=1]
    depends_on: {worker: {condition: service_started}, db: {}}
  worker:
    command: [python, work.py, "--name", "two words"]
    environment: {A: 1, B: true}
    stop_grace_period: 20s
    deploy:
      replicas: 3
      resources: {reservations: {devices: [{capabilities: [gpu], count: 2}]}}
"""
MODELS = """\
services:
  llm:
    image: vllm/vllm-openai:v0.8.4
    command: ["--model", "Qwen/Qwen2.5-7B"]
    ports: ["127.0.0.1:8001:8000"]
    environment: {HF_TOKEN: $HF_TOKEN, LEVEL: "${LEVEL-info}", PLAIN: $$x}
    volumes: ["~/.cache:/root/.cache", "models:/models"]
    healthcheck: {test: [CMD, curl, -f, "http://localhost:8000/health"], start_period: 300s}
    deploy: {resources: {limits: {cpus: "2", memory: 4G}}}
  api: {image: org/api, command: "python serve.py --port $PORT"}
  worker: {image: org/worker}
"""
SUPERVISORD = """
[supervisord]
logfile=/tmp/x.log
[program:web]
command=python -m http.server --directory "%(program_name)s" 8000   ; a comment
directory=/srv
environment=A="1",B='two, with comma',C=3
numprocs=4
stopsignal=INT
stopwaitsecs=25
[eventlistener:mail]
command=mail
"""
CIRCUS = """
[watcher:web]
cmd = chaussette --port $(circus.env.PORT)
args = app.main
numprocesses = 2
stop_signal = QUIT
graceful_timeout = 12
[env:web]
LEVEL = debug
[socket:web]
port = 8080
"""
PROCFILE = """
# the web
web: gunicorn app:app --bind 127.0.0.1:$PORT
worker: python work.py --format '{json}' | tee log
release: ./migrate
"""
APP = "from fastapi import FastAPI\nraise RuntimeError('must not be run')\napp = FastAPI()\n"
BENTO = """
import bentoml

@bentoml.service
class Embed: ...

@bentoml.service(resources={"gpu": 1})
class Chat: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "my project"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def services(stoker: Stoker) -> dict[str, Any]:
    """What `init` made, after `check` has passed it."""
    made = stoker("init")
    assert made.code == 0, made.err
    checked = stoker("check")
    assert checked.code == 0, checked.err
    document = yaml.safe_load(Path("stoker.yaml").read_text())
    assert document["name"] == "my-project"
    return dict(document.get("services", {}))


def test_a_compose_file(folder: Path, stoker: Stoker) -> None:
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / "api").mkdir()
    found = services(stoker)
    assert set(found) == {"api", "worker"}
    assert found["api"]["command"] == "uvicorn main:app --port 8000"
    assert found["api"]["working_dir"] == "./api"
    assert found["api"]["envs"] == {"MODE": "fast", "DEBUG": "1"}
    assert found["api"]["depends"] == ["worker"]
    assert found["api"]["endpoint"] == {"port": 8080}
    assert found["worker"]["command"] == "python work.py --name 'two words'"
    assert found["worker"]["envs"] == {"A": "1", "B": "true"}
    assert found["worker"]["scaling"] == {"min_replicas": 3, "max_replicas": 3}
    assert found["worker"]["resources"] == {"gpu": 2}
    assert found["worker"]["drain"] == {"timeout": "20s"}
    assert "db: postgres:16 speaks no HTTP" in Path("stoker.yaml").read_text()


def test_an_image_of_somebodys_in_a_compose_file_runs_as_a_container(folder: Path, stoker: Stoker) -> None:
    (folder / "compose.yaml").write_text(MODELS)
    found = services(stoker)
    assert set(found) == {"llm", "api"}
    assert found["llm"] == {
        "image": "vllm/vllm-openai:v0.8.4",
        "command": "--model Qwen/Qwen2.5-7B",
        "container": {"network": "bridge", "port": 8000, "mounts": ["${HOME}/.cache:/root/.cache"]},
        "envs": {"HF_TOKEN": "${HF_TOKEN:-}", "LEVEL": "${LEVEL:-info}", "PLAIN": "$$x"},
        "endpoint": {"port": 8001},
        "limits": {"cpu": 2.0, "memory": "4Gi"},
        "probes": {"startup": {"http": "/health", "timeout": "300s"}},
    }
    assert found["api"] == {"command": "python serve.py --port {port}"}
    text = Path("stoker.yaml").read_text()
    assert "left out: the volume models:/models" in text
    assert "worker: its command is inside org/worker" in text


def test_a_supervisord_ini(folder: Path, stoker: Stoker) -> None:
    (folder / "supervisord.conf").write_text(SUPERVISORD)
    (web,) = services(stoker).values()
    assert web == {
        "command": 'python -m http.server --directory "web" 8000',
        "working_dir": "/srv",
        "envs": {"A": "1", "B": "two, with comma", "C": "3"},
        "scaling": {"min_replicas": 4, "max_replicas": 4},
        "drain": {"signal": "SIGINT", "timeout": "25s"},
    }


def test_a_circus_ini(folder: Path, stoker: Stoker) -> None:
    (folder / "circus.ini").write_text(CIRCUS)
    (web,) = services(stoker).values()
    assert web["command"] == "chaussette --port {port} app.main"
    assert web["envs"] == {"LEVEL": "debug"}
    assert web["drain"] == {"signal": "SIGQUIT", "timeout": "12s"}


def test_a_procfile(folder: Path, stoker: Stoker) -> None:
    (folder / "Procfile").write_text(PROCFILE)
    found = services(stoker)
    assert found["web"]["command"] == "gunicorn app:app --bind 127.0.0.1:{port}"
    assert found["worker"]["command"] == ["sh", "-c", "python work.py --format '{{json}}' | tee log"]
    assert "release" not in found


def test_an_application_is_found_and_not_run(folder: Path, stoker: Stoker) -> None:
    (folder / "main.py").write_text(APP)
    (folder / "broken.py").write_text("def (:\n")
    made = stoker("init", "--print")
    assert "python: main:app" in made.out or 'python: "main:app"' in made.out
    assert not Path("stoker.yaml").exists()


def test_a_bento_is_named_by_its_root(folder: Path, stoker: Stoker) -> None:
    (folder / "service.py").write_text(BENTO)
    made = stoker("init", "--print")
    assert 'bento: "service:Chat"' in made.out or "bento: service:Chat" in made.out


def test_a_bentofile_says_it_itself(folder: Path, stoker: Stoker) -> None:
    (folder / "bentofile.yaml").write_text("service: 'service:Embed'\n")
    (folder / "service.py").write_text(BENTO)
    assert "service:Embed" in stoker("init", "--print").out


def test_an_empty_folder_gets_an_example_that_runs(folder: Path, stoker: Stoker) -> None:
    assert services(stoker)["hello"]["command"].startswith("python3 -m http.server {port}")
    again = stoker("init")
    assert again.code == 2
    assert "is there already" in again.err


def test_what_cannot_be_read_is_said_and_nothing_is_written(folder: Path, stoker: Stoker) -> None:
    (folder / "compose.yaml").write_text("services: {a: [}")
    refused = stoker("init")
    assert refused.code == 1
    assert "compose.yaml cannot be read" in refused.err
    assert list(folder.iterdir()) == [folder / "compose.yaml"]


def test_a_folder_that_takes_no_file_is_said(
    folder: Path, stoker: Stoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", read_only)
    result = stoker("init", str(folder))
    assert (result.code, result.err) == (1, f"stoker: cannot write to {folder}: Read-only file system\n")


def test_a_file_that_check_would_refuse_is_not_written(folder: Path, stoker: Stoker) -> None:
    (folder / "supervisord.conf").write_text("[program:a]\ncommand=sleep 1\nuser=no such user!\n")
    refused = stoker("init")
    assert refused.code == 1
    assert "services.a.user" in refused.err
    assert [path.name for path in folder.iterdir()] == ["supervisord.conf"]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("python x.py", "python x.py"),
        ("serve --port $PORT", "serve --port {port}"),
        ("serve --port ${PORT:-80}", "serve --port {port}"),
        ("A=1 serve", ["sh", "-c", "A=1 serve"]),
        ("serve $HOME", ["sh", "-c", "serve $HOME"]),
        ("a && b", ["sh", "-c", "a && b"]),
        ("show {port}", "show {{port}}"),
    ],
)
def test_command_lines(line: str, command: str | list[str]) -> None:
    assert command_of(line) == command


def test_names() -> None:
    assert [service_name(text) for text in ("web_1", "a b", "-x-", "ü")] == ["web_1", "a-b", "x", "app"]


def test_init_and_check_as_commands(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: python3 -m http.server $PORT\n")
    for arguments in (["init"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "stoker.cli", *arguments], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
