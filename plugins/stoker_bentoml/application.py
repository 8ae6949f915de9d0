"""How Stoker reads a bento and starts its services: always by a program of its own, in the bento's Python."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence

from stoker.errors import WorkerError
from stoker.model.service import BentoService, ServiceSpec
from stoker.plugin.ports import ApplicationCommand, ApplicationStart, PluginContext

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
KEY_FILE = "bentoml.key"
USER = "stoker"


class BentoApplication:
    """BentoML projects and built bentos."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._life = secrets.token_hex(8)
        """New for each daemon: what is to be done once for a deployment is done once in its life."""
        self._key = b""

    def inspection(self, target: str, python: str) -> Sequence[str]:
        """The command that prints what the bento's services declare."""
        return (python or sys.executable, PROGRAM, "inspect", target)

    def command(self, spec: ServiceSpec, start: ApplicationStart) -> ApplicationCommand:
        """The command that serves one replica. Raises WorkerError without a key for inner calls."""
        launch = spec.launch
        if not isinstance(launch, BentoService):
            raise TypeError(f"{spec.key} is no service of a bento")
        word = self._word(spec.deployment)
        plan = {
            "config": json.loads(launch.config),
            "calls": {name: _with_word(start.urls[name], word) for name in launch.calls},
            "word": word,
            "owner": f"{self._context.instance}/{spec.key}",
            "life": self._life,
            "cpu": spec.resources.cpu,
            "files": tempfile.gettempdir() if spec.user is None else "/tmp",
        }
        return ApplicationCommand(
            argv=(
                launch.python or sys.executable,
                PROGRAM,
                "serve",
                launch.bento,
                launch.service,
                str(start.port),
            ),
            environ={"STOKER_BENTO": json.dumps(plan)},
        )

    def _word(self, deployment: str) -> str:
        """What the services of a deployment show each other, so that they may send pickled bodies. Kept over
        daemons' lives, since workers outlive them; each deployment has its own."""
        if not self._key:
            try:
                self._key = _key(os.path.join(self._context.state_dir, KEY_FILE))
            except OSError as error:
                raise WorkerError(f"cannot keep the key of inner calls: {error}") from error
        return hmac.new(self._key, deployment.encode(), hashlib.sha256).hexdigest()


def _key(path: str) -> bytes:
    """The key in that file, made if there is none."""
    try:
        with open(path, "rb") as file:
            found = file.read()
        if len(found) == 32:
            return found
    except FileNotFoundError:
        pass
    made = secrets.token_bytes(32)
    beside = f"{path}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, made)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(beside, path)
    return made


def _with_word(url: str, word: str) -> str:
    """The address with the word as its password: BentoML's client sends it along by itself."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{USER}:{word}@{rest}"
