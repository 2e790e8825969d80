"""DHCP and DNS of a network: a namespace with a leg in it, and dnsmasq there.

As Neutron's DHCP agent does it: `static` ranges, so that only ports of ours get an
address; one reservation a port; the classless routes of RFC 3442 (option 121), which
must repeat the default route; the MTU (option 26), for a guest left at 1500 on a tunnel
loses large packets silently. dnsmasq watches a directory with one file a port, so that
plugging a port restarts nothing. It has no upstream server and knows the network's own
names only.

The namespace is there for a network without DHCP too: it is the way from the host to the
guests (`vm ssh`, the readiness checks) and the place of the metadata server.
"""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blocks import changes, commands, marks
from blocks.errors import InvalidRequest
from blocks.fabric import dhcp_release, files, namespaces
from blocks.fabric.legs import Leg, differences, ensure_leg, remove_legs
from blocks.fabric.links import with_links
from blocks.fabric.processes import Server
from blocks.fabric.segments import SegmentDriver
from blocks.fabric.site import Site
from blocks.resources import Network, Port, PortBinding, Subnet

#: Where guests ask for metadata (and what the DHCP namespace answers to).
METADATA_ADDRESS = "169.254.169.254"
#: The domain of the network's own names (RFC 9476 and ICANN keep `internal` for this).
DOMAIN = "fifty.internal"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class DhcpLease(BaseModel):
    """A lease that a guest has taken.

    Attributes:
        expires_at: None for one without an end.
        host_name: What the guest is called in DNS, where it has a name.
    """

    model_config = ConfigDict(frozen=True)

    address: IPv4Address
    mac: str
    expires_at: datetime | None
    host_name: str | None


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
            config = self._config(network, subnet, port)
            if files.write(self._config_path(network.id), config.encode()):
                server.stop()
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
        if lease is not None and self.server(network_id).pid() is not None:
            namespace = marks.dhcp_namespace(network_id)
            leg = dhcp_release.release(namespace, address, lease.mac)
            words = ["dhcp_release", leg, str(address), lease.mac]
            changes.record(
                f"Ended the lease of {address}", ["ip", "netns", "exec", namespace, *words]
            )

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
        path = self._site.of_network(network_id) / "dhcp" / "leases"
        if not path.exists():
            return None
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) >= 4 and words[1] == mac and words[2] == str(address):
                expires = int(words[0])
                return DhcpLease(
                    address=address,
                    mac=words[1],
                    expires_at=datetime.fromtimestamp(expires, UTC) if expires else None,
                    host_name=None if words[3] == "*" else words[3],
                )
        return None

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
        wrong = with_links(namespace, lambda ipr: differences(ipr, leg))
        if subnet.dhcp and self.server(network.id).pid() is None:
            wrong.append(f"dnsmasq does not run in {namespace}")
        return wrong

    def server(self, network_id: str) -> Server:
        """The network's dnsmasq."""
        directory = self._site.of_network(network_id) / "dhcp"
        config = f"--conf-file={directory / 'dnsmasq.conf'}"
        return Server(directory / "dnsmasq.pid", config)

    def _config_path(self, network_id: str) -> Path:
        return self._site.of_network(network_id) / "dhcp" / "dnsmasq.conf"

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
        )

    def _config(self, network: Network, subnet: Subnet, port: Port) -> str:
        """The configuration for dnsmasq(8): addresses and paths of ours, nothing else."""
        directory = self._site.of_network(network.id) / "dhcp"
        server = subnet.dhcp_address or port.addresses[0].address
        routes = f"{METADATA_ADDRESS}/32,{server}"
        if subnet.gateway:
            routes += f",0.0.0.0/0,{subnet.gateway}"
        names = ",".join(str(address) for address in subnet.dns or (server,))
        cidr = subnet.cidr
        lines = [
            f"interface={marks.dhcp_leg_name(port.id)}",
            "except-interface=lo",
            "bind-dynamic",
            "no-resolv",
            "no-hosts",
            "bogus-priv",
            f"domain={DOMAIN}",
            f"local=/{DOMAIN}/",
            f"pid-file={directory / 'dnsmasq.pid'}",
            f"log-facility={directory / 'dnsmasq.log'}",
            "quiet-dhcp",
            f"user={_user_for(directory)}",
            f"hostsdir={directory / 'names'}",
            f"dhcp-hostsdir={directory / 'hosts'}",
            f"dhcp-leasefile={directory / 'leases'}",
            f"dhcp-lease-max={min(cidr.num_addresses, 1 << 16)}",
            "dhcp-authoritative",
            f"dhcp-range={cidr.network_address},static,{cidr.netmask},{subnet.lease_s}",
            # Without a value: dnsmasq would name itself as the router.
            f"dhcp-option=option:router{f',{subnet.gateway}' if subnet.gateway else ''}",
            f"dhcp-option=option:dns-server,{names}",
            f"dhcp-option=option:classless-static-route,{routes}",
            # Also to those who do not ask for it: it is no less true for them.
            f"dhcp-option-force=option:mtu,{network.mtu}",
        ]
        return "\n".join(lines) + "\n"


def reservation_of(port: Port, host_name: str, address: IPv4Address) -> tuple[str, str]:
    """A port's lines for dnsmasq: its reservation, and its names in DNS.

    Raises:
        InvalidRequest: The port has no MAC address yet, or its name is no host name.
    """
    if port.mac is None:
        raise InvalidRequest(f"the port {port.id} has no MAC address yet")
    if host_name and not _LABEL.fullmatch(host_name):
        raise InvalidRequest(f"{host_name!r} is no host name (RFC 1123)")
    name = host_name or "host-" + str(address).replace(".", "-")
    return f"{port.mac},{address},{name}\n", f"{address} {name}.{DOMAIN} {name}\n"


def _user_for(directory: Path) -> str:
    """Whom dnsmasq runs as: `nobody` where that user can reach its files, else root.

    FIFTY_HOME and what is above it decide: mode 0711 is enough.
    """
    searchable = all(parent.stat().st_mode & 0o001 for parent in directory.parents)
    return "nobody" if searchable else "root"
