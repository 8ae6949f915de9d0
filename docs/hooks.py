"""What mkdocs is told beside `mkdocs.yml`: pages that lie elsewhere in the repository, and their links."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "systemd.md": "systemd/README.md",
    "monitoring.md": "monitoring/README.md",
    "architecture.md": "daemon/ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
}
DECISIONS = ("scaling.md", "starts.md", "router.md", "haproxy.md", "backends.md", "scale.md")
"""Pages of how it decides, in their order in the navigation; a page that no list names comes after them."""


def on_config(config: Any) -> Any:
    """Fill the section of the decisions."""
    named = set(re.findall(r"[\w-]+\.md", str(config.nav)))
    there = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    pages = [name for name in DECISIONS if name in there]
    pages += [name for name in there if name not in named and name not in DECISIONS]
    for entry in config.nav:
        if "How it decides" in entry:
            entry["How it decides"] = pages
    config.nav = [entry for entry in config.nav if entry != {"How it decides": []}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that suit the repository to the pages of the site; what is no page is named as a file."""
    place = posixpath.dirname(ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    pages = {source: name for name, source in ELSEWHERE.items()}

    def lead(found: re.Match[str]) -> str:
        words, target, anchor = found.group(1), found.group(2), found.group(3) or ""
        path = posixpath.normpath(posixpath.join(place, target))
        if path in pages:
            return f"[{words}]({pages[path]}{anchor})"
        if path.startswith("docs/"):
            return f"[{words}]({path.removeprefix('docs/')}{anchor})"
        return f"{words} (`{path}`)" if (ROOT / path).exists() else found.group()

    return re.sub(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)", lead, markdown)
