"""Step 38: what the steps before it made for a port, read back from the kernel."""

from __future__ import annotations

from blocks.fabric.dhcp import Dhcp
from blocks.fabric.firewall import Firewall
from blocks.fabric.metadata import Metadata
from blocks.fabric.ports import Ports
from blocks.fabric.routing import Routing
from blocks.fabric.segments import SegmentDriver
from blocks.resources import Network, PortBinding, Router


class Proof:
    """Asks every part of the fabric what of a port is not as it should be."""

    def __init__(
        self,
        segments: SegmentDriver,
        dhcp: Dhcp,
        routing: Routing,
        metadata: Metadata,
        ports: Ports,
        firewall: Firewall,
    ) -> None:
        self._segments = segments
        self._dhcp = dhcp
        self._routing = routing
        self._metadata = metadata
        self._ports = ports
        self._firewall = firewall

    def differences(self, binding: PortBinding, router: Router | None) -> list[str]:
        """The differences between what is recorded and what is there, in words.

        Args:
            binding: The port.
            router: The router of its network, where it has one.

        Returns:
            Nothing, if the port is proven.
        """
        found = [
            *self.shared(binding.network),
            *(self._routing.differences(router, binding.port.id) if router else []),
            *self.own(binding),
        ]
        # That a table is gone is told by both.
        return list(dict.fromkeys(found))

    def shared(self, network: Network) -> list[str]:
        """The differences in what the ports of a network have together."""
        return [
            *self._segments.differences(network),
            *self._metadata.server_differences(network),
            *self._firewall.shared_differences(),
        ]

    def own(self, binding: PortBinding) -> list[str]:
        """The differences in what a port has for itself."""
        return [
            *self._dhcp.differences(binding),
            *self._metadata.differences(binding),
            *self._ports.differences(binding.port, binding.network),
            *self._firewall.differences(binding),
        ]
