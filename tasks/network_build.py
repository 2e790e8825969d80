"""The build of a network: everything that its steps can ask for, by name."""

from __future__ import annotations

import uuid
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from blocks.errors import NotFound
from blocks.fabric import NetworkFabric
from blocks.resources import Network, NetworkRequest, Pool, Router, Subnet
from blocks.state import Build, Caller, StateStore
from blocks.world import World
from tasks.ends import Kind
from tasks.step import Catalogue


class NetworkBuild:
    """One network's build; the network's id is the build's.

    Args:
        world: The connections of this host.
        build: The recorded build.
    """

    def __init__(self, world: World, build: Build) -> None:
        self.world = world
        self.build_id = build.id
        self.generation = build.generation
        self.lease_token: str | None = None

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Say how the build stands; a network's record has no status of its own.

        Raises:
            Conflict: It is to be deleted while guests or routers' gateways are in it.
        """
        del fault
        if state == "deleting":
            self.store.networks.refuse_if_used(self.build_id)
        return f"{self.build.name} is {state}"

    @property
    def store(self) -> StateStore:
        """The state store."""
        return self.world.store

    @property
    def fabric(self) -> NetworkFabric:
        """This host's networking."""
        return self.world.fabric

    @property
    def build(self) -> Build:
        """The build as recorded."""
        return self.store.builds.get(self.build_id)

    @property
    def plan(self) -> dict[str, Any]:
        """What the steps so far found and chose."""
        return self.build.plan

    @property
    def form(self) -> dict[str, Any]:
        """The request as it came, not yet validated."""
        return self.build.request

    @cached_property
    def request(self) -> NetworkRequest:
        """The request, valid (from step 2 on)."""
        return NetworkRequest.model_validate(self.build.request)

    @property
    def caller(self) -> Caller:
        """Who asked (from step 1 on)."""
        known = self.plan.get("caller")
        if known is None:
            raise NotFound("the caller of this build is not known yet")
        return Caller(**known)

    @property
    def network(self) -> Network:
        """The network (from step 2 on); after its record is gone, as it was.

        The snapshot is what lets a bridge be removed that an earlier rollback could not.
        """
        try:
            return self.store.networks.get(self.build_id)
        except NotFound:
            return Network.model_validate(self.plan["network"])

    @property
    def subnet(self) -> Subnet:
        """Its subnet (from step 3 on)."""
        [subnet] = self.store.networks.subnets(self.build_id)
        return subnet

    @property
    def router(self) -> Router | None:
        """The router that it is attached to, or is to be (from step 6 on)."""
        router_id = self.plan.get("router")
        return self.store.routers.get(router_id) if router_id else None


def planned_subnet(build_id: str, request: NetworkRequest) -> Subnet:
    """The subnet that a valid request asks for, ids chosen.

    The gateway is the first address unless another one is asked for, as in Neutron; the
    pool is every other address of the CIDR unless one is given.
    """
    cidr = IPv4Network(request.cidr)
    gateway = request.gateway or cidr.network_address + 1
    return Subnet(
        id=str(uuid.uuid5(uuid.UUID(build_id), "subnet")),
        network_id=build_id,
        cidr=cidr,
        gateway=gateway,
        dns=request.dns,
        pools=(_pool(request, cidr),),
        dhcp=request.dhcp and not request.external,
    )


def _pool(request: NetworkRequest, cidr: IPv4Network) -> Pool:
    if request.pool:
        first, last = (IPv4Address(end) for end in request.pool.split("-"))
        return Pool(first=first, last=last)
    return Pool(first=cidr.network_address + 1, last=cidr.broadcast_address - 1)


NETWORK = Catalogue("network", NetworkBuild)
NETWORK_KIND = Kind("network", NETWORK, NetworkBuild)
