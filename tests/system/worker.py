"""A worker for tests: answers HTTP with who it is. Standard library only.

worker.py [--slow SECONDS] [--start-after SECONDS] [--ignore-term] [--port PORT | --socket PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import socketserver
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "0")))
    parser.add_argument("--socket")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--start-after", type=float, default=0.0)
    parser.add_argument("--ignore-term", action="store_true")
    options = parser.parse_args()
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(options.start_after)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write per answer: a worker killed in between would leave half of one

        def do_GET(self) -> None:
            time.sleep(options.slow)
            who = {"pid": os.getpid(), "replica": os.environ.get("STOKER_REPLICA"), "path": self.path}
            body = json.dumps({**who, "environ": dict(os.environ)}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            print(*args, flush=True)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    if options.socket:
        Server.address_family = socket.AF_UNIX
        Server.server_bind = socketserver.TCPServer.server_bind  # that of HTTP asks for the name of a host
        Server(options.socket, Answer).serve_forever()
    Server(("127.0.0.1", options.port), Answer).serve_forever()


if __name__ == "__main__":
    main()
