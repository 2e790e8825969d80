"""The build of a network: everything that its steps can ask for, by name."""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import Any

from blocks.errors import NotFound
from blocks.resources import Network, NetworkRequest, Router, Subnet
from tasks.ends import Kind
from tasks.step import Catalogue
from tasks.subject import BuildSubject


class NetworkBuild(BuildSubject):
    """One network's build; the network's id is the build's."""

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Say how the build stands; a network's record has no status of its own.

        Raises:
            Conflict: It is to be deleted while guests or routers' gateways are in it.
        """
        del fault
        if state == "deleting":
            self.store.networks.refuse_if_used(self.build_id)
        return f"{self.build.name} is {state}"

    @cached_property
    def request(self) -> NetworkRequest:
        """The request, valid (from step 2 on)."""
        return NetworkRequest.model_validate(self.build.request)

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
    def external_id(self) -> str:
        """The id of the external network that is made with it, where one is asked for."""
        return str(uuid.uuid5(uuid.UUID(self.build_id), "external network"))

    @property
    def router(self) -> Router | None:
        """The router that it is attached to, or is to be (from step 6 on); None once it is gone."""
        router_id = self.plan.get("router")
        try:
            return self.store.routers.get(router_id) if router_id else None
        except NotFound:
            return None


NETWORK = Catalogue("network", NetworkBuild)
NETWORK_KIND = Kind("network", NETWORK, NetworkBuild)
