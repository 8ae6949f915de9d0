"""The web page: a few files in this package, served as they are. They work offline and fetch nothing from
elsewhere; they hold no data, so they may be had by anybody who reaches the daemon."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.responses import Response

from stoker.errors import NotFoundError

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing inline, nothing from elsewhere, in nobody's frame."""


class Page:
    """The files, read when first asked for and kept; each knows its tag."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, str]] = {}

    def answer(self, name: str, known: str = "") -> Response:
        """The file of that name, or 304 where `known` is its tag. Raises NotFoundError."""
        data, tag = self._file(name)
        headers = {
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-cache",
            "etag": tag,
        }
        if tag == known:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=KINDS[name.rpartition(".")[2]])

    def _file(self, name: str) -> tuple[bytes, str]:
        if name not in self._kept:
            # The directory is listed, not joined with what was asked for: no name leads out of it.
            found = {file.name: file for file in files("stoker.api").joinpath("web").iterdir()}
            if name not in found or name.rpartition(".")[2] not in KINDS:
                raise NotFoundError(f"the page has no file {name!r}")
            data = found[name].read_bytes()
            self._kept[name] = data, f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        return self._kept[name]
