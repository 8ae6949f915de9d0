"""What has to be there before a container can be started."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from stoker.errors import WorkerError
from stoker.plugin.local import (
    account_of,
    check_format,
    check_request,
    check_strings,
    find_command,
    group_of,
    open_log,
)
from stoker.plugin.numa import cores_near
from stoker.plugin.ports import StartRequest
from stoker_podman.boxroot import box_mounts, make_root
from stoker_podman.spec import Place, bind


class Preparation:
    """Prepares containers. `root`: the empty root of those without an image; `raw`: where output goes;
    `nproc`: the most processes of a user where the engine may not raise its own limit."""

    def __init__(self, root: Path, raw: Path, nproc: int | None = None) -> None:
        self._root = root
        self._raw = raw
        self._nproc = nproc

    def place(self, request: StartRequest, name: str) -> Place:
        """Where the container will live. Raises WorkerError for what cannot succeed."""
        os.close(open_log(request.log_path))
        try:
            self._raw.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise WorkerError(f"cannot make {self._raw}: {error.strerror}") from error
        raw = str(self._raw / f"{name}.log")
        notify = request.environ.get("NOTIFY_SOCKET", "")
        mounts = [bind(notify, notify, "rw")] if notify.startswith("/") else []
        cpus = ",".join(map(str, cores_near(request.numa_node)))
        if request.container.image:
            check_strings(request)
            user = ":".join(filter(None, (request.user or ("0" if request.group else ""), request.group)))
            return Place(raw=raw, mounts=mounts, user=user, cpus=cpus, nproc=self._nproc)
        return self._box_place(request, raw, mounts, cpus)

    def _box_place(
        self, request: StartRequest, raw: str, mounts: list[dict[str, object]], cpus: str
    ) -> Place:
        check_request(request)
        check_format(request, find_command(request))
        account, group = account_of(request), group_of(request)
        make_root(self._root)
        return Place(
            rootfs=str(self._root),
            mounts=[*box_mounts(request.working_dir), *mounts],
            raw=raw,
            user="" if account is None and group is None else _ids(account, group),
            groups=() if account is None else _groups(account),
            cpus=cpus,
            nproc=self._nproc,
        )


def _ids(account: pwd.struct_passwd | None, group: int | None) -> str:
    user = os.geteuid() if account is None else account.pw_uid
    first = group if group is not None else account.pw_gid if account is not None else os.getegid()
    return f"{user}:{first}"


def _groups(account: pwd.struct_passwd) -> tuple[str, ...]:
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return tuple(str(number) for number in groups if number != account.pw_gid)
