"""The repository speaks of the project alone: no machine's paths, no leftovers, nothing that is not text."""

import re

from architecture.source import ROOT, tracked

# Written in two parts so that this file does not find itself.
FOREIGN = re.compile(
    "|".join(
        [
            "/ro" + r"ot/(?!\.)\w",
            "/ho" + r"me/(?!(alice|bob|me|user|you|svc|stoker)\b)[a-z]\w*/",
            "/Us" + r"ers/\w+/",
            "/wo" + r"rk/(main|shared)\b",
            r"\.\./sh" + r"ared\b",
            "/tmp/ve" + r"nv\b",
            "pypi" + r"\.org|pythonhosted" + r"\.org|registry\.npm" + r"js",
        ]
    )
)
UNFINISHED = re.compile(r"\b(FIX" + "ME|XX" + "X|TO" + "DO|HA" + r"CK)\b")
BINARY = (".png", ".gz", ".svg")
LARGEST = 400_000


def texts() -> list[tuple[str, str]]:
    return [(name, (ROOT / name).read_text()) for name in tracked() if not name.endswith(BINARY)]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_machine_is_named() -> None:
    assert lines_with(FOREIGN) == []


def test_nothing_is_left_unfinished() -> None:
    assert lines_with(UNFINISHED) == []


def test_nothing_is_built_or_large() -> None:
    built = re.compile(r"(^|/)(__pycache__|build|dist|\.venv|\.ci-venv|results)/|\.(py[co]|so|o)$|\.egg-info")
    assert [name for name in tracked() if built.search(name)] == []
    assert [name for name in tracked() if (ROOT / name).stat().st_size > LARGEST] == []


def test_text_ends_in_one_newline_and_has_no_trailing_blanks() -> None:
    found = [name for name, text in texts() if text and (not text.endswith("\n") or text.endswith("\n\n"))]
    assert found == []
    code = (".py", ".toml", ".sh", ".md", ".yaml", ".c", ".h")
    assert [
        f"{name}:{number}"
        for name, text in texts()
        if name.endswith(code)
        for number, line in enumerate(text.splitlines(), 1)
        if line != line.rstrip()
    ] == []
