"""What guests try against each other, the network and the host, each tried for real.

Each attack is frames sent from a guest's port. After each, a control packet that may pass
takes the same way: when it is there, the attack would have been, too. And each attack is
shown to work where nothing guards, so that none is blocked because it was sent wrongly.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import marks
from blocks.fabric import run_in
from blocks.resources import FirewallRule
from tests.host.fabric_lab import (
    ANY_EGRESS,
    ETH_P_ARP,
    ETH_P_IP,
    Guest,
    Lab,
    Net,
    Wire,
    arp,
    ethernet,
    ip,
    lab_at,
    udp,
    wait_for,
)

pytestmark = pytest.mark.host

EVERYONE, ALL_NODES = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
ETH_P_VLAN, ETH_P_QINQ, ETH_P_IPV6 = 0x8100, 0x88A8, 0x86DD
OPEN = (ANY_EGRESS, FirewallRule(direction="ingress"))
METADATA = "169.254.169.254"
MARK = b"attack"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


@pytest.fixture
def net(lab: Lab) -> Net:
    return lab.served()


def guest(lab: Lab, net: Net, last: int) -> Guest:
    made = lab.guest(net, last, OPEN)
    made.configure(net.subnet.cidr[1])
    return made


def router_advertisement(mac: str) -> bytes:
    """An advertisement that makes its sender everybody's default router (RFC 4861)."""
    source, everybody = "fe80::bad", "ff02::1"
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    # With a link-layer address, in which the mark fits.
    message += b"\x01\x01" + MARK
    pseudo = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(
        socket.AF_INET6, everybody
    )
    total = sum(
        struct.unpack(
            f"!{(len(pseudo) + 8 + len(message)) // 2}H",
            pseudo + struct.pack("!II", len(message), 58) + message,
        )
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
    head = struct.pack("!IHBB", 0x60000000, len(message), 58, 255)
    return ethernet(ALL_NODES, mac, ETH_P_IPV6, head + pseudo + message)


def tagged(frame: bytes, *tags: tuple[int, int]) -> bytes:
    """A frame with VLAN tags: EtherType and VLAN id of each, the outermost first."""
    words = b"".join(struct.pack("!HH", kind, vlan) for kind, vlan in tags)
    return frame[:12] + words + frame[12:]


def offer(server: object, mac: str) -> bytes:
    """A DHCP offer (RFC 2131) that names its sender as the router."""
    fixed = struct.pack("!BBBBIHH", 2, 1, 6, 0, 1, 0, 0x8000) + bytes(16)
    fixed += bytes.fromhex(mac.replace(":", "")) + bytes(10 + 64 + 128)
    options = bytes((53, 1, 2, 3, 4)) + socket.inet_aton(str(server))
    return fixed + bytes((99, 130, 83, 99)) + options + bytes((255,)) + MARK


def attacks(liar: Guest, victim: Guest, gateway: object) -> dict[str, list[bytes]]:
    """The frames of each attack of a guest on its neighbours; each frame has the mark."""
    stranger, other_mac = "10.5.0.99", "fa:16:3e:99:99:99"
    data = udp(liar.address, victim.address, 4000, 5000, MARK)
    own = ethernet(victim.mac, liar.mac, ETH_P_IP, data)
    foreign = udp(stranger, victim.address, 4000, 5000, MARK)
    dhcp = offer(liar.address, victim.mac)

    def arps(kind: int, mac: str, claimed: object, to: str) -> bytes:
        packet = arp(kind, mac, claimed, victim.mac, victim.address)
        return ethernet(to, liar.mac, ETH_P_ARP, packet + MARK)

    return {
        "spoofed MAC": [
            ethernet(victim.mac, other_mac, ETH_P_IP, data),
            ethernet(
                victim.mac,
                other_mac,
                ETH_P_ARP,
                arp(1, other_mac, liar.address, EVERYONE, victim.address) + MARK,
            ),
        ],
        "spoofed address": [
            ethernet(victim.mac, liar.mac, ETH_P_IP, foreign),
            ethernet(victim.mac, liar.mac, ETH_P_IP, udp(gateway, victim.address, 53, 5000, MARK)),
            ethernet(victim.mac, liar.mac, ETH_P_IP, udp("0.0.0.0", victim.address, 1, 5000, MARK)),
            ethernet(victim.mac, liar.mac, ETH_P_IP, udp(METADATA, victim.address, 80, 5000, MARK)),
        ],
        "ARP poisoning": [
            arps(2, liar.mac, gateway, victim.mac),
            arps(2, liar.mac, gateway, EVERYONE),
            arps(1, liar.mac, stranger, EVERYONE),
            arps(2, other_mac, liar.address, victim.mac),
        ],
        "rogue DHCP": [
            ethernet(
                EVERYONE, liar.mac, ETH_P_IP, udp(liar.address, "255.255.255.255", 67, 68, dhcp)
            ),
            ethernet(
                victim.mac, liar.mac, ETH_P_IP, udp(liar.address, victim.address, 67, 68, dhcp)
            ),
        ],
        "rogue RA": [
            router_advertisement(liar.mac),
            tagged(router_advertisement(liar.mac), (ETH_P_VLAN, 0)),
        ],
        "VLAN hopping": [
            tagged(own, (ETH_P_VLAN, 5)),
            tagged(own, (ETH_P_VLAN, 0)),
            tagged(own, (ETH_P_QINQ, 5)),
            tagged(own, (ETH_P_VLAN, 1), (ETH_P_VLAN, 5)),
            tagged(own, (ETH_P_QINQ, 1), (ETH_P_VLAN, 5)),
        ],
    }


NAMES = (
    "spoofed MAC",
    "spoofed address",
    "ARP poisoning",
    "rogue DHCP",
    "rogue RA",
    "VLAN hopping",
)


def arrived(liar: Guest, victim: Guest, frames: list[bytes]) -> list[bool]:
    """Which of the frames get through, a control packet after each."""
    wire = Wire(victim.namespace, "eth0")
    through = []
    for number, frame in enumerate(frames):
        assert MARK in frame
        liar.send(frame)
        word = f"control {number}.".encode()
        control = udp(liar.address, victim.address, 4000, 5000, word)
        liar.send(ethernet(victim.mac, liar.mac, ETH_P_IP, control))
        through.append(any(MARK in each for each in wire.until(word)))
    wire.close()
    return through


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_cannot(lab: Lab, net: Net, name: str) -> None:
    liar, victim = guest(lab, net, 11), guest(lab, net, 12)
    frames = attacks(liar, victim, net.subnet.gateway)[name]
    assert arrived(liar, victim, frames) == [False] * len(frames)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_guards_a_guest_can(lab: Lab, net: Net, name: str) -> None:
    liar, victim = guest(lab, net, 11), guest(lab, net, 12)
    frames = attacks(liar, victim, net.subnet.gateway)[name]
    lab.fabric.unprotect(liar.binding.port)
    lab.fabric.unprotect(victim.binding.port)
    assert arrived(liar, victim, frames) == [True] * len(frames)


def test_without_port_security_a_guest_may_have_any_address_and_no_more(lab: Lab, net: Net) -> None:
    """What an admin turns off: who it says it is. IPv6 and VLAN tags reach nobody anyway."""
    binding = lab.binding(net, 11, OPEN)
    unsecured = binding.port.model_copy(update={"port_security": False})
    liar = lab.cable(binding.model_copy(update={"port": unsecured}))
    lab.fabric.plug(liar.binding, None)
    lab.fabric.protect(liar.binding)
    liar.configure()
    victim = guest(lab, net, 12)
    through = {
        name: set(arrived(liar, victim, frames))
        for name, frames in attacks(liar, victim, net.subnet.gateway).items()
    }
    passes = {"spoofed MAC", "spoofed address", "ARP poisoning", "rogue DHCP"}
    assert through == {name: {name in passes} for name in NAMES}
    assert [text for text in lab.fabric.prove(liar.binding) if "chain" in text] == []
    # And on again: at once.
    liar.binding = binding
    lab.fabric.protect(liar.binding)
    for frames in attacks(liar, victim, net.subnet.gateway).values():
        assert not any(arrived(liar, victim, frames))


def test_a_victim_keeps_its_gateway(lab: Lab, net: Net) -> None:
    """ARP poisoning by its effect: whom the victim takes for its gateway."""
    lab.fabric.realize_router(lab.router(net))
    liar, victim = guest(lab, net, 11), guest(lab, net, 12)
    assert victim.pings(net.subnet.gateway)

    def takes_for_gateway() -> str:
        words = ["-n", victim.namespace, "-j", "neighbour", "show", str(net.subnet.gateway)]
        return str(json.loads(ip(*words))[0].get("lladdr"))

    known = takes_for_gateway()
    claim = arp(2, liar.mac, net.subnet.gateway, victim.mac, victim.address)
    poison = ethernet(victim.mac, liar.mac, ETH_P_ARP, claim)
    for _ in range(5):
        liar.send(poison)
    assert liar.pings(victim.address)
    assert takes_for_gateway() == known
    # It would work.
    lab.fabric.unprotect(liar.binding.port)

    def poisoned() -> bool:
        liar.send(poison)
        return takes_for_gateway() == liar.mac

    wait_for("the victim to be taken in", poisoned)


def test_a_guest_does_not_reach_the_host_over_link_local(lab: Lab, net: Net) -> None:
    """Neither by IPv6 nor by IPv4, even where the bridge has such addresses."""
    liar, other = guest(lab, net, 11), guest(lab, net, 12)
    bridge = lab.fabric.segment_bridge(net.network)
    Path(f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6").write_text("0")
    ip("address", "add", "169.254.7.7/16", "dev", bridge)
    ip("address", "add", "fe80::7/64", "dev", bridge, "nodad")
    ip("route", "add", "10.5.0.0/24", "dev", bridge)
    ip("-n", liar.namespace, "address", "add", "fe80::11/64", "dev", "eth0", "nodad")
    ip("-n", liar.namespace, "route", "add", "169.254.0.0/16", "dev", "eth0")

    def reaches_host() -> set[str]:
        return {to for to in ("169.254.7.7", "fe80::7%eth0") if liar.pings(to)}

    assert reaches_host() == set()
    assert liar.pings(other.address)
    # The answers would be stopped on their way back, too: so one looks at what arrives.
    wire = Wire(None, bridge)
    mac = wire.raw.getsockname()[4].hex(":")
    datagram = udp(liar.address, "169.254.7.7", 4000, 5000, MARK)
    attack = ethernet(mac, liar.mac, ETH_P_IP, datagram)
    lab.fabric.unprotect(other.binding.port)
    liar.send(attack)
    other.send(ethernet(mac, other.mac, ETH_P_IP, datagram.replace(MARK, b"others")))
    assert not any(MARK in frame for frame in wire.until(b"others"))
    lab.fabric.unprotect(liar.binding.port)
    liar.send(attack)
    wire.until(MARK)
    wire.close()
    # The host may be waiting for the answer to an ARP request that was stopped before.
    wait_for("both to be reached", lambda: len(reaches_host()) == 2)


def test_a_guest_does_not_reach_the_servers_of_the_network(lab: Lab, net: Net) -> None:
    """Of the DHCP namespace only DHCP, DNS and the metadata; of the router nothing."""
    router = lab.router(net)
    lab.fabric.realize_router(router)
    lab.fabric.serve_metadata(net.network)
    client = guest(lab, net, 11)
    listening = {
        namespace: run_in(
            namespace,
            lambda: (
                subprocess.run(["ss", "-Hlntu"], capture_output=True, text=True, check=True).stdout
            ),
        )
        for namespace in (
            marks.dhcp_namespace(net.network.id),
            marks.router_namespace(router.id),
        )
    }
    ports = {
        namespace: {line.split()[4].rsplit(":", 1)[1] for line in text.splitlines()}
        for namespace, text in listening.items()
    }
    assert ports[marks.dhcp_namespace(net.network.id)] <= {"53", "67", "80"}
    assert ports[marks.router_namespace(router.id)] == set()
    assert client.pings(net.subnet.gateway)


def told(lab: Lab, guest: Guest, name: str) -> None:
    """Metadata of a guest, with its name in it."""
    documents = {
        "meta_data.json": json.dumps({"uuid": f"id-of-{name}", "hostname": name}).encode(),
        "user_data": f"secret of {name}".encode(),
    }
    lab.fabric.put_metadata(guest.binding, documents)


def asks(guest: Guest, path: str, source: object | None = None, header: str = "") -> bytes:
    """What the metadata server answers; nothing, where no connection comes about."""

    def inside() -> bytes:
        own = (str(source), 0) if source else None
        try:
            with socket.create_connection((METADATA, 80), 3, source_address=own) as http:
                http.sendall(f"GET {path} HTTP/1.1\r\nHost: {METADATA}\r\n{header}\r\n".encode())
                return b"".join(iter(lambda: http.recv(65536), b""))
        except OSError:
            return b""

    return run_in(guest.namespace, inside)


@pytest.mark.parametrize("way", ["by DHCP's route", "by the router"])
def test_a_guest_does_not_get_anothers_metadata(lab: Lab, net: Net, way: str) -> None:
    lab.fabric.realize_router(lab.router(net))
    lab.fabric.serve_metadata(net.network)
    liar, victim = guest(lab, net, 11), guest(lab, net, 12)
    for each, name in ((liar, "liar"), (victim, "victim")):
        told(lab, each, name)
        if way == "by DHCP's route":
            ip("-n", each.namespace, "route", "add", METADATA, "via", "10.5.0.2")
    path = "/openstack/latest/user_data"
    for header in (
        f"X-Forwarded-For: {victim.address}\r\n",
        f"X-Instance-ID: id-of-victim\r\nX-Tenant-ID: t\r\nX-Real-IP: {victim.address}\r\n",
    ):
        assert asks(liar, path, header=header).endswith(b"secret of liar")
    for other in (
        f"/openstack/latest/../../{victim.address}/user_data",
        f"/{victim.address}/user_data",
    ):
        assert b"secret" not in asks(liar, other)
    # With the victim's address: nothing leaves the port.
    ip("-n", liar.namespace, "address", "add", f"{victim.address}/32", "dev", "eth0")
    assert asks(liar, path, source=victim.address) == b""
    assert asks(liar, path, source=liar.address).endswith(b"secret of liar")
    assert asks(victim, path).endswith(b"secret of victim")


def test_equal_addresses_of_two_tenants_have_their_own_metadata(lab: Lab) -> None:
    """By DHCP's route, and by the router of each."""
    nets = {"left": lab.served(), "right": lab.served()}
    guests = {}
    for name, net in nets.items():
        lab.fabric.realize_router(lab.router(net))
        lab.fabric.serve_metadata(net.network)
        guests[name] = guest(lab, net, 11)
        told(lab, guests[name], name)
    for name, each in guests.items():
        for via in ("10.5.0.1", "10.5.0.2"):
            ip("-n", each.namespace, "route", "replace", METADATA, "via", via)
            assert asks(each, "/openstack/latest/user_data").endswith(f"secret of {name}".encode())
            assert asks(each, "/latest/meta-data/instance-id").endswith(f"id-of-{name}".encode())
