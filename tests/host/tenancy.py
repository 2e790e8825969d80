"""A site with two tenants, the things of one of them, and a look at all that there is."""

from __future__ import annotations

import subprocess
import uuid
from ipaddress import IPv4Network

from sqlalchemy import text

from blocks.resources import (
    FloatingIp,
    Image,
    ImageFormat,
    Instance,
    InstanceStatus,
    Network,
    NetworkType,
    Pool,
    PortKind,
    Router,
    Subnet,
)
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.state.tables.base import now
from deployments import defaults
from deployments.tenants import create_tenant, issue_token

#: Tables in which nothing may change when somebody names what is not theirs.
_TABLES = (
    *("addresses", "claims", "images", "instances", "key_pairs", "leases", "networks", "ports"),
    *("port_groups", "quota_claims", "quotas", "routers", "security_groups", "segments"),
    *("subnets", "tenants", "tokens", "volumes", "floating_ips", "security_group_rules"),
)
_PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBZ4gUVa6xjb0V5JnTlAoq1J1kA5bK8gqcVfDQmQJ1S x"


class Tenancy:
    """Tenant `owner` with things called `theirs-...`, and tenant `other` with none.

    Their credentials blocks: `owner`, `owner-reader`, `other`, `other-admin`.

    Args:
        here: The settings of a site that was initialized.
    """

    def __init__(self, here: Settings) -> None:
        self.home = here.home
        self.store = StateStore(here.database, here.host)
        self.owner, _new = create_tenant(self.store, "owner")
        self.other, _new = create_tenant(self.store, "other")
        for tenant, role, block in (
            (self.owner, "member", "owner"),
            (self.owner, "reader", "owner-reader"),
            (self.other, "member", "other"),
            (self.other, "admin", "other-admin"),
        ):
            issue_token(self.store, tenant, role, block)
        self.network = self._network()
        self.router = self._router()
        self.group = str(uuid.uuid4())
        self.store.groups.create(self.group, self.owner.id, "theirs-group")
        self.floating = self._floating_ip()
        self.image = self._image()
        self.store.keys.put(self.owner.id, "theirs-key", _PUBLIC_KEY, None)
        self.vm = self._vm()

    def names(self, kind: str) -> tuple[str, str]:
        """The id and the name of one of the owner's things."""
        if kind == "key":
            return "theirs-key", "theirs-key"
        if kind in ("group", "security-group"):
            return self.group, "theirs-group"
        if kind in ("floating", "floating-ip"):
            return self.floating.id, str(self.floating.address)
        thing = getattr(self, kind)
        return thing.id, thing.name

    def everything(self) -> dict[str, list[str]]:
        """Every row in which something is given out, the files, and the host's network."""
        found: dict[str, list[str]] = {}
        with self.store.database.read() as session:
            for table in _TABLES:
                rows = session.execute(text(f"SELECT * FROM {table}"))  # noqa: S608
                found[table] = sorted(map(repr, rows))
            owned = text(
                "SELECT id, state, generation, fault FROM builds"
                " WHERE tenant_id = :t AND state != 'refused'"
            )
            found["builds"] = sorted(map(repr, session.execute(owned, {"t": self.owner.id})))
        found["files"] = sorted(
            str(path)
            for room in ("instances", "networks", "volumes", "keys", "images")
            for path in (self.home / room).rglob("*")
        )
        found["links"] = subprocess.run(
            ["ip", "-json", "link"], capture_output=True, text=True, check=True
        ).stdout.split(f"fifty:{self.store.site}:")[1:]
        return found

    def _build(self, catalogue: str, name: str) -> str:
        build, _new = self.store.builds.open(
            build_id=str(uuid.uuid4()),
            catalogue=catalogue,
            name=name,
            credentials="owner",
            request={"name": name},
            request_id=f"theirs-{catalogue}",
            flow_run_id=None,
            policy="rollback",
        )
        self.store.builds.update(build.id, tenant_id=self.owner.id, state="complete")
        return build.id

    def _network(self) -> Network:
        network = self.store.networks.create(
            Network(
                id=self._build("network", "theirs-network"),
                tenant_id=self.owner.id,
                name="theirs-network",
                type=NetworkType.VXLAN,
                zone=1,
                anchor_host=self.store.host,
            )
        )
        cidr = IPv4Network("10.91.0.0/24")
        self.store.networks.add_subnet(
            Subnet(
                id=str(uuid.uuid4()),
                network_id=network.id,
                cidr=cidr,
                gateway=cidr[1],
                pools=(Pool(first=cidr[2], last=cidr[-2]),),
            )
        )
        return network

    def _router(self) -> Router:
        router = Router(
            id=str(uuid.uuid4()),
            tenant_id=self.owner.id,
            name="theirs-router",
            host=self.store.host,
        )
        self.store.routers.create(router)
        return router

    def _floating_ip(self) -> FloatingIp:
        """One in an external network, which everybody sees."""
        world = self.store.networks.create(
            Network(
                id=str(uuid.uuid4()),
                tenant_id=self.owner.id,
                name="world",
                type=NetworkType.FLAT,
                external=True,
                zone=1,
                anchor_host=self.store.host,
            )
        )
        cidr = IPv4Network("10.93.0.0/24")
        self.store.networks.add_subnet(
            Subnet(
                id=str(uuid.uuid4()),
                network_id=world.id,
                cidr=cidr,
                gateway=cidr[1],
                pools=(Pool(first=cidr[2], last=cidr[-2]),),
                dhcp=False,
            )
        )
        return self.store.floating_ips.create(str(uuid.uuid4()), self.owner.id, world.id)

    def _image(self) -> Image:
        image = Image(
            id=self._build("image", "theirs-image"),
            tenant_id=self.owner.id,
            name="theirs-image",
            format=ImageFormat.QCOW2,
            sha256="0" * 64,
            size_bytes=1 << 20,
            virtual_size_bytes=1 << 20,
            login_user="root",
            path="theirs.qcow2",
        )
        self.store.images.put(image)
        return image

    def _vm(self) -> Instance:
        time = now()
        instance = Instance(
            id=self._build("vm", "theirs-vm"),
            tenant_id=self.owner.id,
            name="theirs-vm",
            status=InstanceStatus.ACTIVE,
            flavor=defaults.FLAVORS[0],
            image_id=self.image.id,
            image_name=self.image.name,
            host=self.store.host,
            request_id="theirs-vm",
            created_at=time,
            updated_at=time,
        )
        self.store.instances.record(instance)
        port = self.store.ports.plan(
            port_id=str(uuid.uuid4()),
            tenant_id=self.owner.id,
            network_id=self.network.id,
            kind=PortKind.COMPUTE,
            device_id=instance.id,
        )
        self.store.ports.give_mac(port.id)
        [subnet] = self.store.networks.subnets(self.network.id)
        self.store.ports.give_address(port.id, subnet.id)
        console = self.home / "instances" / instance.id / "console.log"
        console.parent.mkdir(parents=True, exist_ok=True)
        console.write_text("theirs to read\n")
        return instance
