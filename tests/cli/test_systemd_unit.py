"""Which files of the service are installed where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from stoker.cli.commands.systemd import KNOWS_SUBGROUPS, command
from stoker.cli.systemd_unit import systemd_version


@pytest.mark.parametrize("version", [0, KNOWS_SUBGROUPS - 1, KNOWS_SUBGROUPS, 300])
def test_the_drop_in_for_limits_goes_only_where_it_is_understood(tmp_path: Path, version: int) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text(f"#!/bin/sh\necho 'systemd {version} ({version}.1-2~deb)'\n")
    (tools / "systemctl").chmod(0o755)
    place = tmp_path / "root" / "etc/systemd/system/stoker.service.d/subgroup.conf"
    place.parent.mkdir(parents=True)
    place.write_text("of a time before")
    environ = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = CliRunner().invoke(command, ["install", "--destination", str(tmp_path / "root")], env=environ)
    assert done.exit_code == 0, done.output
    assert place.exists() == (version >= KNOWS_SUBGROUPS)
    if place.exists():
        assert "DelegateSubgroup=daemon" in place.read_text()


def test_where_systemd_cannot_be_asked_its_version_is_none() -> None:
    assert systemd_version() >= 0
