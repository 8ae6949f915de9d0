"""TLS on the TCP doors: a certificate that is used, renewed without a restart, refused with its reason."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path
from shutil import which

import pytest

from api.fakes import FakeDaemon
from api.test_guard import TOKEN, on_tcp
from stoker.api.tls import Certificate
from stoker.errors import StokerError

pytestmark = pytest.mark.skipif(
    which("openssl") is None, reason="needs the program openssl to make certificates"
)


def make(folder: Path, name: str, *, passphrase: str = "") -> tuple[str, str]:
    """A certificate of its own authority for that name, laid over the one that is there."""
    chain, key = folder / "cert.pem", folder / "key.pem"
    lock = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}", "-days", "2"]
    names = ["-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        *what,
        *names,
        *lock,
        "-keyout",
        f"{key}.new",
        "-out",
        f"{chain}.new",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    Path(f"{key}.new").replace(key)
    Path(f"{chain}.new").replace(chain)
    return str(chain), str(key)


class Said(list[tuple[str, str]]):
    def __call__(self, words: str, severity: str) -> None:
        self.append((words, severity))


def shake(port: int, chain: str) -> str:
    """The name in the certificate that the server shows to a client who trusts only `chain`."""
    trust = ssl.create_default_context(cafile=chain)
    with (
        closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as plain,
        trust.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        head = f"GET /v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}connection: close\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        subject = connection.getpeercert()["subject"]
    return dict(field for entry in subject for field in entry)["commonName"]


def test_a_renewed_certificate_is_shown_to_whoever_comes_next(daemon: FakeDaemon, tmp_path: Path) -> None:
    said = Said()
    chain, key = make(tmp_path, "old")
    certificate = Certificate(chain, key, said)
    with on_tcp(daemon, certificate.context) as port:
        assert shake(port, chain) == "old"
        assert said == []
        make(tmp_path, "new")
        assert shake(port, chain) == "new"
        assert [severity for _, severity in said] == ["info"]
        good = Path(chain).read_text()
        Path(chain).write_text("no certificate")
        Path(tmp_path / "good.pem").write_text(good)
        assert shake(port, str(tmp_path / "good.pem")) == "new", "the last good one stays in force"
        assert said[-1][1] == "error"
        assert chain in said[-1][0]
        assert len(said) == 2, "told once"
        Path(key).unlink()
        assert shake(port, str(tmp_path / "good.pem")) == "new"


def test_what_speaks_no_tls_gets_nothing(
    daemon: FakeDaemon, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain, key = make(tmp_path, "box")
    with on_tcp(daemon, Certificate(chain, key, Said()).context) as port:
        for words in (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 99, b""):
            with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
                connection.sendall(words)
                connection.shutdown(socket.SHUT_WR)
                assert b"HTTP" not in connection.recv(4096)
        assert shake(port, chain) == "box"
    assert caplog.records == []


def test_old_versions_of_tls_are_refused(daemon: FakeDaemon, tmp_path: Path) -> None:
    chain, key = make(tmp_path, "box")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with (
        on_tcp(daemon, Certificate(chain, key, Said()).context) as port,
        closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain)


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(StokerError, match=r"cannot read .*cert\.pem: No such file"):
        Certificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), Said())
    chain, key = make(tmp_path, "box", passphrase="secret")
    with pytest.raises(StokerError, match="has a passphrase"):
        Certificate(chain, key, Said())
    make(tmp_path, "box")
    (tmp_path / "other").mkdir()
    _, other = make(tmp_path / "other", "other")
    with pytest.raises(StokerError, match="do not belong together"):
        Certificate(chain, other, Said())
    with pytest.raises(StokerError, match="no PEM pair"):
        Certificate(key, key, Said())
