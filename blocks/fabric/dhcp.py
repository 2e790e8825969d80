"""DHCP and DNS of a network: a namespace with a leg in it, and dnsmasq there.

As Neutron's DHCP agent does it, with one reservation a port (`dnsmasq_config` tells what is
in them). dnsmasq watches a directory with one file a port, so that plugging a port restarts
nothing. It has no upstream server and knows the network's own names only.

The namespace is there for a network without DHCP too: it is the way from the host to the
guests (`vm ssh`, the readiness checks) and the place of the metadata server.

Every host of a network has it, with the same addresses, and answers its own guests only:
its leg hears nothing of what comes from other hosts, and none of them hears it (as OVN's
DHCP, which every chassis answers by itself; no host waits for another one to know a port).
"""

from __future__ import annotations

import signal
from ipaddress import IPv4Address
from pathlib import Path

from blocks import changes, commands, marks
from blocks.fabric import dhcp_release, files, namespaces
from blocks.fabric.dhcp_leases import DhcpLease, drop_lease, find_lease
from blocks.fabric.dnsmasq_config import METADATA_ADDRESS, configuration, reservation_of
from blocks.fabric.legs import Leg, differences, ensure_leg, plug_differences, remove_legs
from blocks.fabric.links import with_links
from blocks.fabric.processes import Server
from blocks.fabric.segments import SegmentDriver
from blocks.fabric.site import Site
from blocks.resources import Network, Port, PortBinding, Subnet


class Dhcp:
    """The DHCP namespaces of a site and the servers in them."""

    def __init__(self, site: Site, segments: SegmentDriver) -> None:
        self._site = site
        self._segments = segments

    def serve(self, network: Network, subnet: Subnet, port: Port) -> None:
        """Make the namespace with its leg, and have dnsmasq run in it as configured.

        Args:
            network: Whose segment is realized already.
            subnet: Its addresses and options; without `dhcp` no dnsmasq is run.
            port: The DHCP port: the leg's names, its MAC, its addresses.

        Raises:
            HostFault: dnsmasq does not start; the message is what it says.
        """
        with self._site.locked(network.id):
            self._directory(network.id)
            namespace = marks.dhcp_namespace(network.id)
            namespaces.ensure(namespace, self._site.alias("dhcp", network.id))
            ensure_leg(self._leg(network, subnet, port), self._segments.bridge(network))
            server = self.server(network.id)
            if not subnet.dhcp:
                self._stop(network.id)
                return
            wanted = self._config(network, subnet, port)
            if self._configured(network.id) != wanted:
                # Stopped first: whoever comes here after a kill in between starts it anew.
                server.stop()
                files.write(self._config_path(network.id), wanted.encode())
            words = ["dnsmasq", server.token]
            if server.ensure(lambda: namespaces.run_in(namespace, lambda: commands.run(*words))):
                changes.record(
                    f"Started dnsmasq in {namespace}", ["ip", "netns", "exec", namespace, *words]
                )

    def stop(self, network: Network) -> None:
        """Stop dnsmasq, and remove namespace, leg and files; already gone is fine."""
        with self._site.locked(network.id):
            self._stop(network.id)
            namespace = marks.dhcp_namespace(network.id)
            remove_legs(namespace)
            namespaces.remove(namespace)
            files.remove_tree(self._site.of_network(network.id) / "dhcp")
            files.remove_if_empty(self._site.of_network(network.id))

    def reserve(self, binding: PortBinding) -> None:
        """Reserve a port's address for its MAC address, and give it a name in DNS.

        Raises:
            InvalidRequest: The port has no MAC address yet, or its name is no host name.
        """
        port = binding.port
        served = {subnet.id for subnet in binding.subnets if subnet.dhcp}
        addresses = [fixed.address for fixed in port.addresses if fixed.subnet_id in served]
        if not addresses:
            return
        reservation, names = reservation_of(port, binding.host_name, addresses[0])
        directory = self._directory(port.network_id)
        changed = files.write(directory / "names" / port.id, names.encode())
        if files.write(directory / "hosts" / port.id, reservation.encode()) or changed:
            changes.record(
                f"Reserved {addresses[0]} for {port.mac}",
                f"echo {reservation.strip()} > {directory / 'hosts' / port.id}",
            )

    def release(self, port: Port) -> None:
        """Forget a port's reservation and end its lease; already gone is fine.

        dnsmasq would keep an address from its next owner for as long as the lease of the
        last one runs, so that the guest's own DHCPRELEASE is sent for it, as Neutron does.
        Where dnsmasq cannot be reached the lease is struck from its file.
        """
        self.forget(port.network_id, port.id)
        for fixed in port.addresses:
            self._end_lease(port.network_id, port.mac, fixed.address)

    def forget(self, network_id: str, port_id: str) -> None:
        """The same by the port's id alone, as far as its reservation tells."""
        directory = self._site.of_network(network_id) / "dhcp"
        reservation = directory / "hosts" / port_id
        there = reservation.read_text() if reservation.exists() else ""
        if there.count(",") == 2:
            mac, address, _name = there.split(",")
            self._end_lease(network_id, mac, IPv4Address(address))
        reservation.unlink(missing_ok=True)
        (directory / "names" / port_id).unlink(missing_ok=True)
        if there:
            # Files that appear are noticed by dnsmasq itself, files that vanish are not.
            self.server(network_id).signal(signal.SIGHUP)
            changes.record(f"Released the reservation of {port_id}", ["rm", str(reservation)])

    def _end_lease(self, network_id: str, mac: str | None, address: IPv4Address) -> None:
        lease = self._lease(network_id, mac, address)
        if lease is None or self._told_of_end(network_id, lease):
            return
        with self._site.locked(network_id):
            if not self._told_of_end(network_id, lease):
                # Whoever is left of it serves nobody; a new one reads the file when it starts.
                self._stop(network_id)
                drop_lease(self._leases(network_id), lease)
                changes.record(
                    f"Struck the lease of {address} from dnsmasq's file",
                    ["sed", "-i", f"/ {address} /d", str(self._leases(network_id))],
                )

    def _told_of_end(self, network_id: str, lease: DhcpLease) -> bool:
        """End a lease by a packet to dnsmasq, where it can be reached."""
        namespace = marks.dhcp_namespace(network_id)
        if self.server(network_id).pid() is None:
            return False
        leg = dhcp_release.release(namespace, lease.address, lease.mac)
        if leg is None:
            return False
        words = ["dhcp_release", leg, str(lease.address), lease.mac]
        changes.record(
            f"Ended the lease of {lease.address}", ["ip", "netns", "exec", namespace, *words]
        )
        return True

    def lease(self, port: Port) -> DhcpLease | None:
        """The lease that the guest on this port has taken, if it has."""
        for fixed in port.addresses:
            found = self.lease_of(port, fixed.address)
            if found is not None:
                return found
        return None

    def lease_of(self, port: Port, address: IPv4Address) -> DhcpLease | None:
        """The lease of one address, if it is this port's MAC address that has it."""
        return self._lease(port.network_id, port.mac, address)

    def _lease(self, network_id: str, mac: str | None, address: IPv4Address) -> DhcpLease | None:
        return find_lease(self._leases(network_id), mac, address)

    def _leases(self, network_id: str) -> Path:
        return self._site.of_network(network_id) / "dhcp" / "leases"

    def differences(self, binding: PortBinding) -> list[str]:
        """What of a port's reservation, and of the server, is not as it should be."""
        port = binding.port
        served = {subnet.id for subnet in binding.subnets if subnet.dhcp}
        addresses = [fixed.address for fixed in port.addresses if fixed.subnet_id in served]
        if not addresses:
            return []
        wrong = []
        path = self._site.of_network(port.network_id) / "dhcp" / "hosts" / port.id
        wanted, _ = reservation_of(port, binding.host_name, addresses[0])
        there = path.read_text() if path.exists() else None
        if there != wanted:
            wrong.append(f"the DHCP reservation is {there!r}, not {wanted!r}")
        if self.server(port.network_id).pid() is None:
            wrong.append(f"dnsmasq does not run in {marks.dhcp_namespace(port.network_id)}")
        return wrong

    def server_differences(self, network: Network, subnet: Subnet, port: Port) -> list[str]:
        """What of a network's namespace, its leg and its dnsmasq is not as it should be."""
        namespace = marks.dhcp_namespace(network.id)
        if not namespaces.exists(namespace):
            return [f"the namespace {namespace} is not there"]
        leg = self._leg(network, subnet, port)
        bridge = self._segments.bridge(network)
        wrong = with_links(namespace, lambda ipr: differences(ipr, leg))
        wrong += with_links(None, lambda ipr: plug_differences(ipr, leg, bridge))
        if not subnet.dhcp:
            return wrong
        if self.server(network.id).pid() is None:
            wrong.append(f"dnsmasq does not run in {namespace}")
        configured = self._configured(network.id)
        if configured is None or configured != self._config(network, subnet, port):
            wrong.append(f"dnsmasq in {namespace} is configured otherwise than recorded")
        return wrong

    def server(self, network_id: str) -> Server:
        """The network's dnsmasq."""
        directory = self._site.of_network(network_id) / "dhcp"
        config = f"--conf-file={directory / 'dnsmasq.conf'}"
        return Server(directory / "dnsmasq.pid", config, marks.dhcp_namespace(network_id))

    def _config_path(self, network_id: str) -> Path:
        return self._site.of_network(network_id) / "dhcp" / "dnsmasq.conf"

    def _config(self, network: Network, subnet: Subnet, port: Port) -> str:
        return configuration(self._config_path(network.id).parent, network, subnet, port)

    def _configured(self, network_id: str) -> str | None:
        path = self._config_path(network_id)
        return path.read_text() if path.exists() else None

    def _directory(self, network_id: str) -> Path:
        files.directory(self._site.directory, 0o711)
        files.directory(self._site.of_network(network_id), 0o711)
        directory = files.directory(self._site.of_network(network_id) / "dhcp", 0o711)
        files.directory(directory / "hosts", 0o755)
        files.directory(directory / "names", 0o755)
        return directory

    def _stop(self, network_id: str) -> None:
        if self.server(network_id).stop():
            namespace = marks.dhcp_namespace(network_id)
            pid_file = self.server(network_id).pid_file
            changes.record(f"Stopped dnsmasq in {namespace}", f"kill $(cat {pid_file})")

    def _leg(self, network: Network, subnet: Subnet, port: Port) -> Leg:
        own = [f"{fixed.address}/{subnet.cidr.prefixlen}" for fixed in port.addresses]
        return Leg(
            alias=self._site.alias("port", port.id),
            outer=marks.tap_name(port.id),
            inner=marks.dhcp_leg_name(port.id),
            namespace=marks.dhcp_namespace(network.id),
            mac=port.mac,
            mtu=network.mtu,
            addresses=(*own, f"{METADATA_ADDRESS}/32"),
            isolated=True,
        )
