"""Code blocks of the documentation, fenced and indented, with the place where each stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "systemd" / "README.md",
    ROOT / "monitoring" / "README.md",
]
FENCE = re.compile(
    r'^```(?P<kind>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    kind: str
    """The word behind the fence; "indented" for a block that is set off by spaces."""
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    found = [
        Block(name, text.count("\n", 0, m.start()) + 1, m["kind"], m["title"] or "", m["text"])
        for m in FENCE.finditer(text)
    ]
    bare = FENCE.sub(lambda m: "\n" * m.group().count("\n"), text)
    for m in re.finditer(r"(?:(?<=\n\n)|\A)(?: {4}.*\n)+|(?<=[:.`*a-z]\n)(?: {4}\S.*\n)+", bare):
        inner = "".join(f"{line[4:]}\n" for line in m.group().splitlines())
        found.append(Block(name, bare.count("\n", 0, m.start()) + 1, "indented", "", inner))
    return sorted(found, key=lambda block: block.line)


def everything() -> list[Block]:
    """All blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]
