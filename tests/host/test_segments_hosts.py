"""Segments on several hosts: one network's guests talk, another's with their addresses do not.

Each host is a namespace with its own data plane; what crosses the wire between them is
looked at with tcpdump.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from blocks.errors import HostFault, NotFound, Unsupported
from blocks.fabric import kernel, run_in
from blocks.fabric.segments import Vswitch, segment_mtu
from blocks.resources import NetworkDriver, NetworkType
from deployments import ovs_daemons, processes
from tests import sessions
from tests.host.fabric_lab import ETH_P_ARP, Guest, Wire, arp, ethernet, ip, wait_for
from tests.host.underlay_lab import (
    BROADCAST,
    OPERATORS,
    UPLINK,
    Tcpdump,
    Transport,
    Underlay,
    shout,
    underlay_at,
)

pytestmark = [pytest.mark.host, pytest.mark.slow]

VXLAN = Transport(NetworkType.VXLAN, NetworkDriver.LINUXBRIDGE, "vni {}\n", 1450)
OVS_VXLAN = Transport(NetworkType.VXLAN, NetworkDriver.OPENVSWITCH, "vni {}\n", 1450)
OVS_GRE = Transport(NetworkType.GRE, NetworkDriver.OPENVSWITCH, "key=0x{:x},", 1458)
OVS_VLAN = Transport(NetworkType.VLAN, NetworkDriver.OPENVSWITCH, "vlan {},", 1500)
#: These two are modules of stock kernels (`tests/stock_kernel`).
GRE = Transport(NetworkType.GRE, NetworkDriver.LINUXBRIDGE, "key=0x{:x},", 1458)
VLAN = Transport(NetworkType.VLAN, NetworkDriver.LINUXBRIDGE, "vlan {},", 1500)
TUNNELS = [VXLAN, GRE, OVS_VXLAN, OVS_GRE]
ALL = [*TUNNELS, VLAN, OVS_VLAN]
BULK = 1_000_000


@pytest.fixture
def underlay(tmp_path: Path, session_directory: Path) -> Iterator[Underlay]:
    site = sessions.new_site(session_directory)
    with underlay_at(tmp_path, site) as underlay:
        yield underlay


def mac_in(guest: Guest, frames: list[bytes]) -> bool:
    return any(bytes.fromhex(guest.mac.replace(":", "")) in frame for frame in frames)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transport:
    """One that this kernel has."""
    wanted: Transport = request.param
    kind = {"gre": "gretap"}.get(wanted.kind, wanted.kind.value)
    if not wanted.by_vswitch and not kernel.knows_link_kind(kind):
        pytest.skip(f"this kernel has no {kind} devices")
    return wanted


def sends_much(sender: Guest, receiver: Guest) -> int:
    """How many bytes of BULK arrive by TCP, whose segments the sender leaves to its link."""
    listener = run_in(
        receiver.namespace, lambda: socket.create_server((str(receiver.address), 5001))
    )
    listener.settimeout(20)

    def send() -> None:
        with socket.create_connection((str(receiver.address), 5001), 20) as connection:
            connection.settimeout(20)
            connection.sendall(b"x" * BULK)

    sending = threading.Thread(target=run_in, args=(sender.namespace, send))
    sending.start()
    arrived = 0
    with listener:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(20)
            while data := peer.recv(1 << 16):
                arrived += len(data)
    sending.join()
    return arrived


@pytest.mark.parametrize("transport", ALL, indirect=True, ids=lambda one: one.name)
def test_guests_of_one_network_talk_and_anothers_do_not_hear(
    underlay: Underlay, transport: Transport
) -> None:
    hosts = [underlay.join(vswitch=transport.by_vswitch) for _ in range(2)]
    nets = [underlay.net(transport, segment) for segment in (77, 78)]
    for host in hosts:
        for net in nets:
            host.realize(net, hosts)
    here, there = hosts[0].guest(nets[0], 11), hosts[1].guest(nets[0], 12)
    # The same addresses in the other network, and one that only that has.
    twin, other = hosts[0].guest(nets[1], 11), hosts[1].guest(nets[1], 12)
    only = hosts[1].guest(nets[1], 13)

    wire = Tcpdump(underlay.switch, "port2")
    far = [Wire(guest.namespace, "eth0") for guest in (other, only)]
    full = str(transport.mtu - 28)
    ping = here.run("ping", "-n", "-M", "do", "-s", full, "-c", "1", "-W", "10", str(there.address))
    assert ping.returncode == 0, ping.stdout
    wire.until(transport.shows.format(77))
    assert sends_much(here, there) == BULK
    assert not here.pings(only.address)
    shout(here, b"of the first network")

    # The control: what the other network's own guest says does arrive, at both.
    assert twin.pings(only.address, 3)
    assert twin.pings(other.address, 3)
    wire.until(transport.shows.format(78))
    shout(twin, b"of the second network")
    for each in far:
        heard = each.until(b"of the second network")
        assert mac_in(twin, heard)
        assert not mac_in(here, heard)
        assert not any(b"of the first network" in frame for frame in heard)
        each.close()
    wire.close()
    assert [host.differences(net, hosts) for host in hosts for net in nets] == [[]] * 4


@pytest.mark.parametrize("transport", TUNNELS, indirect=True, ids=lambda one: one.name)
def test_three_hosts_hear_each_broadcast_once(underlay: Underlay, transport: Transport) -> None:
    """Every host has a tunnel to each other one, and no frame goes round among them."""
    hosts = [underlay.join(vswitch=transport.by_vswitch) for _ in range(3)]
    net = underlay.net(transport, 5)
    for host in hosts:
        host.realize(net, hosts)
    guests = [host.guest(net, 10 + host.number) for host in hosts]
    assert guests[0].pings(guests[1].address, 3)
    assert guests[0].pings(guests[2].address, 3)
    wires = [Wire(guest.namespace, "eth0") for guest in guests[1:]]
    shout(guests[0], b"just once")
    shout(guests[0], b"the end of it")
    for wire in wires:
        frames = wire.until(b"the end of it")
        assert len([frame for frame in frames if b"just once" in frame]) == 1
        wire.close()


@pytest.mark.parametrize("transport", TUNNELS, indirect=True, ids=lambda one: one.name)
def test_hosts_come_and_go(underlay: Underlay, transport: Transport) -> None:
    hosts = [underlay.join(vswitch=transport.by_vswitch) for _ in range(3)]
    net = underlay.net(transport, 5)
    first, second, third = hosts
    first.realize(net, [first])
    second.realize(net, hosts)
    third.realize(net, hosts)
    guests = [host.guest(net, 10 + host.number) for host in hosts]
    assert not guests[0].pings(guests[1].address)
    assert len(first.differences(net, hosts)) == 2

    first.realize(net, [first, second])
    assert guests[0].pings(guests[1].address, 3)
    assert len(first.differences(net, hosts)) == 1
    assert len(first.differences(net, [first])) == 1

    first.realize(net, [first, third])
    assert guests[0].pings(guests[2].address, 3)
    assert first.differences(net, [first, third]) == []

    # The userspace datapath loses packets as long as it asks where a host is.
    assert guests[2].pings(guests[1].address, 5)
    wire = Wire(guests[1].namespace, "eth0")
    shout(guests[0], b"not to the second")
    shout(guests[2], b"from the third")
    assert not any(b"not to the second" in frame for frame in wire.until(b"from the third"))
    wire.close()


def test_the_mtu_is_what_the_underlay_leaves(underlay: Underlay) -> None:
    hosts = [underlay.join(vswitch=False) for _ in range(2)]
    for host in hosts:
        ip("-n", host.namespace, "link", "set", UPLINK, "mtu", "1400")
    first, second = hosts
    mtu = first.run(lambda: segment_mtu(NetworkType.VXLAN, first.address))
    assert mtu == 1350
    with pytest.raises(NotFound, match=r"192\.0\.2\.99"):
        first.run(lambda: segment_mtu(NetworkType.VXLAN, IPv4Address("192.0.2.99")))
    net = underlay.net(replace(VXLAN, mtu=mtu), 5)
    for host in hosts:
        host.realize(net, hosts)
    here, there = first.guest(net, 11), second.guest(net, 12)
    ping = ["ping", "-n", "-M", "do", "-c", "1", "-W", "3", str(there.address), "-s"]
    assert here.run(*ping, str(mtu - 28)).returncode == 0
    # The control: more than that does not get through, whatever the guest believes.
    ip("-n", here.namespace, "link", "set", "eth0", "mtu", "1500")
    assert here.run(*ping, str(mtu - 27)).returncode != 0
    assert here.run(*ping, str(mtu - 28)).returncode == 0


def test_a_restart_of_vswitchd_loses_nothing(underlay: Underlay) -> None:
    hosts = [underlay.join(vswitch=True) for _ in range(2)]
    net = underlay.net(OVS_GRE, 5)
    for host in hosts:
        host.realize(net, hosts)
    guests = [host.guest(net, 10 + host.number) for host in hosts]
    assert guests[0].pings(guests[1].address, 3)

    for name, process in ovs_daemons.ours(hosts[0].ovs).items():
        if name == "ovs-vswitchd":
            processes.stop(process)
    # The operator's own bridge is a device of the process that has just ended.
    assert hosts[0].run(lambda: ovs_daemons.start(hosts[0].ovs)) == ["ovs-vswitchd"]
    ip("-n", hosts[0].namespace, "link", "set", OPERATORS, "up")
    address = f"{hosts[0].address}/24"
    ip("-n", hosts[0].namespace, "address", "replace", address, "dev", OPERATORS)
    assert hosts[0].differences(net, hosts) == []
    wait_for("the guests talk again", lambda: guests[0].pings(guests[1].address))


def test_a_guest_cannot_hop_to_another_vlan(underlay: Underlay) -> None:
    """A frame that already has a tag does not get onto the wire by an access port."""
    hosts = [underlay.join(vswitch=True) for _ in range(2)]
    nets = [underlay.net(OVS_VLAN, segment) for segment in (101, 102)]
    for host in hosts:
        for net in nets:
            host.realize(net, hosts)
    here, there = hosts[0].guest(nets[0], 11), hosts[1].guest(nets[1], 12)
    control = hosts[0].guest(nets[1], 13)
    wire = Wire(there.namespace, "eth0")
    request = arp(1, here.mac, here.address, "00:00:00:00:00:00", there.address)
    tagged = (102).to_bytes(2, "big") + ETH_P_ARP.to_bytes(2, "big") + request
    here.send(ethernet(BROADCAST, here.mac, 0x8100, tagged))
    shout(control, b"the control")
    assert not mac_in(here, wire.until(b"the control"))
    wire.close()


def test_the_userspace_datapath_needs_the_underlay_address(underlay: Underlay) -> None:

    host = underlay.join(vswitch=True, address=False)
    net = underlay.net(OVS_GRE, 5)
    peer = host.address + 1
    fabric = host.lab.fabric
    with pytest.raises(NotFound, match=r"192\.0\.2\.1"):
        host.run(lambda: fabric.realize_segment(net.network, [peer], host.address))
    host.says("ip", "link", "add", "elsewhere", "type", "veth", "peer", "name", "its-end")
    host.says("ip", "address", "add", f"{host.address}/24", "dev", "elsewhere")
    with pytest.raises(Unsupported, match="elsewhere"):
        host.run(lambda: fabric.realize_segment(net.network, [peer], host.address))
    with pytest.raises(HostFault, match="underlay address"):
        host.run(lambda: fabric.realize_segment(net.network, [peer], None))
    # Alone on its network it needs none.
    host.realize(net, [host])
    assert host.differences(net, [host]) == []


def test_a_vlan_needs_the_operators_bridge(underlay: Underlay) -> None:

    host = underlay.join(vswitch=True)
    host.vsctl("del-port", OPERATORS, UPLINK)
    net = underlay.net(OVS_VLAN, 101)
    with pytest.raises(NotFound, match=f"{UPLINK} is in no bridge"):
        host.realize(net, [host])
    host.vsctl("add-port", OPERATORS, UPLINK)
    host.realize(net, [host])
    before = json.loads(host.says("ip", "-j", "link"))
    assert Vswitch(host.ovs).bridge_of(UPLINK) == OPERATORS
    assert host.run(lambda: host.lab.fabric.remove_segment(net.network))
    # What is the operator's stays.
    after = [link["ifname"] for link in json.loads(host.says("ip", "-j", "link"))]
    assert {UPLINK, OPERATORS} <= set(after) < {link["ifname"] for link in before}
    assert host.vsctl("list-ports", OPERATORS).split() == [UPLINK]
