"""Where secrets are looked for, and that a changed one needs new workers without any trace of its value."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.errors import WorkerError
from stoker.model.service import Command, DesiredState, ServiceSpec, revision
from stoker.runtime.secret_files import RECORD, SecretFiles

SPEC = ServiceSpec(
    deployment="rag", name="web", launch=Command(("x",)), working_dir="/", secrets=("token", "other")
)
DESIRED = DesiredState(services={SPEC.key: SPEC})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("state/secrets", "app/secrets", "systemd", "named"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def files(folder: Path, **environ: str) -> SecretFiles:
    secrets = SecretFiles(str(folder / "state"), environ)
    secrets.place({"rag": str(folder / "app")})
    return secrets


def versions(secrets: SecretFiles, folder: Path) -> dict[str, int]:
    (spec,) = secrets.numbered(DESIRED, {"rag": str(folder / "app")}).services.values()
    return dict(spec.secret_versions)


def test_the_first_place_that_has_the_file_counts(folder: Path) -> None:
    secrets = files(folder, CREDENTIALS_DIRECTORY=str(folder / "systemd"),
                    STOKER_SECRETS_DIR=str(folder / "named"))  # fmt: skip
    for place in ("state/secrets", "systemd", "app/secrets", "named"):
        (folder / place / "token").write_text(f"of {place}\n")
        assert secrets.read("token", "rag", "web") == f"of {place}"
    assert secrets.read("token", "other", "web") == "of named"
    with pytest.raises(WorkerError, match=r"secret 'gone' of web is missing: .*named or .*app/secrets or"):
        secrets.read("gone", "rag", "web")
    (folder / "named" / "bin").write_bytes(b"\xff\xfe")
    with pytest.raises(WorkerError, match=r"cannot read secret 'bin' of web in .*: it is no UTF-8 text"):
        secrets.read("bin", "rag", "web")


def test_a_change_counts_up_and_a_new_daemon_knows_it_again(folder: Path) -> None:
    token = folder / "app" / "secrets" / "token"
    assert versions(files(folder), folder) == {}
    token.write_text("one")
    secrets = files(folder)
    assert versions(secrets, folder) == {}
    token.write_text("two")
    assert versions(secrets, folder) == {"token": 1}
    assert versions(files(folder), folder) == {"token": 1}
    token.unlink()
    assert versions(files(folder), folder) == {"token": 1}
    token.write_text("two")
    assert versions(files(folder), folder) == {"token": 1}
    token.write_text("one")
    assert versions(files(folder), folder) == {"token": 2}


def test_it_is_the_revision_that_changes_and_the_value_is_nowhere(folder: Path) -> None:
    assert revision(SPEC) != revision(replace(SPEC, secret_versions=(("token", 1),)))
    token = folder / "app" / "secrets" / "token"
    token.write_text("tell-nobody")
    secrets = files(folder)
    versions(secrets, folder)
    record = folder / "state" / RECORD
    assert "tell-nobody" not in record.read_text()
    assert record.stat().st_mode & 0o077 == 0
    record.write_text('{"rag/token": 3')
    assert versions(files(folder), folder) == {}


def test_every_place_of_every_secret_in_use_is_watched(folder: Path) -> None:
    paths = files(folder).paths(DESIRED)
    assert paths == sorted(
        os.path.join(folder, place, name)
        for place in ("app/secrets", "state/secrets")
        for name in SPEC.secrets
    )
