"""A tenant's networks as an artifact: Prefect's UI draws Mermaid in Markdown (its second one)."""

from __future__ import annotations

import re

from prefect.artifacts import create_markdown_artifact

from blocks.resources import Network
from blocks.state import StateStore
from tasks.topology import Topology, mermaid, topology


def publish_topology(store: StateStore, tenant_id: str) -> None:
    """Draw a tenant's networks, routers and VMs anew, for the UI's page of artifacts."""
    [tenant] = [found for found in store.tenants.list() if found.id == tenant_id]
    picture = topology(store, tenant_id)
    create_markdown_artifact(
        key=re.sub("[^a-z0-9]+", "-", f"topology-{tenant.name}".lower()).strip("-"),
        markdown="\n".join([f"# The networks of {tenant.name}", "", *fenced_diagram(picture)]),
        description=f"{len(picture.networks)} network(s), {len(picture.routers)} router(s)",
    )


def around(store: StateStore, network: Network) -> list[str]:
    """What hangs together with a network, as its tenant sees it: lines of Markdown."""
    return fenced_diagram(topology(store, network.tenant_id, network))


def fenced_diagram(picture: Topology) -> list[str]:
    """A picture as a block of Mermaid; its labels are escaped, so that no name ends it."""
    return ["```mermaid", *mermaid(picture).splitlines(), "```", ""]
