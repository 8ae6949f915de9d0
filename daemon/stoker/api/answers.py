"""JSON as the API answers it."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse as _JSONResponse


class JSONResponse(_JSONResponse):
    """Bears any text: a path whose bytes are no UTF-8 is told with `?` in place of them."""

    def render(self, content: Any) -> bytes:
        """The document as bytes."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
            errors="replace"
        )
