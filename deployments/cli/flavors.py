"""`fifty flavor`: the sizes that VMs come in, and what their disks are made as."""

from __future__ import annotations

from typing import Any, Literal

from blocks.errors import Conflict
from blocks.resources import Flavor
from deployments.cli import output
from deployments.cli.context import Credentials, Json
from deployments.cli.scope import open_scope
from tasks.draft import describe_all, refusal
from tasks.policy import check_policy

_LIMITS = {
    "cpu_shares": "cpu shares",
    "cpu_percent": "cpu %",
    "disk_iops": "disk IOPS",
    "disk_mib_s": "disk MiB/s",
    "net_kib_s": "net KiB/s",
}


def create(
    name: str,
    /,
    *,
    vcpus: int,
    ram: int,
    disk: int,
    disk_mode: Literal["chained", "flat"] = "chained",
    cpu_shares: int | None = None,
    cpu_percent: int | None = None,
    disk_iops: int | None = None,
    disk_mib_s: int | None = None,
    net_kib_s: int | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Make a flavor; for admins only. One that is there, and the same, is kept.

    Args:
        name: Its name.
        vcpus: Processors.
        ram: Memory in MiB.
        disk: The root disk in GiB.
        disk_mode: chained: the root disk is an overlay on the image's base in the host's cache,
            made at once. flat: it is a full copy, which needs no other file.
        cpu_shares: Weight against other VMs; 1024 is one share.
        cpu_percent: The most of one processor, for each vcpu.
        disk_iops: The most operations a second, for each disk.
        disk_mib_s: The most MiB a second, for each disk.
        net_kib_s: The most KiB a second, for each direction of each port.
    """
    scope = open_scope(credentials)
    check_policy(scope.caller, "flavor:change")
    limits = {
        "cpu_shares": cpu_shares,
        "cpu_percent": cpu_percent,
        "disk_iops": disk_iops,
        "disk_mib_s": disk_mib_s,
        "net_kib_s": net_kib_s,
    }
    form = {
        "name": name,
        "vcpus": vcpus,
        "ram_mib": ram,
        "disk_gib": disk,
        "disk_mode": disk_mode,
        "limits": limits,
    }
    lines = describe_all(Flavor, form)
    if lines:
        raise refusal("flavor", lines)
    wanted = Flavor.model_validate(form)
    there = next((one for one in scope.store.flavors.list() if one.name == name), None)
    if there not in (None, wanted):
        raise Conflict(
            f"there is a flavor {name!r} already, and it is another one",
            hint=f"choose another name, or `fifty flavor delete {name}` first; VMs keep theirs",
        )
    scope.store.flavors.put(wanted)
    _tell(wanted, json=json)


def list(*, credentials: Credentials = None, json: Json = False) -> None:
    """List the flavors."""
    found = [_document(flavor) for flavor in open_scope(credentials).store.flavors.list()]
    if json:
        output.document(found)
        return
    output.table(
        ("NAME", "VCPUS", "MEMORY", "DISK", "DISK MODE", "LIMITS"),
        (
            (
                item["name"],
                item["vcpus"],
                f"{item['ram_mib']} MiB",
                f"{item['disk_gib']} GiB",
                item["disk_mode"],
                _limits(item) or None,
            )
            for item in found
        ),
        "There is no flavor yet. `fifty flavor create NAME` makes one.",
    )


def show(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Show a flavor.

    Args:
        name: Its name.
    """
    _tell(open_scope(credentials).store.flavors.get(name), json=json)


def delete(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Delete a flavor; for admins only. VMs keep the one that they were made with.

    Args:
        name: Its name.
    """
    scope = open_scope(credentials)
    check_policy(scope.caller, "flavor:change")
    scope.store.flavors.delete(name)
    if json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The flavor {output.plain(name)} is deleted.")


def _tell(flavor: Flavor, *, json: bool) -> None:
    found = _document(flavor)
    if json:
        output.document(found)
        return
    output.facts(
        (
            ("name", found["name"]),
            ("vcpus", found["vcpus"]),
            ("memory", f"{found['ram_mib']} MiB"),
            ("disk", f"{found['disk_gib']} GiB, {found['disk_mode']}"),
            ("limits", _limits(found)),
        )
    )


def _document(flavor: Flavor) -> dict[str, Any]:
    return flavor.model_dump(mode="json")


def _limits(found: dict[str, Any]) -> str:
    limits = found["limits"].items()
    return ", ".join(f"{_LIMITS[name]} {limit}" for name, limit in limits if limit is not None)
