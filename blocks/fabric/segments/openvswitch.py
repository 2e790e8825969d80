"""The driver `openvswitch`: GRE and VXLAN tunnels and VLANs by Open vSwitch.

A veth pair joins the network's bridge with Open vSwitch: with a bridge of the network's
own (`ovf...`) that holds its tunnel ports, or, for a VLAN, with the operator's bridge that
holds the interface, by an access port with the network's tag (Neutron's operators make
such a bridge too, and name it in `bridge_mappings`).

All of it is in Open vSwitch's database and nothing in flows: ovs-vswitchd's own switching
does, so that a restart of it loses nothing. Tunnel ports are *protected*, that is, none
hands on to another what it received, or frames would go round among three hosts.
"""

from __future__ import annotations

from pyroute2 import IPRoute

from blocks import changes, marks
from blocks.errors import Conflict, HostFault, NotFound
from blocks.fabric import kernel, links, namespaces
from blocks.fabric.links import Link
from blocks.fabric.segments import offloads
from blocks.fabric.segments.carrier import Ends, Lack, interface_of, local_end, segment_of
from blocks.fabric.segments.underlay import require_vswitch_underlay
from blocks.fabric.segments.vswitch import Query, Vswitch, kernel_has_datapath, quoted
from blocks.fabric.segments.vswitch_plan import Mark, Seen, Step, WantedPort, WantedSwitch, steps
from blocks.fabric.site import Site
from blocks.resources import Network, NetworkType

#: The link kind without which the kernel's datapath has no such tunnels.
_KERNEL_TUNNELS = {NetworkType.GRE: "gretap", NetworkType.VXLAN: "vxlan"}


class VswitchCarrier:
    """A veth pair into Open vSwitch, and the network's tunnel ports or VLAN there."""

    def __init__(self, site: Site, vswitch: Vswitch) -> None:
        self._site = site
        self._vswitch = vswitch

    def lacks(self, kind: NetworkType) -> list[Lack]:
        """Open vSwitch itself, or the kind of port."""
        if not self._vswitch.is_installed():
            return [Lack("Open vSwitch is not installed", "`apt install openvswitch-switch`")]
        if not self._vswitch.answers():
            remedy = "start it (`systemctl start openvswitch-switch`, or set FIFTY_OPENVSWITCH=own"
            remedy += " and run `python -m deployments.daemons start`)"
            return [Lack("Open vSwitch does not run", remedy)]
        tunnel = kind in _KERNEL_TUNNELS
        if tunnel and kind.value not in self._vswitch.about("iface_types"):
            return [Lack(f"this Open vSwitch has no {kind} ports", "a newer Open vSwitch")]
        return []

    def carries(self, link: Link, network: Network) -> bool:
        """The network's end of the veth pair."""
        return link.name == marks.vswitch_cable_names(network.id)[0]

    def realize(self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None) -> None:
        """Make the veth pair, and its port and the tunnels in Open vSwitch.

        Raises:
            NotFound: For a VLAN: its interface is in no bridge of Open vSwitch.
            Unsupported: The userspace datapath does not hold the underlay address.
            Conflict: The segment id is taken, or a name is, by something not ours.
            HostFault: Open vSwitch does not answer, or cannot do it.
        """
        switch = self._switch(network)
        by_userspace = network.type in _KERNEL_TUNNELS and switch.datapath == "netdev"
        if ends is not None and ends.peers and by_userspace:
            require_vswitch_underlay(ipr, self._vswitch, local_end(network, ends))
        self._cable(ipr, network, bridge, finished=switch.datapath == "netdev")
        mark, wanted = self._mark(network), self._wanted(network, ends or Ends())
        seen = Seen.of(self._vswitch, switch.name, mark)
        todo = steps(switch, wanted, mark, seen, tunnels=ends is not None)
        if not todo:
            return
        self._vswitch.change([(step.what, step.commands) for step in todo])
        for port, fault in Seen.of(self._vswitch, switch.name, mark).faults.items():
            if "exists" in fault:
                raise Conflict(
                    f"segment {network.segment_id} is taken by another port of Open vSwitch",
                    hint="`ovs-vsctl show` lists them; choose another segment id",
                )
            raise HostFault(f"Open vSwitch cannot do the port {port}: {fault}")

    def remove(self, ipr: IPRoute, network: Network) -> None:
        """Remove the network's ports, its bridge in Open vSwitch, and the veth pair."""
        mark, name = self._mark(network), marks.vswitch_name(network.id)
        seen = Seen.of(self._vswitch, name, mark)
        todo = [
            (f"Removed the port {port} from Open vSwitch", [["--if-exists", "del-port", port]])
            for port in seen.ports
        ]
        if seen.bridge is not None:
            mark.require_on(seen.bridge)
            what = f"Removed the Open vSwitch bridge {name}"
            todo.append((what, [["--if-exists", "del-br", name]]))
        if todo:
            self._vswitch.change(todo)
        links.delete(ipr, marks.vswitch_cable_names(network.id)[0], self._alias(network))

    def differences(
        self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None
    ) -> list[str]:
        """What of the veth pair, the bridge in Open vSwitch and its ports is not as made."""
        wrong = self._cable_differences(ipr, network, bridge)
        if not self._vswitch.answers():
            return [*wrong, f"Open vSwitch does not answer in {self._vswitch.directory}"]
        try:
            switch = self._switch(network)
        except NotFound as error:
            return [*wrong, error.message]
        mark, wanted = self._mark(network), self._wanted(network, ends or Ends())
        seen = Seen.of(self._vswitch, switch.name, mark)
        todo: list[Step] = steps(switch, wanted, mark, seen, tunnels=ends is not None)
        compared = {port.name for port in wanted}
        faults = {name: why for name, why in seen.faults.items() if name not in compared}
        wrong += [f"the port {port} of Open vSwitch is at fault: {faults[port]}" for port in faults]
        return wrong + [step.wrong for step in todo]

    def _mark(self, network: Network) -> Mark:
        return Mark(self._site.name, network.id)

    def _alias(self, network: Network) -> str:
        return self._site.alias("network", network.id)

    def _switch(self, network: Network) -> WantedSwitch:
        """The bridge in Open vSwitch: the one that holds the VLANs' interface, or our own."""
        name, ours = marks.vswitch_name(network.id), network.type is not NetworkType.VLAN
        if not ours:
            interface = interface_of(network)
            operators = self._vswitch.bridge_of(interface)
            if operators is None:
                raise NotFound(
                    f"the interface {interface} is in no bridge of Open vSwitch",
                    hint=f"`ovs-vsctl add-br br-{interface} -- add-port br-{interface} "
                    f"{interface}` makes one; addresses of {interface} move to br-{interface}",
                )
            name = operators
        [rows] = self._vswitch.ask(Query("Bridge", ("datapath_type",), (f"name={quoted(name)}",)))
        if rows:
            return WantedSwitch(name, rows[0]["datapath_type"] or "system", ours)
        return WantedSwitch(name, _datapath(network.type), ours)

    def _wanted(self, network: Network, ends: Ends) -> list[WantedPort]:
        _, cable = marks.vswitch_cable_names(network.id)
        if network.type is NetworkType.VLAN:
            return [WantedPort(cable, tag=segment_of(network))]
        tunnels = [
            WantedPort(
                marks.vswitch_tunnel_name(network.id, peer),
                network.type.value,
                {
                    "key": str(segment_of(network)),
                    "local_ip": str(local_end(network, ends)),
                    "remote_ip": str(peer),
                },
            )
            for peer in sorted(ends.peers)
        ]
        return [WantedPort(cable), *tunnels]

    def _cable(self, ipr: IPRoute, network: Network, bridge: Link, *, finished: bool) -> None:
        """The veth pair; for the userspace datapath, with finished packets on it."""
        outer, inner = marks.vswitch_cable_names(network.id)
        alias = self._alias(network)
        words = ["ip", "link", "add", outer, "type", "veth", "peer", "name", inner]
        link = links.create(ipr, outer, alias, words, kind="veth", peer={"ifname": inner})
        other = links.ours(links.need(ipr, inner), alias)
        if other.alias != alias:
            ipr.link("set", index=other.index, ifalias=alias)
            changes.record(f"Marked {inner} as ours", ["ip", "link", "set", inner, "alias", alias])
        namespaces.without_ipv6(outer)
        namespaces.without_ipv6(inner)
        if finished:
            offloads.finish_packets(outer)
        links.settle(ipr, link, mtu=network.mtu, bridge=bridge, isolated=True)
        links.settle(ipr, other, mtu=network.mtu)

    def _cable_differences(self, ipr: IPRoute, network: Network, bridge: Link) -> list[str]:
        outer, inner = (links.find(ipr, name) for name in marks.vswitch_cable_names(network.id))
        if outer is None or inner is None:
            return [f"there is no veth pair from {bridge.name} to Open vSwitch"]
        alias, mtu = self._alias(network), network.mtu
        return [
            *links.differences(outer, alias=alias, mtu=mtu, master=bridge, isolated=True),
            *links.differences(inner, alias=alias, mtu=mtu),
        ]


def _datapath(kind: NetworkType) -> str:
    """The kernel's datapath, where that has such tunnels; else the one in userspace."""
    can = kernel_has_datapath() and kernel.knows_link_kind(_KERNEL_TUNNELS[kind])
    return "system" if can else "netdev"
