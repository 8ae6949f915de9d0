"""Second stage: the model. A plain program with the standard library only, one request at a time.

The model is real but tiny (a perceptron with one hidden layer, see train.py), so it answers in less than a
millisecond. THINK_SECONDS is a stand-in for the time that a model of useful size would hold its device.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

THINK_SECONDS = float(os.environ.get("THINK_SECONDS", "0"))


class Model:
    """Features -> probability of each language."""

    def __init__(self, path: Path) -> None:
        weights = json.loads(path.read_text())
        self.labels, self.hidden, self.output = weights["labels"], weights["hidden"], weights["output"]

    def scores(self, features: dict[str, float]) -> dict[str, float]:
        """Return the probability of each label."""
        width = len(self.output[0])
        sums = [
            sum(self.hidden[int(b)][unit] * share for b, share in features.items()) for unit in range(width)
        ]
        units = [math.tanh(value) for value in sums]
        raw = [sum(w * unit for w, unit in zip(row, units, strict=True)) for row in self.output]
        powers = [math.exp(value - max(raw)) for value in raw]
        return {label: power / sum(powers) for label, power in zip(self.labels, powers, strict=True)}


class Handler(BaseHTTPRequestHandler):
    """GET /readyz, and POST / with `{"features": ...}`."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # headers and body leave in one packet
    model: Model
    busy = threading.Lock()

    def do_GET(self) -> None:
        """Ready as soon as the server runs: the model was loaded before."""
        self.answer(200 if self.path == "/readyz" else 404, {})

    def do_POST(self) -> None:
        """Run the model."""
        features = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["features"]
        with self.busy:  # one request at a time; the router's `concurrency: 1` already sees to it
            time.sleep(THINK_SECONDS)
            scores = self.model.scores(features)
        self.answer(200, {"scores": scores, "replica": os.environ.get("STOKER_REPLICA", "")})

    def answer(self, status: int, document: dict[str, object]) -> None:
        """Send JSON."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of single requests."""


def main() -> None:
    """Load the model, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Handler.model = Model(Path(__file__).with_name("model.json"))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
    print(f"model loaded; devices: {devices}; {THINK_SECONDS:g} s a request", flush=True)
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
