"""`fifty vm attach-volume` and `detach-volume`: the volumes of a VM that is there."""

from __future__ import annotations

import uuid
from typing import Any

from deployments.cli import output
from deployments.cli.context import Credentials, Flag, Json, request_of, require_root
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope


def attach_volume(
    name: str,
    /,
    *,
    size: int | None = None,
    volume: str | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Plug a volume into a VM: a new one, or one of its own that was unplugged.

    In the guest look for it by its serial number, the first 20 characters of its id
    (/dev/disk/by-id/virtio-...): until the next start its name may be another than is told here.

    Args:
        name: The VM's name or id.
        size: GiB of a new volume.
        volume: The id of one that was detached.
    """
    new = str(uuid.uuid4()) if volume is None else None
    _change("attach", name, credentials, size_gib=size, volume=volume, id=new)
    _tell(name, credentials, json=json)


def detach_volume(
    name: str,
    volume: str,
    /,
    *,
    delete: Flag = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Unplug a volume from a VM; the VM keeps it, and it can be plugged in again.

    Args:
        name: The VM's name or id.
        volume: The volume's id, or its device (`fifty vm show`).
        delete: Also delete it, with all that is on it.
    """
    _change("detach", name, credentials, volume=volume, delete=delete or None)
    _tell(name, credentials, json=json)


def _change(
    action: str,
    name: str,
    credentials: str | None,
    **more: Any,  # noqa: ANN401 - fields of many types
) -> None:
    require_root("changing a VM's volumes")
    request = request_of(credentials, action=action, name=name, **more)
    run_flow("change_volume", request).require_success()


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
    scope = open_scope(credentials)
    instance = scope.vm(name)
    volumes = scope.store.volumes.of(instance.id)
    if json:
        found = [one.model_dump(mode="json", exclude={"tenant_id"}) for one in volumes]
        output.document({"id": instance.id, "name": instance.name, "volumes": found})
        return
    output.facts(
        (
            ("name", instance.name),
            *(
                ("volume", f"{one.device or 'detached'}, {one.size_gib} GiB, {one.id}")
                for one in volumes
            ),
        )
    )
