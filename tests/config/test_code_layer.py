"""The code layer: what `@stoker.service` declares, read in a child process that may misbehave."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from config.conftest import Box
from stoker.config.explain import explain
from stoker.config.sources import code

FILE = "services:\n  web: {python: 'app:app'}\n"
WEB = "stoker/web"
DECLARED = """\
from stoker import service

@service(
    instance_type="gpu.a100",
    scaling={"min_replicas": 1, "max_replicas": 4},
    envs={"MODEL_PATH": "/models/m", "DEBUG": True, "LEVEL": 1.10},
)
async def app(scope, receive, send): ...
"""


@pytest.fixture
def app(box: Box) -> Box:
    box.write("stoker.yaml", FILE)
    box.write("app.py", DECLARED)
    return box


INSTALL = (
    f"`python:` services run in Stoker's own Python: {sys.executable} -m pip install what is missing, "
    "or run a Python of yours by `command:`"
)


def failure(box: Box, text: str) -> str:
    """The one problem with a module of this text."""
    box.write("app.py", text)
    (problem,) = box.problems()
    assert problem.startswith("stoker.yaml:2:9: services.web.python: cannot load app:app: ")
    return problem.rpartition("app:app: ")[2]


def test_values_come_from_the_decorator(app: Box) -> None:
    spec = app.load().desired.services[WEB]
    assert spec.resources.gpu_type == "a100"
    assert spec.scaling.max_replicas == 4
    assert dict(spec.envs) == {"DEBUG": "true", "LEVEL": "1.1", "MODEL_PATH": "/models/m"}


def test_a_wrong_value_is_told_with_the_line_of_the_decorator(app: Box) -> None:
    app.write("app.py", DECLARED.replace("max_replicas", "max_replica"))
    assert app.problems() == [
        "app.py:3:1: services.web.scaling.max_replica: unknown key; did you mean max_replicas?"
    ]


def test_the_code_layer_is_explained_with_its_line(app: Box) -> None:
    rows = explain(app.load(), "services.web.scaling.max_replicas")["layers"]
    assert rows[0] == {"layer": "code", "source": "app.py:3:1", "value": 4, "wins": True}


def test_an_undecorated_target_declares_nothing(app: Box) -> None:
    app.write("app.py", "class Apps:\n    async def web(self, scope, receive, send): ...\n")
    app.write("stoker.yaml", "services: {web: {python: 'app:Apps.web'}}")
    assert app.load().desired.services[WEB].instance_type is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import no_such_module\n",
            f"ModuleNotFoundError: No module named 'no_such_module' (app.py:1); {INSTALL}",
        ),
        ("x = 1\ny = (\n", "SyntaxError: '(' was never closed (app.py:2)"),
        ("1 / 0\n", "ZeroDivisionError: division by zero (app.py:1)"),
        ("import sys\nsys.exit(3)\n", "it ended the process (exit 3) (app.py:2)"),
        ("import os\nos._exit(3)\n", "its process ended with exit code 3"),
        ("import os\nos.kill(os.getpid(), 9)\n", "its process ended with signal 9"),
        ("ap = None\n", "app has no app; did you mean ap?"),
        ("other = None\n", "app has no app"),
        (
            "from stoker import service\napp = service(user=open)(lambda: None)\n",
            "user is of type builtin_function_or_method; only plain values can be declared",
        ),
        (
            "from stoker import service\napp = service(envs={1: 2})(lambda: None)\n",
            "envs has a key that is no text: 1",
        ),
    ],
)
def test_a_broken_module_is_one_plain_message(app: Box, text: str, reason: str) -> None:
    assert failure(app, text) == reason


def test_a_missing_module_and_a_missing_directory(app: Box) -> None:
    (app.folder / "app.py").unlink()
    (problem,) = app.problems()
    assert problem.endswith(
        "cannot load app:app: ModuleNotFoundError: No module named 'app'; "
        f"looked for in {app.folder}, which `working_dir` changes"
    )
    app.write("stoker.yaml", "services: {web: {python: 'app:app', working_dir: nowhere}}")
    (problem,) = app.problems()
    assert problem.endswith(f"No such file or directory: {app.folder}/nowhere")


def test_what_the_module_prints_is_not_the_answer(app: Box) -> None:
    noise = "import os, sys\nprint('{}')\nos.write(1, b'noise')\nsys.stderr.write('noise')\n"
    app.write("app.py", noise + DECLARED)
    assert app.load().desired.services[WEB].scaling.max_replicas == 4


def test_threads_and_children_of_the_module_hold_nothing_up(app: Box) -> None:
    hang = "import subprocess, threading\nsubprocess.Popen(['sleep', '60'])\n"
    hang += "threading.Thread(target=threading.Event().wait).start()\n"
    app.write("app.py", hang + DECLARED)
    begun = time.perf_counter()
    assert app.load().desired.services[WEB].scaling.max_replicas == 4
    assert time.perf_counter() - begun < 10


@pytest.fixture
def impatient() -> Iterator[None]:
    """A second instead of twenty."""
    patience, code.TIMEOUT = code.TIMEOUT, 1.0
    yield
    code.TIMEOUT = patience


@pytest.mark.usefixtures("impatient")
def test_a_module_that_hangs_is_given_up(app: Box) -> None:
    assert failure(app, "import threading\nthreading.Event().wait()\n") == "it took more than 1 s to load"


def test_the_child_has_declared_variables_and_no_others(app: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    app.write("stoker.yaml", "envs: {ALL: a}\nservices: {web: {python: 'app:app', envs: {OWN: '${O:-o}'}}}")
    app.write(
        "app.py",
        "import os\nfrom stoker import service\n"
        "names, values = ' '.join(os.environ), os.environ['ALL'] + os.environ['OWN']\n"
        "app = service(envs={'SEEN': names, 'VALUES': values})(lambda: None)\n",
    )
    envs = dict(app.load().desired.services[WEB].envs)
    assert set(envs["SEEN"].split()) - {"LC_CTYPE"} == {
        "ALL", "CUDA_VISIBLE_DEVICES", "HOME", "LANG", "OWN", "PATH", "PYTHONDONTWRITEBYTECODE",
    }  # fmt: skip
    assert envs["VALUES"] == "ao"


def test_modules_of_the_working_directory_do_not_disturb(app: Box) -> None:
    app.write("json.py", "raise RuntimeError('shadow')\n")
    app.write("stoker.yaml", FILE)
    assert app.load().desired.services[WEB].scaling.max_replicas == 4
    assert not (app.folder / "__pycache__").exists()


def test_the_module_is_loaded_again_only_when_a_file_of_it_changed(app: Box) -> None:
    count = app.folder / "count"
    app.write("names.py", "PATH = 'one'\n")
    body = f"open({str(count)!r}, 'a').write('x')\nfrom names import PATH\nfrom stoker import service\n"
    app.write("app.py", body + "app = service(envs={'P': PATH})(lambda: None)\n")
    for name in ("app.py", "names.py"):
        os.utime(app.folder / name, (1, 1))
    for _ in range(3):
        assert dict(app.load().desired.services[WEB].envs) == {"P": "one"}
    assert count.read_text() == "x"
    app.write("names.py", "PATH = 'two'\n")
    assert dict(app.load().desired.services[WEB].envs) == {"P": "two"}
    assert count.read_text() == "xx"


def test_module_files_are_watched_also_when_they_are_missing(app: Box) -> None:
    app.write("lib/__init__.py", "X = 1\n")
    app.write("app.py", "import lib\n" + DECLARED)
    here = str(app.folder)
    assert {f"{here}/app.py", f"{here}/lib/__init__.py"} <= set(app.load().watch)
    app.write("stoker.yaml", "services: {web: {python: 'gone.sub:app'}}")
    app.problems()
    watched = set(code.code_files([f"{here}/stoker.yaml"]))
    assert watched == {f"{here}/gone/sub.py", f"{here}/gone/sub/__init__.py"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")
def test_the_child_runs_as_the_services_user(app: Box) -> None:
    try:
        subprocess.run([sys.executable, "-c", "import stoker"], user="nobody", check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("other users cannot run this interpreter")
    for folder in (app.folder, *app.folder.parents[:3]):
        folder.chmod(0o755)
    app.write("stoker.yaml", "services: {web: {python: 'app:app', user: nobody}}")
    declared = "app = service(standby=os.getuid() % 9999)(lambda: None)"
    app.write("app.py", f"import os\nfrom stoker import service\n{declared}\n")
    assert app.load().desired.services[WEB].standby == pwd.getpwnam("nobody").pw_uid % 9999
