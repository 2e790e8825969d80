"""StateStore: all that Fifty Steps remembers, behind one name."""

from __future__ import annotations

import secrets
from pathlib import Path

from blocks.state.allocations import Allocations
from blocks.state.builds import Builds
from blocks.state.compute import Flavors, Hosts
from blocks.state.database import Database
from blocks.state.floating_ips import FloatingIps
from blocks.state.groups import SecurityGroups
from blocks.state.images import Images
from blocks.state.instances import Instances
from blocks.state.journal import Journal
from blocks.state.keys import KeyPairs
from blocks.state.leases import LEASE_S, Leases
from blocks.state.networks import Networks
from blocks.state.plugs import Plugs
from blocks.state.ports import Ports
from blocks.state.quota import Quota
from blocks.state.routers import Routers
from blocks.state.snapshots import Snapshots
from blocks.state.tables import MetaRow
from blocks.state.tenants import Tenants
from blocks.state.volumes import Volumes


class StateStore:
    """The state store: repositories over one database.

    Args:
        path: The SQLite database's file.
        host: The name of the host that this process runs on.
        lease_s: Seconds that a lease lives without being renewed.
    """

    def __init__(self, path: Path, host: str, lease_s: float = LEASE_S) -> None:
        self.host = host
        self.database = Database(path)
        self.tenants = Tenants(self.database)
        self.keys = KeyPairs(self.database)
        self.quota = Quota(self.database)
        self.flavors = Flavors(self.database)
        self.images = Images(self.database)
        self.hosts = Hosts(self.database)
        self.instances = Instances(self.database)
        self.volumes = Volumes(self.database)
        self.snapshots = Snapshots(self.database)
        self.networks = Networks(self.database)
        self.routers = Routers(self.database)
        self.floating_ips = FloatingIps(self.database)
        self.ports = Ports(self.database)
        self.plugs = Plugs(self.database)
        self.groups = SecurityGroups(self.database)
        self.builds = Builds(self.database)
        self.journal = Journal(self.database)
        self.leases = Leases(self.database, host, lease_s)
        self.allocations = Allocations(self.database, self.leases)

    @property
    def site(self) -> str:
        """The site's id: four hex digits that tell its things from another store's."""
        with self.database.read() as session:
            row = session.get(MetaRow, "site")
            return row.value if row is not None else ""

    def initialize(self) -> None:
        """Make or migrate the tables, and choose the site's id once."""
        # Here, because Alembic is slow to import and only `fifty init` needs it.
        from blocks.state.migrations import upgrade  # noqa: PLC0415

        self.database.path.parent.mkdir(parents=True, exist_ok=True)
        upgrade(self.database)
        with self.database.write() as session:
            if session.get(MetaRow, "site") is None:
                session.add(MetaRow(key="site", value=secrets.token_hex(2)))
