"""What Stoker repeats of a worker's words holds no secret of its service."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.model.event import Event, LivenessFailed, Notice, SpawnFailed, WorkerExited, WorkerSpawned
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import Command, ServiceSpec
from stoker.runtime.redaction import Redaction
from stoker.runtime.secret_files import SecretFiles

WEB = {"replica": "web-1", "service": "shop/web"}
HANDLE = WorkerHandle(driver="process", pid=1)


class Desk:
    """A redaction over a secrets directory, and what it lets through."""

    def __init__(self, directory: Path) -> None:
        self.told: list[Event] = []
        self.secret = directory / "secrets" / "hf-token"
        self.secret.parent.mkdir()
        spec = ServiceSpec(
            deployment="shop", name="web", launch=Command(("x",)), working_dir="/", secrets=("hf-token",)
        )
        self.specs = {"shop/web": spec}
        self.redaction = Redaction(
            SecretFiles(str(directory), {}), lookup=self.specs.get, post=self.told.append
        )

    def exit(self, words: str) -> str:
        self.redaction.post(WorkerExited(**WEB, status=ExitStatus(code=1, detail=words)))
        event = self.told[-1]
        assert isinstance(event, WorkerExited)
        return event.status.detail


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_last_words(desk: Desk) -> None:
    desk.secret.write_text("hush-hush\n")
    assert desk.exit("refused: hush-hush!") == "refused: [HF_TOKEN]!"
    assert desk.exit("nothing of it") == "nothing of it"


def test_a_quotation_that_was_cut_off(desk: Desk) -> None:
    desk.secret.write_text("hush-hush\n")
    assert desk.exit("refused: hush-h") == "refused: [HF_TOKEN]"
    assert desk.exit("refused: hus") == "refused: hus"


def test_other_texts_of_a_service(desk: Desk) -> None:
    desk.secret.write_text("hush-hush")
    for event in (
        LivenessFailed(**WEB, reason="said hush-hush"),
        SpawnFailed(**WEB, error="said hush-hush"),
        Notice(message="web-1 says: hush-hush", service="shop/web"),
    ):
        desk.redaction.post(event)
        assert "hush" not in repr(desk.told[-1])
        assert "[HF_TOKEN]" in repr(desk.told[-1])


def test_a_secret_that_has_changed_or_gone_since_the_start(desk: Desk) -> None:
    desk.secret.write_text("older-one")
    desk.redaction.post(WorkerSpawned(**WEB, handle=HANDLE, endpoint=""))
    desk.secret.write_text("newer-one")
    assert desk.exit("older-one newer-one") == "[HF_TOKEN] [HF_TOKEN]"
    desk.secret.unlink()
    desk.specs.clear()
    assert desk.exit("older-one newer-one") == "[HF_TOKEN] [HF_TOKEN]"


def test_a_secret_of_several_lines(desk: Desk) -> None:
    desk.secret.write_text("-----BEGIN KEY-----\nabcdef\nxy\n")
    assert desk.exit("bad line abcdef") == "bad line [HF_TOKEN]"
    assert desk.exit("galaxy") == "galaxy"  # too short to be told from other texts


def test_services_without_secrets_are_left_alone(desk: Desk) -> None:
    event = Notice(message="hush-hush", service="shop/other")
    desk.redaction.post(event)
    assert desk.told == [event]
