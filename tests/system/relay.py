"""A worker for tests: says who it is, and what the service behind it says. Standard library only.

relay.py --host HOST --port PORT --name NAME [--behind URL] [--slow SECONDS]
"""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--behind", default="")
    parser.add_argument("--slow", type=float, default=0.0)
    options = parser.parse_args()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(options.slow)
            chain = [{"name": options.name, "replica": os.environ.get("STOKER_REPLICA"), "pid": os.getpid()}]
            if options.behind:
                with urllib.request.urlopen(options.behind, timeout=30) as answer:
                    chain += json.loads(answer.read())
            body = json.dumps(chain).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    ThreadingHTTPServer((options.host, options.port), Answer).serve_forever()


if __name__ == "__main__":
    main()
