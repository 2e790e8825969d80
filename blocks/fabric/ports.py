"""The taps of the guests: made before QEMU starts, opened by it, held by nobody else."""

from __future__ import annotations

from pyroute2 import IPRoute

from blocks.errors import InvalidRequest, Transient
from blocks.fabric import links
from blocks.fabric.links import with_links
from blocks.fabric.segments import SegmentDriver
from blocks.fabric.site import Site
from blocks.resources import Network, Port, PortBinding


class Ports:
    """The site's taps."""

    def __init__(self, site: Site, segments: SegmentDriver) -> None:
        self._site = site
        self._segments = segments

    def plug(self, binding: PortBinding, owner_uid: int | None) -> None:
        """Make a port's tap and enslave it to its network's bridge, up.

        libvirt takes it as it is (`managed='no'`). The tap has no carrier until a QEMU
        opens it. A device of that name with our mark that is there already is taken,
        whatever its kind.

        Args:
            binding: The port with its tap's name, and its network.
            owner_uid: Who may open it: the user that libvirt's QEMU runs as; none means
                root only.

        Raises:
            Transient: The network's bridge is not there.
            Conflict: The tap's name belongs to somebody else's link.
        """
        port, network = binding.port, binding.network
        name = tap_of(port)
        alias = self._site.alias("port", port.id)

        def make(ipr: IPRoute) -> None:
            bridge = links.need(ipr, self._segments.bridge(network))
            tap = links.ensure_tap(ipr, name, alias, owner_uid)
            links.settle(ipr, tap, mtu=network.mtu, bridge=bridge)

        # The lock keeps the bridge from being removed, as one without ports, in between.
        with self._site.locked(network.id):
            with_links(None, make)

    def unplug(self, port: Port) -> None:
        """Delete a port's tap; already gone is fine."""
        if port.tap is None:
            return
        alias = self._site.alias("port", port.id)
        with_links(None, lambda ipr: links.delete(ipr, tap_of(port), alias))

    def carrier(self, port: Port) -> bool:
        """Whether a process (QEMU) holds the port's tap open.

        Raises:
            Transient: The tap is not there.
        """
        return with_links(None, lambda ipr: links.need(ipr, tap_of(port)).carrier)

    def differences(self, port: Port, network: Network) -> list[str]:
        """What of a port's tap is not as it should be, in words."""

        def look(ipr: IPRoute) -> list[str]:
            try:
                tap = links.need(ipr, tap_of(port))
                bridge = links.need(ipr, self._segments.bridge(network))
            except Transient as error:
                return [error.message]
            alias = self._site.alias("port", port.id)
            return links.differences(tap, alias=alias, mtu=network.mtu, master=bridge)

        return with_links(None, look)


def tap_of(port: Port) -> str:
    """The port's tap, as it was recorded with it.

    Raises:
        InvalidRequest: No tap's name has been chosen yet.
    """
    if port.tap is None:
        raise InvalidRequest(f"the port {port.id} has no tap's name yet (step 23 chooses it)")
    return port.tap
