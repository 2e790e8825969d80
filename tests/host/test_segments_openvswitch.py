"""The driver `openvswitch` on one host: made, made again, found astray, repaired, removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from blocks import changes, marks
from blocks.errors import Conflict, HostFault, Unsupported
from blocks.fabric import links as links_module
from blocks.fabric.segments import Vswitch, vswitch_inventory
from blocks.inventory import Found
from blocks.resources import NetworkDriver, NetworkType
from deployments import ovs_daemons
from tests import sessions
from tests.host.fabric_lab import Net
from tests.host.underlay_lab import OPERATORS, UPLINK, Host, Transport, Underlay, underlay_at

pytestmark = pytest.mark.host

GRE = Transport(NetworkType.GRE, NetworkDriver.OPENVSWITCH, "", 1458)
VLAN = Transport(NetworkType.VLAN, NetworkDriver.OPENVSWITCH, "", 1500)
PEER, OTHER = IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3")


@pytest.fixture
def underlay(tmp_path: Path, session_directory: Path) -> Iterator[Underlay]:
    site = sessions.new_site(session_directory)
    with underlay_at(tmp_path, site) as underlay:
        yield underlay


@pytest.fixture
def host(underlay: Underlay) -> Host:
    return underlay.join(vswitch=True)


def realize(host: Host, net: Net, *peers: IPv4Address) -> list[str]:
    """Realize a network; what was changed for it."""

    def make() -> list[str]:
        with changes.collecting() as made:
            host.lab.fabric.realize_segment(net.network, peers, host.address)
        return [change.what for change in made]

    return host.run(make)


def wrong(host: Host, net: Net, *peers: IPv4Address) -> list[str]:
    return host.run(lambda: host.lab.fabric.segment_differences(net.network, peers, host.address))


def links(host: Host) -> set[str]:
    return {link["ifname"] for link in json.loads(host.says("ip", "-j", "link"))}


def options(host: Host, port: str) -> str:
    return host.vsctl("get", "Interface", port, "type", "options").replace("\n", " ")


def can_add(host: Host, kind: str) -> bool:
    """Whether ip(8) can make such a link (and delete it again)."""
    words = ["link", "add", "probe0", "type", kind]
    words += ["local", "192.0.2.1", "remote", "192.0.2.9", "key", "1"]
    try:
        host.says("ip", *words)
    except subprocess.CalledProcessError:
        return False
    host.says("ip", "link", "delete", "probe0")
    return True


def test_made_as_it_is_described_and_only_once(underlay: Underlay, host: Host) -> None:
    net = underlay.net(GRE, 77)
    made = realize(host, net, PEER, OTHER)
    assert any("Made the Open vSwitch bridge" in text for text in made)
    bridge = marks.vswitch_name(net.network.id)
    outer, inner = marks.vswitch_cable_names(net.network.id)
    tunnels = {marks.vswitch_tunnel_name(net.network.id, peer) for peer in (PEER, OTHER)}
    by_kernel = Path("/sys/module/openvswitch").is_dir() and can_add(host, "gretap")
    datapath = host.vsctl("get", "Bridge", bridge, "datapath_type").strip()
    assert datapath == ("system" if by_kernel else "netdev")
    assert set(host.vsctl("list-ports", bridge).split()) == {inner, *tunnels}
    shown = options(host, marks.vswitch_tunnel_name(net.network.id, PEER))
    assert "gre" in shown and 'key="77"' in shown and f'remote_ip="{PEER}"' in shown
    assert f'local_ip="{host.address}"' in shown
    [link] = json.loads(host.says("ip", "-d", "-j", "link", "show", outer))
    assert (link["master"], link["mtu"]) == (marks.bridge_name(net.network.id), 1458)
    offloads = host.says("ethtool", "-k", outer)
    # (The sum "tcp-segmentation-offload" counts kinds that Linux 6.18 keeps without effect.)
    for name in ("tx-checksumming", "scatter-gather", "tx-tcp-segmentation"):
        assert (f"{name}: off" in offloads) == (datapath == "netdev")

    assert realize(host, net, PEER, OTHER) == []
    assert wrong(host, net, PEER, OTHER) == []
    assert realize(host, net, PEER) == [
        f"Removed the port {marks.vswitch_tunnel_name(net.network.id, OTHER)} from Open vSwitch"
    ]
    assert set(host.vsctl("list-ports", bridge).split()) == {inner, *sorted(tunnels)} - {
        marks.vswitch_tunnel_name(net.network.id, OTHER)
    }


def test_what_goes_astray_is_told_and_repaired(underlay: Underlay, host: Host) -> None:
    net = underlay.net(GRE, 77)
    realize(host, net, PEER)
    bridge = marks.vswitch_name(net.network.id)
    outer, inner = marks.vswitch_cable_names(net.network.id)
    tunnel = marks.vswitch_tunnel_name(net.network.id, PEER)
    ways: list[Callable[[], str]] = [
        lambda: host.vsctl("set", "Interface", tunnel, "options:key=9"),
        lambda: host.vsctl("set", "Port", tunnel, "protected=false"),
        lambda: host.vsctl("del-port", tunnel),
        lambda: host.vsctl("del-port", inner),
        lambda: host.vsctl("del-br", bridge),
        lambda: host.says("ip", "link", "delete", outer),
        lambda: host.says("ip", "link", "set", outer, "nomaster"),
        lambda: host.says("ip", "link", "set", inner, "down"),
        lambda: host.says("ip", "link", "set", inner, "mtu", "1400"),
    ]
    for way in ways:
        way()
        assert wrong(host, net, PEER) != []
        assert realize(host, net, PEER) != []
        assert wrong(host, net, PEER) == []
        assert realize(host, net, PEER) == []


def test_removed_with_all_that_belongs_to_it(underlay: Underlay, host: Host) -> None:
    links_before = links(host)
    nets = [underlay.net(GRE, 77), underlay.net(VLAN, 101)]
    for net in nets:
        realize(host, net, *([PEER] if net.network.type is NetworkType.GRE else []))
    fabric = host.lab.fabric
    expected = [part for net in nets for part in fabric.parts_of_network(net.network, [], None)]
    wanted = {part.identity for part in expected if part.kind not in ("namespace", "process")}
    found = host.run(fabric.inventory)
    assert wanted <= {each.identity for each in found}
    for net in [*nets, *nets]:
        assert host.run(partial(fabric.remove_segment, net.network))
    assert links(host) == links_before
    assert host.vsctl("list-br").split() == [OPERATORS]
    assert host.vsctl("list-ports", OPERATORS).split() == [UPLINK]


def test_removed_by_inventory(underlay: Underlay, host: Host) -> None:
    links_before = links(host)
    for net in (underlay.net(GRE, 77), underlay.net(VLAN, 101)):
        realize(host, net, *([PEER] if net.network.type is NetworkType.GRE else []))
    fabric = host.lab.fabric
    for _ in range(2):  # the second time all is gone already
        for found in host.run(fabric.inventory):
            host.run(partial(fabric.remove, found))
    assert links(host) == links_before
    assert host.vsctl("list-br").split() == [OPERATORS]
    assert host.vsctl("list-ports", OPERATORS).split() == [UPLINK]


def killed(host: Host, function: Callable[[], object], where: str, *, after: bool) -> None:
    """Do something on a host in a process that SIGKILL ends before, or after, one call."""
    owner: Any = Vswitch if where == "change" else links_module
    original = getattr(owner, where)

    def die(*arguments: object) -> None:
        if after:
            original(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    def inside() -> int:
        pid = os.fork()
        if pid == 0:
            setattr(owner, where, die)
            function()
            os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert host.run(inside) == -signal.SIGKILL


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_between_the_kernel_and_open_vswitch(
    underlay: Underlay, host: Host, *, after: bool
) -> None:
    """Around the transaction of OVSDB, and between it and the removal of the veth pair."""
    links_before = links(host)
    net = underlay.net(GRE, 77)
    fabric = host.lab.fabric
    bridge, outer = (
        marks.vswitch_name(net.network.id),
        marks.vswitch_cable_names(net.network.id)[0],
    )

    def make() -> None:
        fabric.realize_segment(net.network, [PEER], host.address)

    killed(host, make, "change", after=after)
    assert outer in links(host)
    assert (bridge in host.vsctl("list-br").split()) == after
    assert (wrong(host, net, PEER) == []) == after
    realize(host, net, PEER)
    assert wrong(host, net, PEER) == []
    assert realize(host, net, PEER) == []

    killed(host, lambda: fabric.remove_segment(net.network), "delete", after=after)
    assert bridge not in host.vsctl("list-br").split()
    assert (outer in links(host)) != after
    assert host.run(lambda: fabric.remove_segment(net.network))
    assert links(host) == links_before

    killed(host, make, "change", after=after)
    for found in host.run(fabric.inventory):
        host.run(partial(fabric.remove, found))
    assert links(host) == links_before
    assert host.vsctl("list-br").split() == [OPERATORS]


def test_what_is_not_ours_is_not_touched(underlay: Underlay, host: Host) -> None:
    net = underlay.net(GRE, 77)
    bridge = marks.vswitch_name(net.network.id)
    host.vsctl("add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev")
    with pytest.raises(Conflict, match="not ours"):
        realize(host, net)
    with pytest.raises(Conflict, match="not ours"):
        host.run(lambda: host.lab.fabric.remove_segment(net.network))
    thing = Found(kind=vswitch_inventory.BRIDGE, name=bridge, owner=net.network.id)
    assert thing.identity not in {each.identity for each in host.run(host.lab.fabric.inventory)}
    with pytest.raises(Conflict, match="not ours"):
        host.run(lambda: host.lab.fabric.remove(thing))
    assert bridge in host.vsctl("list-br").split()
    host.vsctl("del-br", bridge)


def test_a_key_that_is_taken_is_a_conflict(underlay: Underlay, host: Host) -> None:
    realize(host, underlay.net(GRE, 77), PEER)
    with pytest.raises(Conflict, match="segment 77"):
        realize(host, underlay.net(GRE, 77), PEER)


def test_the_driver_is_what_this_host_can(underlay: Underlay, host: Host) -> None:
    fabric = host.lab.fabric

    def choose(kind: NetworkType) -> NetworkDriver:
        return host.run(lambda: fabric.choose_driver(kind))

    assert choose(NetworkType.VXLAN) is NetworkDriver.LINUXBRIDGE
    assert choose(NetworkType.LOCAL) is NetworkDriver.LINUXBRIDGE
    kernel_has_gre = can_add(host, "gretap")
    wanted = NetworkDriver.LINUXBRIDGE if kernel_has_gre else NetworkDriver.OPENVSWITCH
    assert choose(NetworkType.GRE) is wanted
    gre = underlay.net(GRE, 5)
    host.run(lambda: fabric.check(gre.network))
    host.run(lambda: ovs_daemons.stop(host.ovs))
    with pytest.raises(Unsupported, match="Open vSwitch does not run") as refusal:
        host.run(lambda: fabric.check(gre.network))
    assert "openvswitch-switch" in refusal.value.hint
    with pytest.raises(HostFault, match="does not answer"):
        realize(host, gre)
    if not kernel_has_gre:
        with pytest.raises(Unsupported, match=r"no gretap devices.*Open vSwitch does not run"):
            choose(NetworkType.GRE)
