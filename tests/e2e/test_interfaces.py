"""Several interfaces of a guest: their order, their addresses, and those plugged in later."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from tasks.interface_change import attach_interface, detach_interface
from tests.cloud import Cloud
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

STATIC, SECOND = "without-dhcp", "second"


@pytest.fixture(scope="module", name="cloud")
def _cloud(site_cloud: Cloud) -> Iterator[Cloud]:
    """A network without DHCP and one with it, and a VM in both and in `lab`, in this order."""
    create = ("network", "create")
    site_cloud.fifty(
        *(*create, STATIC, "--cidr", "10.88.1.0/24", "--no-dhcp", "--dns", "192.0.2.53")
    )
    site_cloud.fifty(*create, SECOND, "--cidr", "10.88.2.0/24")
    site_cloud.fifty(
        *("vm", "create", "many", "--image", "micro", "--flavor", "tiny"),
        *(
            "--network",
            f"{STATIC}:10.88.1.77",
            "--network",
            "lab",
            "--network",
            f"{SECOND}:10.88.2.9",
        ),
    )
    site_cloud.fifty(
        *("vm", "create", "few", "--image", "micro", "--flavor", "tiny"),
        *("--network", STATIC),
    )
    yield site_cloud
    site_cloud.delete(["many", "few"])
    for name in (STATIC, SECOND):
        site_cloud.fifty("network", "delete", name)


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
    assert "nameserver 192.0.2.53" in cloud.ssh("many", "cat /etc/resolv.conf")
    [port] = cloud.ports("few")
    assert pings(cloud, "many", str(port.addresses[0].address), "eth0")


def test_no_differences_from_the_record(cloud: Cloud) -> None:
    found = cloud.json("network", "show", "--check")
    assert found["clean"], json.dumps(found["networks"], indent=1)


def test_an_interface_plugged_in_and_out_again(cloud: Cloud) -> None:
    """The guest finds it, gets its address by DHCP there and is reached; then it is gone."""
    world = cloud.world
    build = cloud.build("few")
    [network] = [one for one in world.store.networks.list() if one.name == SECOND]
    [first] = cloud.ports("few")
    port_id = str(uuid.uuid4())
    token = world.store.leases.acquire(build.id, "test")
    try:
        for _twice in range(2):
            port = attach_interface(world, build, network, port_id, first.security_groups)
        assert len(cloud.ports("few")) == 2
        eventually(lambda: "eth1" in cloud.ssh("few", "ls /sys/class/net"), "eth1 in the guest")
        cloud.ssh("few", "ip link set eth1 up; udhcpc -n -q -i eth1 -s /lib/micro/udhcpc")
        assert addresses(cloud, "few")["eth1"] == f"{port.addresses[0].address}/24"
        assert pings(cloud, "few", "10.88.2.9", "eth1")
        for _twice in range(2):
            detach_interface(world, build, port_id)
    finally:
        world.store.leases.release(build.id, token)
    assert "eth1" not in cloud.ssh("few", "ls /sys/class/net")
    assert [one.id for one in cloud.ports("few")] == [first.id]
    assert cloud.json("audit")["clean"]
