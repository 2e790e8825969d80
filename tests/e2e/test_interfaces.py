"""Several interfaces of a guest: their order, their addresses, those plugged in later.

And what of their networks is broken by hand, told, and repaired while the rest goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from blocks import changes, marks
from blocks.fabric import NetworkFabric
from blocks.hypervisor import LibvirtHost
from blocks.resources import Network, PortKind
from blocks.state.tables import NetworkRow
from blocks.volumes import VolumePool
from tasks.interface_change import attach_interface, detach_interface
from tasks.volume_change import attach_volume, detach_volume
from tests.cloud import Cloud
from tests.forked import forked
from tests.inventory import differences
from tests.prefect_api import api
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

STATIC, SECOND = "without-dhcp", "second"
OPTIONS = (
    *("--cidr", "10.88.2.0/24"),
    *("--pool", "10.88.2.40-10.88.2.40", "--pool", "10.88.2.80-10.88.2.89"),
    *("--host-route", "10.99.0.0/16=10.88.2.254", "--dns", "192.0.2.54"),
)
#: As the micro guest's init does it, and whoever plugs a NIC into such a guest.
DHCP_CLIENT = "ip link set {0} up; udhcpc -n -q -i {0} -s /lib/micro/udhcpc"


@pytest.fixture(scope="module", name="cloud")
def _cloud(site_cloud: Cloud) -> Iterator[Cloud]:
    """A network without DHCP and one with it, and a VM in both and in `lab`, in this order."""
    with forked(site_cloud) as cloud:
        cloud.fifty(
            *("network", "create", STATIC, "--cidr", "10.88.1.0/24", "--no-dhcp"),
            *("--host-route", "10.98.0.0/16=10.88.1.254", "--dns", "192.0.2.53"),
        )
        cloud.fifty("network", "create", SECOND, *OPTIONS)
        three = (f"{STATIC}:10.88.1.77", "lab", f"{SECOND}:10.88.2.9")
        cloud.fifty(
            *("vm", "create", "many", "--image", "micro", "--flavor", "tiny"),
            *(word for network in three for word in ("--network", network)),
        )
        cloud.fifty(
            *("vm", "create", "few", "--image", "micro", "--flavor", "tiny"),
            *("--network", STATIC),
        )
        yield cloud
        cloud.delete(["many", "few"])
        for name in (STATIC, SECOND):
            cloud.fifty("network", "delete", name)


def network_of(cloud: Cloud, name: str) -> Network:
    """A network's record."""
    store = cloud.world.store
    return store.networks.find(store.tenants.id_of("default"), name)


def addresses(cloud: Cloud, name: str) -> dict[str, str]:
    """The guest's own view: each interface's first address with its prefix length."""
    found: dict[str, str] = {}
    for line in cloud.ssh(name, "ip -4 -o address show").splitlines():
        _number, interface, _inet, address, *_rest = line.split()
        found.setdefault(interface, address)
    return {interface: address for interface, address in found.items() if interface != "lo"}


def pings(cloud: Cloud, name: str, target: str, interface: str) -> bool:
    said = cloud.ssh(name, f"ping -c 2 -W 3 -I {interface} {target} || true")
    return ", 0% packet loss" in said


def test_interfaces_in_the_order_and_at_the_addresses_asked_for(cloud: Cloud) -> None:
    in_lab = cloud.ports("many")[1].addresses[0].address
    assert addresses(cloud, "many") == {
        "eth0": "10.88.1.77/24",
        "eth1": f"{in_lab}/24",
        "eth2": "10.88.2.9/24",
    }
    shown = cloud.json("vm", "show", "many")["addresses"]
    assert [one["network"] for one in shown] == [STATIC, "lab", SECOND]


def test_without_dhcp_the_config_drive_tells_all(cloud: Cloud) -> None:
    """Route and name server of the first network are the guest's; its neighbour is reached."""
    routes = cloud.ssh("many", "ip route show default").splitlines()
    assert routes[0].split()[:5] == ["default", "via", "10.88.1.1", "dev", "eth0"]
    assert "10.98.0.0/16 via 10.88.1.254" in cloud.ssh("many", "ip route show dev eth0")
    assert "nameserver 192.0.2.53" in cloud.ssh("many", "cat /etc/resolv.conf")
    [port] = cloud.ports("few")
    assert pings(cloud, "many", str(port.addresses[0].address), "eth0")


def test_dhcp_tells_a_guest_routes_name_server_and_mtu(cloud: Cloud) -> None:
    routes = cloud.ssh("many", "ip route show dev eth2")
    assert "10.99.0.0/16 via 10.88.2.254" in routes
    assert "default via 10.88.2.1" in routes
    assert "nameserver 192.0.2.54" in cloud.ssh("many", "cat /etc/resolv.conf")
    mtu = cloud.ssh("many", "cat /sys/class/net/eth2/mtu").strip()
    assert mtu == str(network_of(cloud, SECOND).mtu)
    assert int(mtu) < 1500


def test_an_interface_plugged_in_and_out_again(cloud: Cloud) -> None:
    """The guest finds it, gets its address by DHCP there and is reached; after a stop and a
    start, too. Then it is gone.
    """
    world, build = cloud.world, cloud.build("few")
    [first] = cloud.ports("few")
    cloud.fifty("vm", "attach-interface", "few", SECOND)
    _first, port = cloud.ports("few")
    address = str(port.addresses[0].address)
    # Of the second pool: the network's own DHCP port has the only one of the first.
    assert (address, port.network_id) == ("10.88.2.80", network_of(cloud, SECOND).id)
    token = world.store.leases.acquire(build.id, "test")
    try:
        with changes.collecting() as again:
            groups = first.security_groups
            attach_interface(world, build, network_of(cloud, SECOND), port.id, groups)
    finally:
        world.store.leases.release(build.id, token)
    assert again == []
    assert cloud.json("network", "show", "--check")["clean"]
    eventually(lambda: "eth1" in cloud.ssh("few", "ls /sys/class/net"), "eth1 in the guest")
    cloud.ssh("few", DHCP_CLIENT.format("eth1"))
    assert addresses(cloud, "few")["eth1"] == f"{address}/24"
    assert pings(cloud, "few", "10.88.2.9", "eth1")
    assert address in picture()
    world.hypervisor.shutdown(build.id)
    eventually(lambda: world.hypervisor.state(build.id) == "shutoff", "guest that is off")
    # What libvirt has of it is not what a start goes by.
    world.hypervisor.undefine(build.id)
    cloud.fifty("vm", "start", "few")
    cloud.ssh("few", DHCP_CLIENT.format("eth1"))
    assert addresses(cloud, "few")["eth1"] == f"{address}/24"
    cloud.fifty("vm", "detach-interface", "few", address)
    assert "eth1" not in cloud.ssh("few", "ls /sys/class/net")
    assert [one.id for one in cloud.ports("few")] == [first.id]
    assert address not in picture()
    assert cloud.json("audit")["clean"]


def test_a_change_that_was_stopped_is_done_by_the_same_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before QEMU has the interface, and before the tap is gone."""
    world, build, network = cloud.world, cloud.build("few"), network_of(cloud, SECOND)
    [first] = cloud.ports("few")
    port_id, token = str(uuid.uuid4()), world.store.leases.acquire(build.id, "test")
    attach = partial(attach_interface, world, build, network, port_id, first.security_groups)
    detach = partial(detach_interface, world, build, port_id)
    try:
        stop_in(monkeypatch, LibvirtHost, "attach_interface", attach)
        assert [one.id for one in cloud.ports("few")] == [first.id, port_id]
        port = attach()
        assert world.fabric.carrier(port)
        stop_in(monkeypatch, NetworkFabric, "unplug", detach)
        assert [one.id for one in cloud.ports("few")] == [first.id, port_id]
        for _twice in range(2):
            detach()
    finally:
        world.store.leases.release(build.id, token)
    assert [one.id for one in cloud.ports("few")] == [first.id]
    assert cloud.json("network", "show", "--check")["clean"]
    assert cloud.json("audit")["clean"]


def test_a_volume_plugged_in_and_out_again(cloud: Cloud) -> None:
    """A new one is in the guest; unplugged it stays the VM's, through a stop and a start."""
    before, claimed = cloud.inventory(), claimed_disk(cloud)
    told = cloud.json("vm", "attach-volume", "few", "--size", "1")
    [volume] = told["volumes"]
    assert (volume["device"], claimed_disk(cloud)) == ("vdb", claimed + 1)
    disk = eventually(lambda: disk_of(cloud, volume["id"]), "the disk in the guest")
    cloud.ssh("few", f"echo kept | dd of={disk} conv=fsync 2>/dev/null")
    assert cloud.json("audit")["clean"]

    [detached] = cloud.json("vm", "detach-volume", "few", "vdb")["volumes"]
    assert (detached["id"], detached["device"]) == (volume["id"], "")
    assert claimed_disk(cloud) == claimed + 1
    assert not disk_of(cloud, volume["id"])
    world, build = cloud.world, cloud.build("few")
    world.hypervisor.destroy(build.id)
    cloud.fifty("vm", "start", "few")
    assert not disk_of(cloud, volume["id"])
    assert "detached, 1 GiB" in cloud.fifty("vm", "show", "few")

    cloud.fifty("vm", "attach-volume", "few", "--volume", volume["id"])
    disk = eventually(lambda: disk_of(cloud, volume["id"]), "the disk in the guest")
    assert cloud.ssh("few", f"head -n 1 {disk}") == "kept\n"
    world.hypervisor.destroy(build.id)
    cloud.fifty("vm", "start", "few")
    # It may have another name now: its serial number is the same.
    assert cloud.ssh("few", f"head -n 1 {disk_of(cloud, volume['id'])}") == "kept\n"
    for words in (("attach-volume", "few"), ("detach-volume", "few", "vdc")):
        cloud.fifty("vm", *words, code=1)
    cloud.fifty("vm", "detach-volume", "few", volume["id"], "--delete")
    assert not Path(volume["path"]).exists()
    assert claimed_disk(cloud) == claimed
    # A host whose disk is given out takes none.
    [host] = cloud.world.store.hosts.list()
    cloud.world.store.hosts.report(host.model_copy(update={"disk_gib": 1}))
    told = cloud.json("vm", "attach-volume", "few", "--size", "1", code=1)
    cloud.world.store.hosts.report(host)
    assert "has not enough left" in told["message"]
    assert claimed_disk(cloud) == claimed
    changed = differences(before, cloud.inventory())
    # Its QEMU is another one now: it was started again.
    assert [line for line in changed if "qemu-system" not in line] == []
    assert cloud.json("audit")["clean"]
    assert cloud.json("audit")["clean"]


def disk_of(cloud: Cloud, volume_id: str) -> str:
    """The guest's own name for a volume, found by its serial number; empty where it has none."""
    asked = f"grep -lxF {volume_id[:20]} /sys/block/*/serial || true"
    found = cloud.ssh("few", asked).split("/")
    return f"/dev/{found[3]}" if len(found) > 1 else ""


def claimed_disk(cloud: Cloud) -> int:
    """What `few` claims of its host's disk, in GiB."""
    claim = cloud.world.store.hosts.claim_of(cloud.build("few").id)
    assert claim is not None
    return int(claim["disk_gib"])


def test_a_volume_that_was_stopped_halfway_is_done_by_the_same_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before QEMU has the disk, and before its file is gone."""
    world, build = cloud.world, cloud.build("few")
    before = cloud.inventory()
    volume_id, token = str(uuid.uuid4()), world.store.leases.acquire(build.id, "test")
    attach = partial(attach_volume, world, build, volume_id, 1)
    detach = partial(detach_volume, world, build, volume_id, delete=True)
    try:
        stop_in(monkeypatch, LibvirtHost, "attach_disk", attach)
        for _twice in range(2):
            assert attach().device == "vdb"
        stop_in(monkeypatch, VolumePool, "delete", detach)
        for _twice in range(2):
            detach()
    finally:
        world.store.leases.release(build.id, token)
    assert differences(before, cloud.inventory()) == []


def stop_in(
    monkeypatch: pytest.MonkeyPatch, kind: type, method: str, change: Callable[[], object]
) -> None:
    """Make a change stop where it comes to this method, as at a kill: nothing is cleaned up."""

    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kind, method, stop)
        change()


def picture() -> str:
    """The networks of the tenant `default` as the UI shows them."""
    wanted = {"artifacts": {"key": {"any_": ["topology-default"]}}}
    [found] = api("POST", "/artifacts/latest/filter", json=wanted).json()
    return str(found["data"])


def test_what_is_broken_is_told_and_repaired_and_the_rest_goes_on(cloud: Cloud) -> None:
    """DHCP and the router's leg of one network, the tap in another, the rules of all."""
    found = cloud.json("network", "show", "--check")
    assert found["clean"], json.dumps(found["networks"], indent=1)
    [neighbour] = cloud.ports("few")
    cloud.ssh(
        "many",
        f"ping -I eth0 {neighbour.addresses[0].address} >/tmp/ping 2>&1 </dev/null & "
        "echo $! >/tmp/ping.pid",
    )
    router = break_all(cloud)
    assert not pings(cloud, "many", router, "eth1")

    found = cloud.json("network", "show", "--check", code=3)
    told = {one["name"]: json.dumps(one) for one in found["networks"]}
    assert "dnsmasq does not run" in told["lab"]
    assert marks.router_leg_name(leg_of(cloud)) in told["lab"]
    assert str(cloud.ports("many")[2].tap) in told[SECOND]
    assert "10.88.2.9" in told[SECOND]
    assert marks.firewall_table(cloud.world.store.site) in told[STATIC]
    assert "few" in told[STATIC]

    done = cloud.json("reconcile")["reconciled"]
    assert {one["name"] for one in done} >= {"lab", SECOND, STATIC}
    assert {one["state"] for one in done} == {"complete"}
    found = cloud.json("network", "show", "--check")
    assert found["clean"], json.dumps(found["networks"], indent=1)
    assert cloud.json("reconcile")["reconciled"] == []

    cloud.ssh("many", "kill -INT $(cat /tmp/ping.pid)")
    said = eventually(lambda: _with_loss(cloud.ssh("many", "cat /tmp/ping")), "the ping's end")
    assert ", 0% packet loss" in said, said
    assert pings(cloud, "many", router, "eth1")
    for interface, address in (("eth1", None), ("eth2", "10.88.2.9/24")):
        cloud.ssh("many", DHCP_CLIENT.format(interface))
        assert address in (None, addresses(cloud, "many")[interface])
    assert cloud.json("audit")["clean"]


def test_ports_in_a_network_that_another_host_anchors_are_repaired_here(cloud: Cloud) -> None:
    second = network_of(cloud, SECOND)
    tap = str(cloud.ports("many")[2].tap)
    moved = update(NetworkRow).where(NetworkRow.id == second.id)
    with cloud.world.store.database.write() as session:
        session.execute(moved.values(anchor_host="elsewhere"))
    try:
        assert cloud.json("network", "show", SECOND, "--check")["clean"]
        kill_dnsmasq(cloud, SECOND)
        subprocess.run(["ip", "link", "set", tap, "mtu", "1300"], check=True)
        found = cloud.json("network", "show", SECOND, "--check", code=3)
        assert found["networks"][0]["differences"] is None
        [done] = cloud.json("reconcile")["reconciled"]
        assert (done["name"], done["state"]) == (SECOND, "complete")
        assert cloud.json("network", "show", SECOND, "--check")["clean"]
        assert cloud.json("reconcile")["reconciled"] == []
    finally:
        with cloud.world.store.database.write() as session:
            session.execute(moved.values(anchor_host=second.anchor_host))
    assert cloud.json("network", "show", SECOND, "--check")["clean"]


def test_the_same_network_created_again_is_repaired(cloud: Cloud) -> None:
    before = network_of(cloud, SECOND)
    kill_dnsmasq(cloud, SECOND)
    assert "dnsmasq does not run" in cloud.fifty("network", "show", SECOND, "--check", code=3)
    again = cloud.json("network", "create", SECOND, *OPTIONS)
    assert again["id"] == before.id
    assert cloud.json("network", "show", SECOND, "--check")["clean"]
    # Other fields under its name are another request, and the name is taken.
    refusal = cloud.json("network", "create", SECOND, *OPTIONS[:2], code=1)
    assert "is there already" in refusal["message"]


def _with_loss(text: str) -> str:
    return text if "packet loss" in text else ""


def leg_of(cloud: Cloud) -> str:
    """The id of the router's port in `lab`."""
    lab = network_of(cloud, "lab")
    ports = cloud.world.store.ports
    [leg] = ports.list(kind=PortKind.ROUTER_INTERFACE, network_id=lab.id)
    return leg.id


def break_all(cloud: Cloud) -> str:
    """Break what a careless person breaks; the address of the router in `lab`."""
    store = cloud.world.store
    kill_dnsmasq(cloud, "lab")
    tap = cloud.ports("many")[2].tap
    leg = store.ports.get(leg_of(cloud))
    namespace = marks.router_namespace(leg.device_id or "")
    for command in (
        f"ip link delete {tap}",
        f"ip -n {namespace} link delete {marks.router_leg_name(leg.id)}",
        *(f"nft delete {table}" for table in tables(cloud)),
    ):
        subprocess.run(command.split(), check=True)
    assert tables(cloud) == []
    return str(leg.addresses[0].address)


def kill_dnsmasq(cloud: Cloud, network: str) -> None:
    """Kill a network's DHCP server."""
    files = cloud.home / "networks" / network_of(cloud, network).id
    os.kill(int((files / "dhcp" / "dnsmasq.pid").read_text().split()[0]), signal.SIGKILL)


def tables(cloud: Cloud) -> list[str]:
    """The firewall's tables, as nft(8) lists them."""
    ours = marks.firewall_table(cloud.world.store.site)
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.split()[-1] == ours]
