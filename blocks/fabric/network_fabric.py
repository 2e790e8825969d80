"""The network of one host, as the steps 18 and 31 to 38 see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from blocks.fabric import neighbours, parts
from blocks.fabric.dhcp import Dhcp
from blocks.fabric.dhcp_leases import DhcpLease
from blocks.fabric.firewall import Firewall
from blocks.fabric.inventory import Inventory
from blocks.fabric.metadata import Metadata
from blocks.fabric.outside import Outside
from blocks.fabric.ports import Ports
from blocks.fabric.proof import Proof
from blocks.fabric.routing import Routing
from blocks.fabric.segment_face import SegmentFace
from blocks.fabric.segments import Segments, Vswitch
from blocks.fabric.site import Site
from blocks.inventory import Found
from blocks.resources import (
    Network,
    Port,
    PortBinding,
    Router,
    Subnet,
)


class NetworkFabric(SegmentFace):
    """Segments, DHCP, routers, metadata, taps and their firewall on this host.

    Every method may be called again, by several threads and processes at once; what is
    there already is left as it is, and what is gone already is not missed. Every change
    is recorded (`blocks.changes`).

    Args:
        directory: `FIFTY_HOME/networks`.
        site: The state store's id, four hex digits.
        host: This host's name in the scheduler.
        vswitch_directory: Where Open vSwitch's database listens; None means our own
            daemons' where they run, else the system's.
    """

    def __init__(
        self, directory: Path, site: str, host: str, vswitch_directory: Path | None = None
    ) -> None:
        self._site = Site(directory, site, host)
        self._vswitch = Vswitch(vswitch_directory)
        self._segments = Segments(self._site, self._vswitch)
        self._dhcp = Dhcp(self._site, self._segments)
        self._routing = Routing(self._site, self._segments)
        self._outside = Outside(self._site, self._segments)
        self._metadata = Metadata(self._site)
        self._ports = Ports(self._site, self._segments)
        self._firewall = Firewall(self._site)
        wired = (self._segments, self._dhcp, self._routing, self._metadata)
        self._proof = Proof(*wired, self._ports, self._firewall)
        self._inventory = Inventory(self._site, self._dhcp, self._firewall, self._vswitch)

    def serve_dhcp(self, network: Network, subnet: Subnet, dhcp_port: Port) -> None:
        """Make the network's DHCP namespace with its leg, and run dnsmasq in it.

        Raises:
            HostFault: dnsmasq does not start; the message is what it says.
        """
        self._dhcp.serve(network, subnet, dhcp_port)

    def dhcp_runs(self, network: Network) -> bool:
        """Whether the network's dnsmasq is alive."""
        return self._dhcp.server(network.id).pid() is not None

    def stop_dhcp(self, network: Network) -> None:
        """Stop dnsmasq; remove the namespace, its leg and the files."""
        self._dhcp.stop(network)

    def reserve(self, binding: PortBinding) -> None:
        """Reserve the port's address for its MAC address, and give it its name in DNS."""
        self._dhcp.reserve(binding)

    def release(self, port: Port) -> None:
        """Forget the port's reservation, and end the lease that its guest took."""
        self._dhcp.release(port)

    def lease(self, port: Port) -> DhcpLease | None:
        """The lease that the port's guest has taken; None if it has not."""
        return self._dhcp.lease(port)

    def realize_router(self, router: Router, read: Callable[[], Router] | None = None) -> None:
        """Make the router's namespace with a leg in each of its networks.

        The segments of those networks must be realized on this host. A leg that the
        router no longer has is removed. With `read` its record is read again for that,
        when no other process can change the router.
        """
        self._routing.realize(router, read)

    def follow_router(self, router_id: str, read: Callable[[], Router]) -> None:
        """Make a router be as it is recorded, read when no other process can change it."""
        self._routing.follow(router_id, read)

    def router_differences(self, router: Router) -> list[str]:
        """What of a router is not as it should be: legs, routes, addresses, translation."""
        return self._routing.differences(router)

    def remove_router(self, router: Router | str) -> None:
        """Remove the router (or the one of this id): its namespace and all of its legs."""
        self._routing.remove(router if isinstance(router, str) else router.id)

    def connect_outside(self, router: Router, read: Callable[[], Router] | None = None) -> None:
        """Make the router's gateway leg, routes, SNAT and floating IPs; tell the neighbours.

        Exactly the floating IPs that it is described with: what is attached, moved or
        detached is connected again, first at the router that loses one. With `read` its
        record is read again for that; one that lost its gateway meanwhile stays so.

        Raises:
            InvalidRequest: The router has no gateway, or a route that leads nowhere.
        """
        self._routing.connect(router, read)

    def disconnect_outside(self, router: Router) -> None:
        """Remove the router's gateway leg, default route and SNAT."""
        self._routing.disconnect(router)

    def realize_outside(self, network: Network, subnet: Subnet) -> None:
        """Make the far end of an external network, as its `outside` says.

        Raises:
            InvalidRequest: The subnet has no gateway address, or the operator's bridge
                was to become an uplink of ours.
        """
        self._outside.realize(network, subnet)

    def remove_outside(self, network: Network) -> None:
        """Remove the far end of an external network."""
        self._outside.remove(network)

    def serve_metadata(self, network: Network) -> None:
        """Run the network's metadata server; its DHCP namespace must be there."""
        self._metadata.serve(network)

    def stop_metadata(self, network: Network) -> None:
        """Stop the network's metadata server and remove all of its documents."""
        self._metadata.stop(network)

    def missing(
        self,
        network: Network,
        subnet: Subnet,
        dhcp_port: Port | None,
        routers: Sequence[Router],
        peers: Sequence[IPv4Address] | None = None,
        local: IPv4Address | None = None,
    ) -> list[str]:
        """What of a network is not on this host as it should be: its own, no guest's ports.

        Args:
            network: The network.
            subnet: Its subnet.
            dhcp_port: Its DHCP port; an external network has none.
            routers: Those of this host with a leg or their gateway in it.
            peers: As `segment_differences` takes them.
            local: This host's underlay address.

        Returns:
            The differences in words; nothing, if all is there.
        """
        wrong = self._segments.differences(network, peers, local)
        if network.external:
            wrong += self._outside.differences(network, subnet)
        if dhcp_port is not None:
            wrong += self._dhcp.server_differences(network, subnet, dhcp_port)
            wrong += self._metadata.server_differences(network)
        return wrong + [text for router in routers for text in self._routing.differences(router)]

    def put_metadata(self, binding: PortBinding, documents: Mapping[str, bytes]) -> None:
        """Write what the port's guest is told about itself, and nobody else is.

        Args:
            binding: The port.
            documents: `meta_data.json`, `network_data.json`, `user_data`,
                `vendor_data.json`; exactly those given will be there.
        """
        self._metadata.put(binding, documents)

    def drop_metadata(self, port: Port) -> None:
        """Forget what the port's guest is told."""
        self._metadata.drop(port)

    def plug(self, binding: PortBinding, owner_uid: int | None) -> None:
        """Make the port's tap, in its network's bridge, for a user's QEMU to open."""
        self._ports.plug(binding, owner_uid)

    def unplug(self, port: Port) -> None:
        """Delete the port's tap."""
        self._ports.unplug(port)

    def carrier(self, port: Port) -> bool:
        """Whether a QEMU holds the port's tap open.

        Raises:
            Transient: The tap is not there.
        """
        return self._ports.carrier(port)

    def protect(self, binding: PortBinding) -> None:
        """Apply the port's anti-spoofing and security groups in one transaction."""
        self.protect_each(lambda: [binding])

    def protect_each(self, read: Callable[[], Iterable[PortBinding]]) -> None:
        """Apply the rules of ports that are read when no other process can change any."""
        with self._firewall.held() as protect:
            for binding in read():
                protect(binding)

    @contextmanager
    def rules_at_rest(self) -> Iterator[None]:
        """Keep every other process from changing any rules meanwhile."""
        with self._firewall.held():
            yield

    def unprotect(self, port: Port) -> None:
        """Remove the port's rules; the tables go with the last port."""
        self._firewall.unprotect(port)

    def prove(self, binding: PortBinding, router: Router | None = None) -> list[str]:
        """Read back what the steps before made for a port, and compare.

        Returns:
            The differences in words; nothing, if the port is proven.
        """
        return self._proof.differences(binding, router)

    def prove_shared(self, network: Network) -> list[str]:
        """Of a proof what all guests' ports of a network have in common; there must be one."""
        return self._proof.shared(network)

    def prove_own(self, binding: PortBinding) -> list[str]:
        """Of a proof what a port has for itself alone."""
        return self._proof.own(binding)

    def prove_each(
        self, read: Callable[[], Iterable[tuple[PortBinding, Router | None]]]
    ) -> list[str]:
        """Prove ports, each with its network's router, when no process can change any rules.

        A member that has joined one of their groups meanwhile is not a difference: it is
        let in first.
        """
        wrong = []
        with self._firewall.held() as protect:
            for binding, router in read():
                protect(binding)
                wrong += [f"{binding.port.tap}: {text}" for text in self.prove(binding, router)]
        return wrong

    def neighbour_answers(self, port: Port, network: Network, timeout_s: float = 1.0) -> bool:
        """Whether the guest answers ARP for its address with its own MAC address.

        Raises:
            HostFault: The network's DHCP namespace is not there.
        """
        return neighbours.answers(port, network, timeout_s)

    def parts_of_network(
        self, network: Network, subnets: Sequence[Subnet], dhcp_port: Port | None
    ) -> list[Found]:
        """What of a network is on this host, its anchor, when all of it is there."""
        return parts.of_network(self._site, network, subnets, dhcp_port)

    def parts_of_router(self, router: Router) -> list[Found]:
        """What of a router is on its host when all of it is there."""
        return parts.of_router(router)

    def parts_of_port(self, binding: PortBinding) -> list[Found]:
        """What of a guest's port is on its host when all of it is there."""
        return parts.of_port(self._site, binding)

    def inventory(self) -> list[Found]:
        """All that this site's fabric has on the host, in an order of removal."""
        return self._inventory.found()

    def remove(self, found: Found) -> None:
        """Remove one thing that `inventory` told of; already gone is fine.

        Raises:
            Conflict: By now its name belongs to something that is not ours.
        """
        self._inventory.remove(found)
