"""A host of the test's own (a network namespace), with guests that are namespaces too.

The fabric's idea of "the host" is the namespace that its caller is in. Each test gets a
fresh one, so that what it sees of links and rules is its own, whatever else runs here.
A guest is a namespace whose cable's other end has the tap's name: to the bridge and the
firewall that is a guest, and a real TCP/IP stack speaks at its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from blocks import marks
from blocks.fabric import NetworkFabric, namespaces, run_in
from blocks.resources import (
    FirewallRule,
    FixedIp,
    Network,
    NetworkType,
    Port,
    PortBinding,
    PortKind,
    Router,
    RouterLeg,
    Subnet,
)

PATIENCE_S = 20.0
ANY_EGRESS = FirewallRule(direction="egress")
ETH_P_ALL, ETH_P_IP, ETH_P_ARP = 3, 0x0800, 0x0806
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_marks = iter(range(1, 1 << 20))
_zones = iter(range(1, 1 << 16))


@contextlib.contextmanager
def own_host() -> Iterator[None]:
    """Put the calling thread into a new network namespace, and back at the end."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert _libc.unshare(_CLONE_NEWNET) == 0
    try:
        ip("link", "set", "lo", "up")
        yield
    finally:
        assert _libc.setns(before, _CLONE_NEWNET) == 0
        os.close(before)


def ip(*words: str) -> str:
    """Run ip(8) and give back what it prints."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout


def wait_for(what: str, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait until a condition gives something that is true."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for: {what}")


@dataclass
class Net:
    """A network with its subnet and its DHCP port."""

    network: Network
    subnet: Subnet
    dhcp_port: Port


@dataclass
class Guest:
    """A guest: a namespace with an `eth0`."""

    binding: PortBinding
    namespace: str

    @property
    def address(self) -> IPv4Address:
        """Its first address."""
        return self.binding.port.addresses[0].address

    @property
    def mac(self) -> str:
        """Its MAC address."""
        assert self.binding.port.mac
        return self.binding.port.mac

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest."""
        return run_in(
            self.namespace,
            lambda: subprocess.run(words, capture_output=True, text=True, check=False, timeout=60),
        )

    def pings(self, address: object, tries: int = 1) -> bool:
        """Whether an address answers one of some pings, a second each; the first is enough."""
        ping = ("ping", "-n", "-c", "1", "-W", "1", str(address))
        return any(self.run(*ping).returncode == 0 for _ in range(tries))

    def configure(self, gateway: object | None = None) -> None:
        """Give it its address without DHCP."""
        length = self.binding.subnets[0].cidr.prefixlen
        ip("-n", self.namespace, "address", "replace", f"{self.address}/{length}", "dev", "eth0")
        if gateway:
            ip("-n", self.namespace, "route", "replace", "default", "via", str(gateway))

    def send(self, *frames: bytes) -> None:
        """Send frames as they are."""

        def inside() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                for frame in frames:
                    raw.send(frame)

        run_in(self.namespace, inside)


class Wire:
    """Everything that arrives at a link, from now on."""

    def __init__(self, namespace: str | None, link: str) -> None:
        def inside() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            raw.bind((link, ETH_P_ALL))
            return raw

        self.raw = run_in(namespace, inside)

    def until(self, wanted: bytes, patience_s: float = PATIENCE_S) -> list[bytes]:
        """All frames up to, and with, the first that contains these bytes."""
        frames: list[bytes] = []
        end = time.monotonic() + patience_s
        while (left := end - time.monotonic()) > 0:
            if select.select([self.raw], [], [], left)[0]:
                data, about = self.raw.recvfrom(65536)
                if about[2] == socket.PACKET_OUTGOING:
                    continue
                frames.append(data)
                if wanted in data:
                    return frames
        raise AssertionError(f"{wanted!r} did not arrive among {len(frames)} frames")

    def close(self) -> None:
        """Stop listening."""
        self.raw.close()


@dataclass
class Lab:
    """A site on the test's own host."""

    directory: Path
    site: str = field(default_factory=lambda: secrets.token_hex(2))
    guests: list[Guest] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fabric = NetworkFabric(self.directory / "networks", self.site, "lab")

    def net(
        self,
        cidr: str = "10.5.0.0/24",
        *,
        realize: bool = True,
        kind: NetworkType = NetworkType.LOCAL,
        dhcp: bool = True,
        segment_id: int | None = None,
        mtu: int = 1500,
        external: bool = False,
        outside: Literal["closed", "uplink", "bridge"] = "closed",
        physical_bridge: str | None = None,
    ) -> Net:
        """A network; `.1` is its gateway and `.2` its DHCP server."""
        hosts = IPv4Network(cidr)
        network = Network(
            id=str(uuid.uuid4()),
            tenant_id="t",
            name="net",
            type=kind,
            segment_id=segment_id,
            mtu=mtu,
            external=external,
            outside=outside,
            physical_bridge=physical_bridge,
            zone=next(_zones),
            anchor_host="lab",
        )
        subnet = Subnet(
            id=str(uuid.uuid4()),
            network_id=network.id,
            cidr=hosts,
            gateway=hosts[1],
            dhcp=dhcp,
            dhcp_address=hosts[2] if dhcp else None,
        )
        net = Net(network, subnet, self.port(network, subnet, hosts[2], PortKind.DHCP))
        if realize:
            self.fabric.realize_segment(network)
        return net

    def served(
        self,
        cidr: str = "10.5.0.0/24",
        *,
        kind: NetworkType = NetworkType.LOCAL,
        dhcp: bool = True,
        segment_id: int | None = None,
        mtu: int = 1500,
    ) -> Net:
        """A network with its DHCP namespace."""
        net = self.net(cidr, kind=kind, dhcp=dhcp, segment_id=segment_id, mtu=mtu)
        self.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
        return net

    def port(self, network: Network, subnet: Subnet, address: IPv4Address, kind: PortKind) -> Port:
        """A port's record."""
        identifier = str(uuid.uuid4())
        return Port(
            id=identifier,
            tenant_id="t",
            network_id=network.id,
            kind=kind,
            mac="fa:16:3e:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
            addresses=(FixedIp(subnet_id=subnet.id, address=address),),
            tap=marks.tap_name(identifier),
            mark=next(_marks),
        )

    def binding(
        self,
        net: Net,
        last: int,
        rules: tuple[FirewallRule, ...] = (ANY_EGRESS,),
        name: str | None = None,
    ) -> PortBinding:
        """What a host knows about a guest's port."""
        port = self.port(net.network, net.subnet, net.subnet.cidr[last], PortKind.COMPUTE)
        return PortBinding(
            port=port,
            network=net.network,
            subnets=(net.subnet,),
            rules=rules,
            host_name=f"vm{last}" if name is None else name,
        )

    def guest(self, net: Net, last: int, rules: tuple[FirewallRule, ...] = (ANY_EGRESS,)) -> Guest:
        """A guest that is plugged in and protected; it has no address yet."""
        guest = self.cable(self.binding(net, last, rules))
        self.fabric.plug(guest.binding, None)
        self.fabric.protect(guest.binding)
        return guest

    def cable(self, binding: PortBinding) -> Guest:
        """A guest whose cable has the tap's name; nothing is done with the tap."""
        guest = Guest(binding, f"lab-{self.site}-{secrets.token_hex(3)}")
        assert binding.port.tap and binding.port.mac
        ip("netns", "add", guest.namespace)
        self.guests.append(guest)
        pair = ["type", "veth", "peer", "name", "eth0", "address", binding.port.mac]
        ip("link", "add", binding.port.tap, *pair, "netns", guest.namespace)
        ip("-n", guest.namespace, "link", "set", "eth0", "up")
        ip("-n", guest.namespace, "link", "set", "lo", "up")
        return guest

    def router(self, *nets: Net, outside: Net | None = None, snat: bool = True) -> Router:
        """A router's record: a leg at each network's gateway; `.10` in the outside."""
        legs = [
            RouterLeg(
                port=self.port(
                    net.network, net.subnet, net.subnet.cidr[1], PortKind.ROUTER_INTERFACE
                ),
                network=net.network,
                subnet=net.subnet,
            )
            for net in nets
        ]
        gateway = None
        if outside:
            address = outside.subnet.cidr[10]
            port = self.port(outside.network, outside.subnet, address, PortKind.ROUTER_GATEWAY)
            gateway = RouterLeg(port=port, network=outside.network, subnet=outside.subnet)
        return Router(
            id=str(uuid.uuid4()),
            tenant_id="t",
            name="router",
            host="lab",
            snat=snat,
            legs=tuple(legs),
            gateway=gateway,
        )

    def close(self) -> None:
        """Remove everything that was made, by inventory."""
        for guest in self.guests:
            namespaces.remove(guest.namespace)
        for found in self.fabric.inventory():
            self.fabric.remove(found)


@contextlib.contextmanager
def lab_at(directory: Path) -> Iterator[Lab]:
    """A lab on a host of its own, with nothing left of it afterwards."""
    with own_host():
        lab = Lab(directory)
        try:
            yield lab
        finally:
            lab.close()


def tcp_connects(guest: Guest, server: Guest, port: int, patience_s: float = 1.5) -> bool:
    """Whether a TCP connection comes about and carries bytes in both directions."""

    def listen() -> socket.socket:
        listener = socket.create_server((str(server.address), port), backlog=8)
        listener.settimeout(patience_s)
        return listener

    with run_in(server.namespace, listen) as listener:

        def connect() -> bool:
            try:
                with socket.create_connection((str(server.address), port), patience_s) as client:
                    client.sendall(b"ping")
                    peer, _ = listener.accept()
                    with peer:
                        peer.settimeout(patience_s)
                        assert peer.recv(4) == b"ping"
                        peer.sendall(b"pong")
                        return client.recv(4) == b"pong"
            except OSError:
                return False

        return run_in(guest.namespace, connect)


def ethernet(to: str, source: str, kind: int, payload: bytes) -> bytes:
    """An Ethernet frame."""
    return _mac(to) + _mac(source) + struct.pack("!H", kind) + payload


def arp(kind: int, mac: str, own: object, target: str, asked: object) -> bytes:
    """An ARP packet."""
    addresses = (_mac(mac), IPv4Address(str(own)).packed, _mac(target))
    body = (1, ETH_P_IP, 6, 4, kind, *addresses, IPv4Address(str(asked)).packed)
    return struct.pack("!HHBBH6s4s6s4s", *body)


def udp(source: object, to: object, sport: int, dport: int, payload: bytes) -> bytes:
    """An IPv4 packet with UDP in it (without a UDP checksum, as RFC 768 allows)."""
    length = 8 + len(payload)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + length, secrets.randbits(16), 0, 64, socket.IPPROTO_UDP, 0),
        *(IPv4Address(str(source)).packed, IPv4Address(str(to)).packed),
    )
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return head + struct.pack("!HHHH", sport, dport, length, 0) + payload


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
