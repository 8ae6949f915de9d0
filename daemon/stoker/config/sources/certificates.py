"""Reads the certificates that the configuration names: whether they are there, and fit together.

What is in a key goes nowhere from here: of the two files only a version is kept, made of the certificate and
of the key file's place and time.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace

from stoker.config.outcome import EffectiveConfig, Resolved
from stoker.config.tree import Path, Report
from stoker.errors import ConfigProblem
from stoker.model.door import Tls

MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Named:
    """A pair of files, and where in which deployment's file it is named."""

    tls: Tls
    layer: Resolved
    path: Path


def certificate_files(config: EffectiveConfig) -> tuple[str, ...]:
    """Every file of a certificate or a key, existing or not, and what it is a link to."""
    paths = [path for named in _named(config) for path in (named.tls.cert, named.tls.key)]
    return tuple(dict.fromkeys([*paths, *map(os.path.realpath, paths)]))


def with_certificates(config: EffectiveConfig) -> tuple[EffectiveConfig, list[ConfigProblem]]:
    """The configuration with the version of each certificate, and what is wrong with them. Blocking."""
    versions: dict[tuple[str, str], str] = {}
    problems: list[ConfigProblem] = []
    for named in _named(config):
        fault = _fault(named.tls)
        if fault is None:
            versions[named.tls.cert, named.tls.key] = _version(named.tls)
        else:
            report = Report(named.layer.tree)
            report.add((*named.path, fault[0]), fault[1])
            problems += report.problems
    if not versions:
        return config, problems
    desired = config.desired
    services = {
        key: replace(spec, endpoint=replace(spec.endpoint, tls=_versioned(spec.endpoint.tls, versions)))
        if spec.endpoint.tls is not None
        else spec
        for key, spec in desired.services.items()
    }
    doors = tuple(replace(door, tls=_versioned(door.tls, versions)) for door in desired.doors)
    return replace(config, desired=replace(desired, services=services, doors=doors)), problems


def _named(config: EffectiveConfig) -> Iterator[_Named]:
    layers = {one.name: one for one in config.layers}
    for spec in config.desired.services.values():
        if spec.endpoint.tls is not None:
            path: Path = ("services", spec.name, "endpoint", "tls")
            yield _Named(spec.endpoint.tls, layers[spec.deployment], path)
    for door in config.desired.doors:
        deployment = door.rules[0].service.partition("/")[0] if door.rules else ""
        layer = layers.get(deployment) or next(iter(layers.values()))
        if door.tls is not None:
            yield _Named(door.tls, layer, ("ingress", "tls"))


def _versioned(tls: Tls | None, versions: dict[tuple[str, str], str]) -> Tls | None:
    return None if tls is None else replace(tls, version=versions.get((tls.cert, tls.key), ""))


def _fault(tls: Tls) -> tuple[str, str] | None:
    """Which of the two keys is at fault, and why; None if the pair is good."""
    for key, path in (("cert", tls.cert), ("key", tls.key)):
        try:
            words = _unfit(key, _read(path))
        except OSError as error:
            return key, f"cannot read {path}: {error.strerror}"
        if words:
            return key, f"{path} {words}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password=b"")
    except OSError as error:  # SSLError among them
        if "KEY_VALUES_MISMATCH" in str(error):
            return "key", f"{tls.key} is not the key of the certificate in {tls.cert}"
        reason = getattr(error, "reason", None) or error.strerror
        return "cert", f"{tls.cert} and {tls.key} are no usable pair: {reason}"
    return None


def _unfit(key: str, text: bytes) -> str:
    """What is wrong with one of the files, in words that go on from its name; "" for nothing."""
    if key == "cert":
        good = b"-----BEGIN CERTIFICATE-----" in text
        return "" if good else "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    if b"PRIVATE KEY-----" not in text:
        return "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
    locked = b"ENCRYPTED" in text
    return "is locked by a passphrase, which nobody could type at a restart; remove it" if locked else ""


def _version(tls: Tls) -> str:
    found = os.stat(tls.key)
    told = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()
    return hashlib.blake2b(_read(tls.cert) + told, digest_size=8).hexdigest()


def _read(path: str) -> bytes:
    """The content of a file. Raises OSError; never blocks on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES)
