"""Several hosts on one kernel: each a namespace with its own fabric and, if asked, its own OVS.

They are joined by a switch (a bridge in a namespace of its own) in which every frame between
two hosts can be looked at. What a host's fabric does is done inside the host's namespace.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from blocks.fabric import NetworkFabric, run_in
from blocks.resources import FirewallRule, NetworkDriver, NetworkType, PortBinding
from deployments import ovs_daemons
from tests.host.fabric_lab import (
    ANY_EGRESS,
    ETH_P_IP,
    PATIENCE_S,
    Guest,
    Lab,
    Net,
    ethernet,
    ip,
    udp,
)
from tests.host.own_mounts import OwnMounts

ANYONE = (ANY_EGRESS, FirewallRule(direction="ingress"))
#: The bridge of Open vSwitch that an operator makes: it holds the interface to the switch.
OPERATORS = "br-under"
#: The host's interface to the switch.
UPLINK = "under0"
BROADCAST = "ff:ff:ff:ff:ff:ff"

T = TypeVar("T")


@dataclass(frozen=True)
class Transport:
    """How a network's frames get from host to host.

    Attributes:
        shows: What tcpdump says of a frame of a segment on the underlay; `{}` is its id.
        mtu: What is left for guests of an underlay with 1500 bytes.
    """

    kind: NetworkType
    driver: NetworkDriver
    shows: str
    mtu: int

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.kind}-{self.driver}"

    @property
    def by_vswitch(self) -> bool:
        """Whether hosts need an Open vSwitch for it."""
        return self.driver is NetworkDriver.OPENVSWITCH


@dataclass
class Host:
    """A host: 192.0.2.NUMBER on the underlay."""

    number: int
    namespace: str
    directory: Path
    lab: Lab
    ovs: Path
    mounts: OwnMounts = field(default_factory=OwnMounts)

    @property
    def address(self) -> IPv4Address:
        """Its underlay address."""
        return IPv4Address(f"192.0.2.{self.number}")

    def run(self, function: Callable[[], T]) -> T:
        """Do something on this host."""

        def inside() -> T:
            self.mounts.enter()
            return function()

        return run_in(self.namespace, inside)

    def says(self, *words: str) -> str:
        """What a program says on this host."""
        done = self.run(
            lambda: subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        )
        return done.stdout

    def vsctl(self, *words: str) -> str:
        """What ovs-vsctl says of this host's Open vSwitch."""
        return self.says("ovs-vsctl", f"--db=unix:{self.ovs}/db.sock", "--timeout=20", *words)

    def realize(self, net: Net, hosts: Sequence[Host]) -> None:
        """Realize a network that is on these hosts, perhaps this one among them."""
        peers = [host.address for host in hosts if host is not self]
        self.run(lambda: self.lab.fabric.realize_segment(net.network, peers, self.address))

    def differences(self, net: Net, hosts: Sequence[Host]) -> list[str]:
        """What of a network that is on these hosts is not as it should be here."""
        peers = [host.address for host in hosts if host is not self]
        return self.run(
            lambda: self.lab.fabric.segment_differences(net.network, peers, self.address)
        )

    def guest(self, net: Net, last: int) -> Guest:
        """A guest that everybody may speak to, with its address and the network's MTU."""
        guest = self.cable(self.lab.binding(net, last, ANYONE))
        self.run(lambda: self.lab.fabric.plug(guest.binding, None))
        self.run(lambda: self.lab.fabric.protect(guest.binding))
        guest.configure()
        return guest

    def cable(self, binding: PortBinding) -> Guest:
        """A guest whose cable has the tap's name, with its network's MTU; it is not plugged in.

        Its namespace is not this host's: everybody finds it by its name.
        """
        guest = Guest(binding, f"{self.namespace}g{len(self.lab.guests)}")
        ip("netns", "add", guest.namespace)
        self.lab.guests.append(guest)
        near = [str(binding.port.tap), "type", "veth"]
        far = ["eth0", "address", guest.mac, "netns", guest.namespace]
        ip("-n", self.namespace, "link", "add", *near, "peer", "name", *far)
        ip("-n", guest.namespace, "link", "set", "lo", "up")
        mtu = str(binding.network.mtu)
        ip("-n", guest.namespace, "link", "set", "eth0", "up", "mtu", mtu)
        return guest


@dataclass
class Underlay:
    """Hosts and the switch between them."""

    site: str
    directory: Path
    switch: str
    hosts: list[Host] = field(default_factory=list)

    def join(self, *, vswitch: bool, address: bool = True) -> Host:
        """One more host.

        Args:
            vswitch: Whether it has an Open vSwitch, whose bridge holds its interface.
            address: Whether that bridge, or the interface, has the underlay address.
        """
        number = len(self.hosts) + 1
        namespace = f"ft{self.site}h{number}"
        directory = self.directory / f"h{number}"
        ovs = directory / "ovs"
        lab = Lab(directory, self.site)
        lab.fabric = NetworkFabric(directory / "networks", self.site, f"host{number}", ovs)
        host = Host(number, namespace, directory, lab, ovs)
        ip("netns", "add", namespace)
        self.hosts.append(host)
        ip("-n", namespace, "link", "set", "lo", "up")
        cable = ["type", "veth", "peer", "name", UPLINK, "netns", namespace]
        ip("-n", self.switch, "link", "add", f"port{number}", "master", "switch", "up", *cable)
        ip("-n", namespace, "link", "set", UPLINK, "up")
        if vswitch:
            host.run(lambda: ovs_daemons.start(ovs))
            host.vsctl(
                *("add-br", OPERATORS, "--", "set", "Bridge", OPERATORS, "datapath_type=netdev"),
                *("--", "add-port", OPERATORS, UPLINK),
            )
            ip("-n", namespace, "link", "set", OPERATORS, "up")
        if address:
            holder = OPERATORS if vswitch else UPLINK
            ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", holder)
        return host

    def net(self, transport: Transport, segment: int, cidr: str = "10.5.0.0/24") -> Net:
        """A network's record."""
        net = self.hosts[0].lab.net(
            cidr, realize=False, kind=transport.kind, segment_id=segment, mtu=transport.mtu
        )
        more: dict[str, object] = {"driver": transport.driver}
        if transport.kind is NetworkType.VLAN:
            more["physical_interface"] = UPLINK
        return Net(net.network.model_copy(update=more), net.subnet, net.dhcp_port)

    def close(self) -> None:
        """Remove all of it."""
        for host in self.hosts:
            for guest in host.lab.guests:
                ip("netns", "delete", guest.namespace)
            host.run(host.lab.close)
            if host.ovs.is_dir():
                host.run(partial(ovs_daemons.stop, host.ovs))
            host.mounts.close()
            ip("netns", "delete", host.namespace)
        ip("netns", "delete", self.switch)


@contextlib.contextmanager
def underlay_at(directory: Path, site: str) -> Iterator[Underlay]:
    """A switch without hosts yet, with nothing left of all of it afterwards."""
    switch = f"ft{site}sw"
    ip("netns", "add", switch)
    underlay = Underlay(site, directory, switch)
    try:
        bridge = ["type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]
        ip("-n", switch, "link", "add", "switch", "up", *bridge)
        yield underlay
    finally:
        underlay.close()


class Tcpdump:
    """What tcpdump says about what crosses a link, from when this is made."""

    def __init__(self, namespace: str, link: str, *expression: str) -> None:
        words = ["tcpdump", "-n", "-e", "-v", "-l", "-i", link, *expression]
        self._process = run_in(
            namespace,
            lambda: subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        while b"listening on" not in line:
            assert line, "tcpdump ended"
            line = self._process.stderr.readline()

    def until(self, wanted: str, patience_s: float = PATIENCE_S) -> str:
        """All that it says up to a text."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        said = b""
        end = time.monotonic() + patience_s
        while (left := end - time.monotonic()) > 0:
            if select.select([handle], [], [], left)[0]:
                said += os.read(handle, 1 << 16)
                if wanted.encode() in said:
                    return said.decode(errors="replace")
        raise AssertionError(f"tcpdump did not say {wanted!r}, but: {said.decode()}")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()


def shout(guest: Guest, text: bytes) -> None:
    """Send a broadcast that only this text tells from others."""
    payload = udp(guest.address, "255.255.255.255", 9, 9, text)
    guest.send(ethernet(BROADCAST, guest.mac, ETH_P_IP, payload))
