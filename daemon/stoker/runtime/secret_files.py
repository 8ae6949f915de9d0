"""Secrets are files: where they are looked for, and how a change of one is noticed.

The first place that has the file counts: the directory that was named (`STOKER_SECRETS_DIR`), `secrets/`
beside the deployment's file, the credentials that systemd hands over, `secrets/` of the state directory.

A changed secret needs new workers. Their revision holds a number that is counted up with each change, never
anything made of the value. What was counted is kept with a keyed digest in a file that only the daemon's user
may read, who may read the secrets too, so that a new daemon knows an old secret again. A secret that is
missing or unreadable for a while counts as unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stoker.errors import WorkerError
from stoker.model.service import DesiredState, ServiceSpec

RECORD = "secrets.json"
MAX_BYTES = 1024 * 1024


class SecretFiles:
    """The secrets of one daemon."""

    def __init__(self, state_dir: str, environ: Mapping[str, str], named: str | None = None) -> None:
        named = named or environ.get("STOKER_SECRETS_DIR") or None
        self._first: tuple[str, ...] = (os.path.abspath(named),) if named else ()
        credentials = environ.get("CREDENTIALS_DIRECTORY")
        own = os.path.join(state_dir, "secrets")
        self._last: tuple[str, ...] = (credentials, own) if credentials else (own,)
        self._record = Path(state_dir) / RECORD
        self._beside: Mapping[str, str] = {}
        self._known: dict[str, dict[str, Any]] | None = None
        self._lock = threading.Lock()
        """A preview may be loaded in one thread while another loads a change."""

    def place(self, folders: Mapping[str, str]) -> None:
        """Say in which folder the file of each deployment in force stands."""
        self._beside = dict(folders)

    def folders(self, deployment: str) -> Sequence[str]:
        """Where the secrets of a deployment in force are looked for, in this order."""
        return self._folders(self._beside.get(deployment))

    def paths(self, desired: DesiredState) -> list[str]:
        """Every path, existing or not, whose change may change a secret in use."""
        wanted = {(spec.deployment, name) for spec in desired.services.values() for name in spec.secrets}
        found = {
            os.path.join(folder, name) for deployment, name in wanted for folder in self.folders(deployment)
        }
        return sorted(found)

    def read(self, name: str, deployment: str, service: str) -> str:
        """The value, without the line's end. Raises WorkerError that says where it was looked for."""
        folders = self.folders(deployment)
        for folder in folders:
            try:
                return _read(os.path.join(folder, name)).decode().rstrip("\n")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
                message = f"cannot read secret {name!r} of {service} in {folder}: {reason}"
                raise WorkerError(message) from error
        places = " or ".join(folders)
        raise WorkerError(f"secret {name!r} of {service} is missing: put a file of that name into {places}")

    def numbered(self, desired: DesiredState, folders: Mapping[str, str]) -> DesiredState:
        """The wanted state with the number of each secret's present version.

        `folders`: where the file of each of its deployments stands.
        """
        with self._lock:
            known = self._load()
            before = json.dumps(known, sort_keys=True)
            wanted = {(spec.deployment, name) for spec in desired.services.values() for name in spec.secrets}
            versions = {
                (deployment, name): _version(
                    f"{deployment}/{name}", _first(self._folders(folders.get(deployment)), name), known
                )
                for deployment, name in sorted(wanted)
            }
            services = {key: _with_versions(spec, versions) for key, spec in desired.services.items()}
            if json.dumps(known, sort_keys=True) != before:
                self._keep(known)
        return replace(desired, services=services)

    def _folders(self, folder: str | None) -> Sequence[str]:
        beside = (os.path.join(folder, "secrets"),) if folder else ()
        return tuple(dict.fromkeys((*self._first, *beside, *self._last)))

    def _load(self) -> dict[str, dict[str, Any]]:
        if self._known is None:
            try:
                read = json.loads(self._record.read_text())
            except (OSError, ValueError):
                read = {}
            entries = read.items() if isinstance(read, dict) else ()
            self._known = {key: value for key, value in entries if _is_entry(value)}
        return self._known

    def _keep(self, known: Mapping[str, Any]) -> None:
        """Replace the record. A disk that is full costs one restart of a service after the next daemon's."""
        beside = self._record.with_name(f"{RECORD}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(known, file, indent=1, sort_keys=True)
            beside.replace(self._record)
        except OSError:
            beside.unlink(missing_ok=True)


def _with_versions(spec: ServiceSpec, versions: Mapping[tuple[str, str], int]) -> ServiceSpec:
    found = tuple((name, versions[spec.deployment, name]) for name in spec.secrets)
    changed = tuple(one for one in found if one[1])
    return replace(spec, secret_versions=changed) if changed else spec


def _version(key: str, value: bytes | None, known: dict[str, dict[str, Any]]) -> int:
    """Counts changes: 0 for what it was when it was first seen."""
    entry = known.get(key)
    if value is None:
        return int(entry["version"]) if entry else 0
    salt = str(entry["salt"]) if entry else secrets.token_hex(16)
    digest = hashlib.blake2b(value, key=salt.encode(), digest_size=16).hexdigest()
    if entry is not None and entry["digest"] == digest:
        return int(entry["version"])
    version = int(entry["version"]) + 1 if entry else 0
    known[key] = {"salt": salt, "digest": digest, "version": version}
    return version


def _first(folders: Sequence[str], name: str) -> bytes | None:
    for folder in folders:
        try:
            return _read(os.path.join(folder, name))
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _read(path: str) -> bytes:
    """The content of a regular file. Raises OSError; never blocks on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES)


def _is_entry(value: object) -> bool:
    wanted: Iterable[tuple[str, type]] = (("salt", str), ("digest", str), ("version", int))
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in wanted)
