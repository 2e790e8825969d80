"""`fifty network show --check` and `--topology`: a network beside its host, and in a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from blocks.fabric import NetworkFabric
from blocks.resources import Network
from blocks.settings import settings
from deployments.cli import output, topology
from deployments.cli.context import require_root
from deployments.cli.scope import Scope
from tasks.drift import Drift, network_drift
from tasks.topology import mermaid
from tasks.topology import topology as topology_of

DIFFERENT = 3


def networks_of(scope: Scope, name: str | None) -> list[Network]:
    """The network of that name or id; without one all that the caller owns."""
    if name is not None:
        return [scope.network(name)]
    tenant = scope.caller.tenant_id
    return [found for found in scope.store.networks.list(tenant) if found.tenant_id == tenant]


def check(scope: Scope, networks: Sequence[Network], *, json: bool) -> int:
    """Compare networks with this host, and tell the differences.

    Returns:
        The exit code: 0 where there are none, 3 where there are.
    """
    require_root("a look into the networks' namespaces")
    here = settings()
    fabric = NetworkFabric(here.networks, scope.store.site, here.host, here.openvswitch_directory)
    found = [(one, network_drift(one, scope.store, fabric, here)) for one in networks]
    clean = not any(drift.lines for _network, drift in found)
    if json:
        output.document({"clean": clean, "networks": [_document(*one) for one in found]})
    else:
        for network, drift in found:
            _tell(network, drift, here.host)
        if not clean:
            output.say(
                "`fifty reconcile` makes them what is recorded, and cuts nothing that works."
            )
    return 0 if clean else DIFFERENT


def _document(network: Network, drift: Drift) -> dict[str, Any]:
    return {
        "id": network.id,
        "name": network.name,
        "anchor_host": network.anchor_host,
        "differences": None if drift.network is None else list(drift.network),
        "ports": [{"port": port, "differences": list(why)} for port, why in drift.ports.items()],
        "under_way": list(drift.under_way),
    }


def _tell(network: Network, drift: Drift, host: str) -> None:
    name = output.plain(network.name)
    if drift.network is None:
        where = output.plain(network.anchor_host)
        output.say(f"{name}: anchored on {where}; only its ports on {host} were looked at")
    for line in drift.lines:
        output.say(f"{name}: {output.plain(line)}")
    if not drift.lines:
        output.say(f"{name}: as recorded")
    for vm in drift.under_way:
        output.say(f"{name}: a run is at work on {output.plain(vm)}; its ports were passed over")


def draw(scope: Scope, name: str | None, *, json: bool) -> None:
    """Draw what hangs together with a network, or all that the caller sees.

    A tree on a terminal; else Mermaid, which Markdown viewers and the Prefect UI draw.
    """
    seen_by = None if scope.is_admin and name is not None else scope.caller.tenant_id
    picture = topology_of(scope.store, seen_by, scope.network(name) if name else None)
    if json:
        output.document(
            {
                "mermaid": mermaid(picture),
                "networks": [
                    {
                        "id": one.network.id,
                        "name": one.network.name,
                        "cidrs": one.cidrs,
                        "external": one.network.external,
                        "vms": [vars(guest) for guest in one.guests],
                        "free_floating_ips": one.free,
                    }
                    for one in picture.networks
                ],
                "routers": [
                    router.model_dump(mode="json", include={"id", "name", "snat"})
                    for router in picture.routers
                ],
            }
        )
    elif sys.stdout.isatty():
        topology.tell(picture)
    else:
        output.say(mermaid(picture).rstrip())


def require_name(name: str | None, *, check: bool, topology: bool) -> None:
    """Check what is to be shown.

    Raises:
        WrongUsage: No network where one is needed, or two views at once.
    """
    if check and topology:
        raise output.WrongUsage("--check and --topology are two views", "ask for one of them")
    if name is None and not (check or topology):
        raise output.WrongUsage(
            "which network is to be shown?",
            "give its name; `--check` and `--topology` do without one, for all networks",
        )
