"""Segments: what other tools see of bridges and tunnels, and frames between two hosts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from blocks import changes, marks
from blocks.errors import Conflict, HostFault, NotFound, Transient
from blocks.fabric import kernel, run_in
from blocks.resources import FirewallRule, NetworkType
from tests.host.fabric_lab import ANY_EGRESS, Guest, Lab, Net, Wire, ip, lab_at

pytestmark = pytest.mark.host


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


def shown(name: str) -> dict[str, Any]:
    """A link as ip(8) shows it."""
    link: dict[str, Any] = json.loads(ip("-d", "-j", "link", "show", name))[0]
    return link


def names() -> list[str]:
    return [link["ifname"] for link in json.loads(ip("-j", "link"))]


def peers(name: str) -> set[str]:
    """The flood list of a tunnel."""
    done = subprocess.run(
        ["bridge", "-j", "fdb", "show", "dev", name], capture_output=True, text=True, check=True
    )
    return {
        entry["dst"]
        for entry in json.loads(done.stdout)
        if entry["mac"] == "00:00:00:00:00:00" and "dst" in entry
    }


@pytest.mark.parametrize("kind", [NetworkType.FLAT, NetworkType.LOCAL])
def test_a_bridge_of_our_own(lab: Lab, kind: NetworkType) -> None:
    net = lab.net(kind=kind, mtu=1400)
    bridge = shown(lab.fabric.segment_bridge(net.network))
    assert bridge["mtu"] == 1400
    assert "UP" in bridge["flags"]
    assert bridge["ifalias"] == marks.link_alias(lab.site, "network", net.network.id)
    data = bridge["linkinfo"]["info_data"]
    assert (data["forward_delay"], data["mcast_snooping"], data["nf_call_iptables"]) == (0, 0, 1)
    assert json.loads(ip("-j", "address", "show", bridge["ifname"]))[0]["addr_info"] == []
    lab.guest(net, 11)
    again = shown(lab.fabric.segment_bridge(net.network))
    assert (again["mtu"], again["address"]) == (1400, bridge["address"])
    with changes.collecting() as made:
        lab.fabric.realize_segment(net.network)
    assert made == []


def test_a_segment_stays_while_something_is_plugged_in(lab: Lab) -> None:
    net = lab.served(kind=NetworkType.VXLAN, segment_id=4321, mtu=1450)
    assert not lab.fabric.remove_segment(net.network)
    assert lab.fabric.segment_bridge(net.network) in names()
    lab.fabric.stop_dhcp(net.network)
    assert lab.fabric.remove_segment(net.network)
    assert names() == ["lo"]
    assert lab.fabric.remove_segment(net.network)


def test_the_flood_list_is_exactly_the_peers(lab: Lab) -> None:
    net = lab.net(kind=NetworkType.VXLAN, segment_id=4321, mtu=1450)
    tunnel = marks.vxlan_name(net.network.id)
    data = shown(tunnel)["linkinfo"]["info_data"]
    assert (data["id"], data["port"]) == (4321, 4789)
    assert shown(tunnel)["master"] == lab.fabric.segment_bridge(net.network)
    assert peers(tunnel) == set()
    for last in ((1, 2), (2, 3), ()):
        wanted = [IPv4Address(f"192.0.2.{each}") for each in last]
        lab.fabric.realize_segment(net.network, wanted)
        assert peers(tunnel) == {str(peer) for peer in wanted}


def test_a_vni_that_is_taken_is_a_conflict(lab: Lab) -> None:
    lab.net(kind=NetworkType.VXLAN, segment_id=99)
    with pytest.raises(Conflict, match="VNI 99"):
        lab.net(kind=NetworkType.VXLAN, segment_id=99)


def test_what_is_not_ours_is_not_touched(lab: Lab) -> None:
    net = lab.net(realize=False)
    name = lab.fabric.segment_bridge(net.network)
    ip("link", "add", name, "alias", "somebody's", "type", "bridge")
    ip("link", "set", name, "alias", "somebody's")
    with pytest.raises(Conflict, match="not ours"):
        lab.fabric.realize_segment(net.network)
    with pytest.raises(Conflict, match="not ours"):
        lab.fabric.remove_segment(net.network)
    assert shown(name)["ifalias"] == "somebody's"
    ip("link", "delete", name)


def test_what_a_killed_process_left_unmarked_is_taken(lab: Lab) -> None:
    net = lab.net(realize=False)
    name = lab.fabric.segment_bridge(net.network)
    ip("link", "add", name, "type", "bridge")
    lab.fabric.realize_segment(net.network)
    assert shown(name)["ifalias"] == marks.link_alias(lab.site, "network", net.network.id)


def test_an_operators_bridge_is_used_and_left(lab: Lab) -> None:
    net = lab.net(realize=False, kind=NetworkType.FLAT, physical_bridge="br-lab")
    with pytest.raises(NotFound, match="br-lab"):
        lab.fabric.realize_segment(net.network)
    ip("link", "add", "br-lab", "type", "bridge")
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    switch.write_text("0")
    with pytest.raises(HostFault, match="hides its frames"):
        lab.fabric.realize_segment(net.network)
    ip("link", "set", "br-lab", "up", "type", "bridge", "nf_call_iptables", "1")
    before = shown("br-lab")
    lab.fabric.realize_segment(net.network)
    guest = lab.guest(net, 11)
    assert shown(str(guest.binding.port.tap))["master"] == "br-lab"
    lab.fabric.unprotect(guest.binding.port)
    lab.fabric.unplug(guest.binding.port)
    assert lab.fabric.remove_segment(net.network)
    after = shown("br-lab")
    assert {key: after[key] for key in ("mtu", "ifindex")} == {
        key: before[key] for key in ("mtu", "ifindex")
    }
    assert after["linkinfo"]["info_data"]["nf_call_iptables"] == 1
    assert "ifalias" not in after
    assert not any(found.name == "br-lab" for found in lab.fabric.inventory())
    ip("link", "delete", "br-lab")


@contextlib.contextmanager
def two_hosts(lab: Lab) -> Iterator[list[str]]:
    """Two more hosts, joined by a cable: 192.0.2.1 and 192.0.2.2."""
    hosts = [f"lab-{lab.site}-host{number}" for number in (1, 2)]
    for host in hosts:
        ip("netns", "add", host)
    try:
        cable = ["type", "veth", "peer", "under2", "netns", hosts[1]]
        ip("link", "add", "under1", "netns", hosts[0], *cable)
        for number, host in enumerate(hosts, 1):
            ip("-n", host, "address", "add", f"192.0.2.{number}/24", "dev", f"under{number}")
            ip("-n", host, "link", "set", f"under{number}", "up")
        yield hosts
    finally:
        for host in hosts:
            ip("netns", "delete", host)


def join(lab: Lab, net: Net, number: int) -> Guest:
    """Realize a network on one of the two hosts, with a guest there; `.11` or `.12`."""
    local, peer = (IPv4Address(f"192.0.2.{each}") for each in (number, 3 - number))
    lab.fabric.realize_segment(net.network, [peer], local)
    guest = lab.guest(net, 10 + number, (ANY_EGRESS, FirewallRule(direction="ingress")))
    guest.configure()
    ip("-n", guest.namespace, "link", "set", "eth0", "mtu", str(net.network.mtu))
    return guest


def test_two_hosts_share_a_segment(lab: Lab) -> None:
    """Frames cross the underlay in VXLAN, at the full MTU, and only to their own segment."""
    nets = [
        lab.net(realize=False, kind=NetworkType.VXLAN, segment_id=vni, mtu=1450) for vni in (7, 8)
    ]
    with two_hosts(lab) as hosts:
        here = run_in(hosts[0], lambda: join(lab, nets[0], 1))
        there = run_in(hosts[1], lambda: join(lab, nets[0], 2))
        twin = run_in(hosts[0], lambda: join(lab, nets[1], 1))
        other = run_in(hosts[1], lambda: join(lab, nets[1], 2))
        underlay, far = Wire(hosts[1], "under2"), Wire(other.namespace, "eth0")

        full = ["ping", "-n", "-M", "do", "-s", "1422", "-c", "1", "-W", "5", str(there.address)]
        assert here.run(*full).returncode == 0
        assert underlay.until(bytes.fromhex(here.mac.replace(":", "")))
        assert twin.pings(other.address)
        heard = far.until(bytes.fromhex(twin.mac.replace(":", "")))
        assert not any(bytes.fromhex(here.mac.replace(":", "")) in frame for frame in heard)
        underlay.close()
        far.close()


def test_a_tap_belongs_to_the_user_that_qemu_runs_as(lab: Lab) -> None:
    net = lab.net(mtu=1400)
    binding = lab.binding(net, 11)
    lab.fabric.plug(binding, 12345)
    tap = shown(str(binding.port.tap))
    assert (tap["mtu"], tap["master"]) == (1400, lab.fabric.segment_bridge(net.network))
    assert tap["linkinfo"]["info_kind"] == "tun"
    assert tap["linkinfo"]["info_data"]["user"] in ("12345", 12345)
    assert not lab.fabric.carrier(binding.port)
    lab.fabric.unplug(binding.port)
    lab.fabric.unplug(binding.port)
    assert str(binding.port.tap) not in names()
    with pytest.raises(Transient):
        lab.fabric.carrier(binding.port)


def test_a_tap_has_a_carrier_while_a_process_holds_it(lab: Lab) -> None:
    net = lab.net()
    binding = lab.binding(net, 11)
    lab.fabric.plug(binding, None)
    assert not lab.fabric.carrier(binding.port)
    handle = os.open("/dev/net/tun", os.O_RDWR)
    try:
        name = str(binding.port.tap).encode()
        fcntl.ioctl(handle, 0x400454CA, struct.pack("16sH22x", name, 0x0002 | 0x1000))
        assert lab.fabric.carrier(binding.port)
        lab.fabric.plug(binding, None)
        assert lab.fabric.carrier(binding.port)
    finally:
        os.close(handle)
    assert not lab.fabric.carrier(binding.port)


def test_plugging_into_no_bridge_is_worth_another_try(lab: Lab) -> None:
    with pytest.raises(Transient, match="no link"):
        lab.fabric.plug(lab.binding(lab.net(realize=False), 11), None)


def test_the_kernel_is_asked_what_it_can_make(lab: Lab) -> None:
    assert kernel.knows_link_kind("bridge")
    assert not kernel.knows_link_kind("nosuchkind")
    assert names() == ["lo"]
