"""`fifty image deactivate`, `activate`, `share`, `unshare`, `set`: what is said of an image."""

from __future__ import annotations

from typing import Any

from deployments.cli import image_views, output
from deployments.cli.context import Credentials, Flag, Json, Several, request_of, require_root
from deployments.cli.flow_runs import run_flow
from deployments.cli.image_import import properties_of
from deployments.cli.scope import open_scope


def deactivate(
    name: str, /, *, why: str, credentials: Credentials = None, json: Json = False
) -> None:
    """Let no new VM be made from an image; those that there are go on.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        why: The reason, which is told to whoever wants to use it.
    """
    _change("deactivate", name, credentials, json=json, why=why)


def activate(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Let new VMs be made again from an image that was deactivated.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
    """
    _change("activate", name, credentials, json=json)


def share(
    name: str, tenant: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Let one more tenant use an image.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        tenant: The tenant's name.
    """
    _change("share", name, credentials, json=json, tenant=tenant)


def unshare(
    name: str, tenant: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Let a tenant use an image no more; its VMs stay.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        tenant: The tenant's name.
    """
    _change("unshare", name, credentials, json=json, tenant=tenant)


def set(
    name: str,
    /,
    *,
    property: Several = None,
    min_disk: int | None = None,
    min_ram: int | None = None,
    os: str | None = None,
    login_user: str | None = None,
    injectable: Flag | None = None,
    public: Flag = False,
    private: Flag = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Set what is said of an image; only what is given.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        property: NAME=VALUE; with an empty value it is removed.
        min_disk: GiB that a flavor's disk has to have.
        min_ram: MiB that a flavor has to have.
        os: The operating system: linux, windows, or another word.
        login_user: Who one logs in as with the key.
        injectable: Its root file system is ext2, 3 or 4, so that files can be put into it; `check`
            finds that out by itself.
        public: Every tenant can use it.
        private: Only its own tenant can use it.
    """
    if public and private:
        raise output.WrongUsage("--public and --private do not go together", "give one of them")
    visibility = "public" if public else "private" if private else None
    fields = {
        "properties": properties_of(property or []) or None,
        "min_disk_gib": min_disk,
        "min_ram_mib": min_ram,
        "os": os,
        "login_user": login_user,
        "injectable": injectable,
        "visibility": visibility,
    }
    if all(value is None for value in fields.values()):
        hint = "`fifty image set --help` tells what there is to set"
        raise output.WrongUsage("nothing is given that is to be set", hint)
    _change("set", name, credentials, json=json, **fields)


def _change(
    action: str,
    name: str,
    credentials: str | None,
    *,
    json: bool,
    **fields: Any,  # noqa: ANN401 - as the request's are
) -> None:
    require_root("changing an image")
    scope = open_scope(credentials)
    image = scope.image(name)
    request = request_of(credentials, action=action, name=image.id, **fields)
    run_flow("change_image", request).require_success()
    image_views.tell(scope.store.images.get(image.id), json=json)
