"""A state store filled without any flow, for tests of what the command line reads from it."""

from __future__ import annotations

import uuid
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from blocks.resources import (
    Clocks,
    Image,
    ImageFormat,
    Instance,
    InstanceStatus,
    Network,
    NetworkType,
    Pool,
    PortKind,
    Subnet,
)
from blocks.state import Build, StateStore
from blocks.state.tables.base import now
from deployments import catalogue, defaults

STEPS = [
    catalogue.StepInfo(
        number=number,
        title=f"Do {number}",
        stage="A" if number < 4 else "N",
        undo=number > 1,
        retries=3,
        doc="",
    )
    for number in range(1, 7)
]


class Filled:
    """A store with a tenant, an image, the flavors and the network `lab`.

    Args:
        home: FIFTY_HOME; also gets a catalogue of six steps.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = StateStore(home / "state.db", "here")
        self.store.initialize()
        self.tenant = self.add_tenant(defaults.TENANT, "admin")
        for flavor in defaults.FLAVORS:
            self.store.flavors.put(flavor)
        self.image = Image(
            id=str(uuid.uuid4()),
            tenant_id=self.tenant,
            name="micro",
            format=ImageFormat.QCOW2,
            sha256="0" * 64,
            size_bytes=17 << 20,
            virtual_size_bytes=200 << 20,
            login_user="root",
            path="micro.qcow2",
        )
        self.store.images.put(self.image)
        self.network = self.add_network("lab", self.tenant)
        catalogue.write(home, {"vm": STEPS})

    def add_tenant(self, name: str, role: str) -> str:
        """A tenant whose credentials block is called as it is; its id."""
        tenants = self.store.tenants
        tenant = tenants.create(name)
        tenants.note_credentials(tenants.issue_token(tenant, role), name)
        return tenant

    def add_network(self, name: str, tenant: str) -> Network:
        """A network with 10.0.0.0/24."""
        network = self.store.networks.create(
            Network(
                id=str(uuid.uuid4()),
                tenant_id=tenant,
                name=name,
                type=NetworkType.VXLAN,
                zone=1,
                anchor_host="here",
            )
        )
        cidr = IPv4Network("10.0.0.0/24")
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

    def add_build(
        self, name: str, request: dict[str, Any] | None = None, tenant: str | None = None
    ) -> Build:
        """A build of a VM that has not begun."""
        build, _new = self.store.builds.open(
            build_id=str(uuid.uuid4()),
            catalogue="vm",
            name=name,
            credentials="default",
            request=request or {"name": name},
            request_id=str(uuid.uuid4()),
            flow_run_id=str(uuid.uuid4()),
            policy="rollback",
        )
        self.store.builds.update(build.id, tenant_id=tenant or self.tenant)
        return build

    def add_vm(
        self,
        name: str,
        *,
        tenant: str | None = None,
        address: str | None = "10.0.0.7",
        fault: dict[str, Any] | None = None,
        request: dict[str, Any] | None = None,
    ) -> Instance:
        """A VM with a port on `lab`; with a fault it is in ERROR, else ACTIVE."""
        build = self.add_build(name, request, tenant)
        instance = Instance(
            id=build.id,
            tenant_id=tenant or self.tenant,
            name=name,
            status=InstanceStatus.ERROR if fault else InstanceStatus.ACTIVE,
            flavor=defaults.FLAVORS[0],
            image_id=self.image.id,
            image_name=self.image.name,
            host="here",
            request_id=build.request_id,
            flow_run_id=build.flow_run_id,
            fault=fault,
            clocks=Clocks(running_s=1.25, booted_s=3.5, login_s=6.75),
            created_at=now(),
            updated_at=now(),
        )
        self.store.instances.record(instance)
        port = self.store.ports.plan(
            port_id=str(uuid.uuid4()),
            tenant_id=instance.tenant_id,
            network_id=self.network.id,
            kind=PortKind.COMPUTE,
            device_id=instance.id,
        )
        self.store.ports.give_mac(port.id)
        if address:
            [subnet] = self.store.networks.subnets(self.network.id)
            self.store.ports.give_address(port.id, subnet.id, IPv4Address(address))
        return instance
