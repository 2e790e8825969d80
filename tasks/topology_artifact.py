"""A tenant's networks as an artifact: Prefect's UI draws Mermaid in Markdown (its second one)."""

from __future__ import annotations

import re

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from blocks.resources import Network
from blocks.state import StateStore
from tasks.topology import Topology, mermaid, topology

_LOOK = (
    "Drawn by the second version of the UI (`/v2`); the first one shows the diagram's text. "
    "VMs are drawn in when a network, a router, a floating IP or an interface is changed, and by "
    "each `reconcile`; `fifty network show --topology` tells how it is now."
)


def publish_topology(store: StateStore, tenant_id: str) -> bool:
    """Draw a tenant's networks, routers and VMs, for the UI's page of artifacts.

    Returns:
        Whether the picture is another than the last one: only such a one is written, as each is
        kept as a version.
    """
    [tenant] = [found for found in store.tenants.list() if found.id == tenant_id]
    picture = topology(store, tenant_id)
    word = re.sub("[^a-z0-9]+", "-", tenant.name.lower()).strip("-")
    # Two names may make one word.
    key = f"topology-{word}" if word == tenant.name else f"topology-{word}-{tenant_id[:8]}"
    drawn = fenced_diagram(picture) if picture.networks or picture.routers else ["None.", ""]
    parts = [f"# The networks of {tenant.name}", "", *drawn, _LOOK]
    markdown = "\n".join(parts)
    if _last(key) == markdown:
        return False
    create_markdown_artifact(
        key=key,
        markdown=markdown,
        description=f"{len(picture.networks)} network(s), {len(picture.routers)} router(s)",
    )
    return True


def publish_topologies(store: StateStore) -> None:
    """Draw those tenants' networks anew whose picture is no longer right."""
    for tenant_id in sorted({network.tenant_id for network in store.networks.list()}):
        publish_topology(store, tenant_id)


def _last(key: str) -> object:
    """What the newest version of an artifact holds; None where there is none."""
    wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_latest_artifacts(artifact_filter=wanted, limit=1)
    return found[0].data if found else None


def around(store: StateStore, network: Network) -> list[str]:
    """What hangs together with a network, as its tenant sees it: lines of Markdown."""
    return fenced_diagram(topology(store, network.tenant_id, network))


def fenced_diagram(picture: Topology) -> list[str]:
    """A picture as a block of Mermaid; its labels are escaped, so that no name ends it."""
    return ["```mermaid", *mermaid(picture).splitlines(), "```", ""]
