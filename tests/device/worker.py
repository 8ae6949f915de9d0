"""A worker on a GPU: `/` says where it is, `/take?MIB` allocates, `/misbehave` has the driver report an Xid.

    worker.py --port PORT [--mib MIB] [--astray]

With CUDA_TEST_BOX (a fake box's state file) in its environment it plays its part there. `--astray`: it does
not keep to CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


class FakeCuda:
    """The same on a fake box."""

    def __init__(self, box: str) -> None:
        from fakenvml.cuda import cuda_alloc, visible
        from fakenvml.fakebox import FakeBox

        self._box, self._alloc = FakeBox(box), cuda_alloc
        self.count = len(visible(self._box.read(), os.environ.get("CUDA_VISIBLE_DEVICES")))
        self.uuid = cuda_alloc(box, 300 << 20)

    def take(self, size: int) -> None:
        """Allocate so many bytes."""
        self._alloc(self._box.path, size)

    def misbehave(self) -> None:
        """An Xid."""
        self._box.xid(self.uuid, 31)
        raise RuntimeError("cuCtxSynchronize answers 700")


def open_cuda() -> Any:
    """CUDA on the first visible device."""
    box = os.environ.get("CUDA_TEST_BOX")
    if box:
        return FakeCuda(box)
    from cuda_driver import Cuda

    return Cuda()


def main() -> None:
    """Open CUDA, then serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--astray", action="store_true")
    given = parser.parse_args()
    if given.astray:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    cuda = open_cuda()
    cuda.take(given.mib << 20)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked, code = urlsplit(self.path), 200
            answer: dict[str, Any] = {"uuid": cuda.uuid, "count": cuda.count, "pid": os.getpid()}
            try:
                if asked.path == "/take":
                    cuda.take(int(asked.query) << 20)
                elif asked.path == "/misbehave":
                    cuda.misbehave()
            except (RuntimeError, MemoryError) as error:
                code, answer = 500, {"error": str(error)}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Nothing for good answers."""

    HTTPServer(("127.0.0.1", given.port), Answers).serve_forever()


if __name__ == "__main__":
    main()
