"""The answers that the router gives itself: JSON for programs, a plain page for people. Pure."""

from __future__ import annotations

import json
from html import escape
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto 0; padding: 0 1rem }}
h1 {{ font-size: 1.4rem }}
small {{ opacity: .6 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181c; color: #e6e6e6 }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{reason}</p>
<p><small>{note}</small></p>
</body>
</html>
"""


def error(
    status: int,
    reason: str,
    *,
    keep: bool,
    retry_after: int | None = None,
    bodyless: bool = False,
    page: bool = False,
) -> bytes:
    """Return a whole response: the body is `{"error": reason}`, or with `page` one for people, which asks
    again by itself after `retry_after` seconds. `bodyless`: to a HEAD request."""
    if page:
        body, kind = _page(status, reason, retry_after), b"text/html; charset=utf-8"
    else:
        body, kind = json.dumps({"error": reason}).encode() + b"\n", b"application/json"
    lines = [
        b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode()),
        b"Content-Type: %b" % kind,
        b"Content-Length: %d" % len(body),
    ]
    if retry_after is not None:
        lines.append(b"Retry-After: %d" % retry_after)
    if page:
        lines.append(b"Cache-Control: no-store")
        if retry_after is not None:
            lines.append(b"Refresh: %d" % retry_after)
    if not keep:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodyless else body)


def _page(status: int, reason: str, retry_after: int | None) -> bytes:
    again = f" This page asks again every {retry_after} s." if retry_after is not None else ""
    sentence = f"{reason[:1].upper()}{reason[1:]}."
    title = HTTPStatus(status).phrase
    return _PAGE.format(
        title=escape(title), reason=escape(sentence), note=escape(f"{status} from the router.{again}")
    ).encode()
