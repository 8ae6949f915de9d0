"""The file that the README shows is one that Stoker takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_file_in_the_readme_is_valid(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "stoker.yaml").write_text(block)
    (tmp_path / "tokenizer.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "hf-token").write_text("x")
    command = [Path(sys.executable).with_name("stoker"), "check", tmp_path / "stoker.yaml"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "2 services" in done.stdout
