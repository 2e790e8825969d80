"""What the rest of the fabric asks of segments."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Protocol

from blocks.resources import Network


class SegmentDriver(Protocol):
    """What makes the segments of networks, and knows the bridge that each ends in."""

    def check(self, network: Network) -> None:
        """Raise Unsupported naming what this host lacks for the network."""
        ...

    def realize(
        self,
        network: Network,
        peers: Sequence[IPv4Address] | None,
        local: IPv4Address | None,
    ) -> None:
        """Make the segment as it is described, or bring it to that."""
        ...

    def remove(self, network: Network) -> bool:
        """Remove the segment unless something is plugged into it; tell whether it is gone."""
        ...

    def bridge(self, network: Network) -> str:
        """The name of the bridge that the network's devices are enslaved to."""
        ...

    def differences(
        self,
        network: Network,
        peers: Sequence[IPv4Address] | None = None,
        local: IPv4Address | None = None,
    ) -> list[str]:
        """What of the segment is not as it should be, in words.

        Where the peers are not told, they are not looked at.
        """
        ...
