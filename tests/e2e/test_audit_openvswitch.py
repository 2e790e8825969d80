"""`fifty audit` and Open vSwitch: our bridges and ports without a record go, others' stay."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from blocks import marks
from blocks.commands import run
from blocks.fabric.segments import Vswitch, vswitch_inventory
from blocks.resources import Network, NetworkDriver, NetworkType
from deployments import ovs_daemons
from tests.cloud import Cloud
from tests.e2e.test_audit import ASTRAY, REMOVED, audit
from tests.inventory import differences

pytestmark = pytest.mark.e2e

LOCAL, PEER = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
COLUMNS = ("name", "external_ids")


@pytest.fixture(name="vswitch")
def _vswitch(cloud: Cloud) -> Iterator[Vswitch]:
    ovs_daemons.use(cloud.home)
    yield Vswitch()
    ovs_daemons.leave(cloud.home)


def vsctl(vswitch: Vswitch, *words: str) -> str:
    return run("ovs-vsctl", f"--db=unix:{vswitch.directory}/db.sock", *words).stdout


@contextmanager
def other_peoples(vswitch: Vswitch, site: str) -> Iterator[tuple[str, str]]:
    """An operator's bridge with the underlay's address, and an interface; also look-alikes.

    Gives the interface, and the operator's bridge that holds it.
    """
    bridges = [marks.vswitch_name(str(uuid.uuid4())) for _ in range(3)]
    operators, nobodys, anothers = bridges
    interface, its_end = (f"ft{each[3:]}" for each in (operators, nobodys))
    another = f"external_ids:{marks.VSWITCH_SITE}={'ffff' if site != 'ffff' else '0000'}"
    owner = f"external_ids:{marks.VSWITCH_OWNER}={uuid.uuid4()}"
    run("ip", "link", "add", interface, "type", "veth", "peer", "name", its_end)
    try:
        for bridge in bridges:
            vsctl(vswitch, "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev")
        vsctl(vswitch, "add-port", operators, interface)
        vsctl(vswitch, "set", "Bridge", nobodys, owner)
        for table in ("Bridge", "Port", "Interface"):
            vsctl(vswitch, "set", table, anothers, another, owner)
        run("ip", "link", "set", operators, "up")
        run("ip", "address", "add", f"{LOCAL}/24", "dev", operators)
        yield interface, operators
    finally:
        for bridge in bridges:
            vsctl(vswitch, "--if-exists", "del-br", bridge)
        run("ip", "link", "delete", interface)


def unrecorded(cloud: Cloud, kind: NetworkType, interface: str | None) -> Network:
    """A network that Open vSwitch carries and that no record knows of."""
    network = Network(
        id=str(uuid.uuid4()),
        tenant_id=str(uuid.uuid4()),
        name="stray",
        type=kind,
        driver=NetworkDriver.OPENVSWITCH,
        segment_id=3977,
        physical_interface=interface,
        mtu=1458,
        zone=65535,
        anchor_host=cloud.world.store.host,
    )
    peers = [PEER] if kind is NetworkType.GRE else []
    cloud.world.fabric.realize_segment(network, peers, LOCAL)
    return network


def test_strays_are_removed_and_what_is_recorded_or_others_is_not(
    cloud: Cloud, vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTY_AUDIT_GRACE", "0")
    store, fabric = cloud.world.store, cloud.world.fabric
    with other_peoples(vswitch, cloud.world.site) as (interface, operators):
        before = cloud.inventory()
        rows = {name: vsctl(vswitch, "list", name) for name in ("Bridge", "Port")}
        recorded = cloud.json(
            "network", "create", "kept", "--type", "gre", "--cidr", "10.77.8.0/24"
        )
        kept = store.networks.get(recorded["id"])
        gre = unrecorded(cloud, NetworkType.GRE, None)
        vlan = unrecorded(cloud, NetworkType.VLAN, interface)
        # Of what is recorded, something is gone: that is told, and nothing for a fix.
        missing = [
            part
            for part in fabric.parts_of_network(kept, [], None)
            if part.kind == vswitch_inventory.PORT
        ]
        for part in missing:
            fabric.remove(part)

        fixed = audit(cloud, "--fix", code=ASTRAY if missing else REMOVED)
        strange = {
            ("vswitch bridge", marks.vswitch_name(gre.id), gre.id),
            ("vswitch port", marks.vswitch_tunnel_name(gre.id, PEER), gre.id),
        }
        for network in (gre, vlan):
            outer, inner = marks.vswitch_cable_names(network.id)
            strange.add(("vswitch port", inner, network.id))
            for link in (outer, inner, marks.bridge_name(network.id)):
                strange.add(("link", link, network.id))
        found = {(thing["kind"], thing["name"], thing["owner"]) for thing in fixed["astray"]}
        assert found == strange | {part.identity for part in missing}
        assert len(fixed["removed"]) == len(strange)
        assert vsctl(vswitch, "list-ports", operators).split() == [interface]
        cloud.fifty("network", "delete", "kept")
        assert differences(before, cloud.inventory()) == []
        assert rows == {name: vsctl(vswitch, "list", name) for name in ("Bridge", "Port")}
