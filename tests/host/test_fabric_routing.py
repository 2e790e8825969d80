"""Routers, what is outside of them, and metadata: by packets and by what guests are told."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import run_in
from blocks.resources import FirewallRule, Router
from tests.host.fabric_lab import ANY_EGRESS, Guest, Lab, Net, Wire, ip, lab_at, tcp_connects

pytestmark = pytest.mark.host

OPEN = (ANY_EGRESS, FirewallRule(direction="ingress"))
METADATA = "169.254.169.254"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


def guest(lab: Lab, net: Net, last: int, via: int | None = 1) -> Guest:
    """A guest with an address and, by default, a route to its router."""
    made = lab.guest(net, last, OPEN)
    made.configure(net.subnet.cidr[via] if via else None)
    return made


def outside_of(lab: Lab, outside: Literal["closed", "uplink"] = "closed") -> Net:
    """An external network with its far end."""
    net = lab.net("198.51.100.0/24", external=True, outside=outside)
    lab.fabric.realize_outside(net.network, net.subnet)
    return net


def connected(lab: Lab, *nets: Net, outside: Net, snat: bool = True) -> Router:
    """A router with its legs and its gateway."""
    router = lab.router(*nets, outside=outside, snat=snat)
    lab.fabric.realize_router(router)
    lab.fabric.connect_outside(router)
    return router


def fetch(guest: Guest, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and content of a metadata path, asked for as it is given."""

    def inside() -> bytes:
        with socket.create_connection((METADATA, 80), 10) as http:
            http.sendall(f"{method} {path} HTTP/1.1\r\nHost: {METADATA}\r\n\r\n".encode())
            return b"".join(iter(lambda: http.recv(65536), b""))

    answer = run_in(guest.namespace, inside)
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def test_the_outside_sees_the_gateways_address_only(lab: Lab) -> None:
    net, outside = lab.net(), outside_of(lab)
    connected(lab, net, outside=outside)
    client = guest(lab, net, 11)
    far = marks.outside_namespace(outside.network.id)
    wire = Wire(far, marks.dhcp_leg_name(outside.network.id))
    assert client.pings("198.51.100.1")
    heard = wire.until(socket.inet_aton("198.51.100.10") + socket.inet_aton("198.51.100.1"))
    assert not any(socket.inet_aton(str(client.address)) in frame for frame in heard)
    wire.close()
    # Nothing is behind it.
    assert not client.pings("203.0.113.1")


def test_the_outside_does_not_come_in(lab: Lab) -> None:
    net, outside = lab.net(), outside_of(lab)
    router = connected(lab, net, outside=outside)
    client = guest(lab, net, 11)
    far = marks.outside_namespace(outside.network.id)
    ip("-n", far, "route", "add", "10.5.0.0/24", "via", "198.51.100.10")
    ping = ["ping", "-n", "-c", "1", "-W", "1", str(client.address)]

    def comes_in() -> bool:
        done = run_in(far, lambda: subprocess.run(ping, capture_output=True, check=False))
        return done.returncode == 0

    assert not comes_in()
    assert client.pings("198.51.100.1")
    # Without translation it is a router like any other.
    lab.fabric.connect_outside(router.model_copy(update={"snat": False}))
    assert comes_in()


def test_networks_of_one_router_reach_each_other(lab: Lab) -> None:
    left, right = lab.net("10.5.0.0/24"), lab.net("10.6.0.0/24")
    alone = lab.net("10.7.0.0/24")
    router = lab.router(left, right)
    lab.fabric.realize_router(router)
    here, there, far = guest(lab, left, 11), guest(lab, right, 12), guest(lab, alone, 13)
    assert here.pings(there.address)
    assert tcp_connects(there, here, 80)
    assert not here.pings(far.address)
    # A leg that the router no longer has.
    lab.fabric.realize_router(router.model_copy(update={"legs": router.legs[:1]}))
    assert not here.pings(there.address)
    assert here.pings("10.5.0.1")


def test_equal_networks_behind_two_routers_share_an_outside(lab: Lab) -> None:
    outside = outside_of(lab)
    left, right = lab.net(), lab.net()
    routers = [lab.router(net, outside=outside) for net in (left, right)]
    gateway = routers[1].gateway
    assert gateway
    other = gateway.port.addresses[0].model_copy(update={"address": outside.subnet.cidr[20]})
    port = gateway.port.model_copy(update={"addresses": (other,)})
    routers[1] = routers[1].model_copy(
        update={"gateway": gateway.model_copy(update={"port": port})}
    )
    for router in routers:
        lab.fabric.realize_router(router)
        lab.fabric.connect_outside(router)
    here, there = guest(lab, left, 11), guest(lab, right, 11)
    assert here.pings("198.51.100.1")
    assert there.pings("198.51.100.1")
    lab.fabric.remove_router(routers[0].id)
    assert not here.pings("198.51.100.1")
    assert there.pings("198.51.100.1")


def test_disconnecting_takes_the_outside_away_and_no_more(lab: Lab) -> None:
    left, right = lab.net("10.5.0.0/24"), lab.net("10.6.0.0/24")
    outside = outside_of(lab)
    router = connected(lab, left, right, outside=outside)
    here, there = guest(lab, left, 11), guest(lab, right, 12)
    assert here.pings("198.51.100.1")
    lab.fabric.realize_router(router)
    assert here.pings("198.51.100.1"), "the router again, and it keeps its gateway"
    lab.fabric.disconnect_outside(router)
    with changes.collecting() as made:
        lab.fabric.disconnect_outside(router)
    assert made == []
    assert not here.pings("198.51.100.1")
    assert here.pings(there.address)
    lab.fabric.connect_outside(router)
    assert here.pings("198.51.100.1")


def test_neighbours_are_told_of_the_gateways_address(lab: Lab) -> None:
    net, outside = lab.net(), outside_of(lab)
    router = lab.router(net, outside=outside)
    lab.fabric.realize_router(router)
    wire = Wire(
        marks.outside_namespace(outside.network.id), marks.dhcp_leg_name(outside.network.id)
    )
    lab.fabric.connect_outside(router)
    own = socket.inet_aton("198.51.100.10")
    assert router.gateway
    assert router.gateway.port.mac
    mac = bytes.fromhex(router.gateway.port.mac.replace(":", ""))
    wire.until(mac + own)
    wire.close()


def test_a_router_without_a_gateway_cannot_be_connected(lab: Lab) -> None:
    router = lab.router(lab.net())
    lab.fabric.realize_router(router)
    with pytest.raises(InvalidRequest, match="no gateway"):
        lab.fabric.connect_outside(router)


def test_an_uplink_is_masqueraded_and_fenced(lab: Lab) -> None:
    """This host forwards; who is beyond it sees its address; its own services are closed."""
    world = f"lab-{lab.site}-world"
    ip("netns", "add", world)
    try:
        ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", world)
        ip("address", "add", "192.0.2.1/24", "dev", "up0")
        ip("link", "set", "up0", "up")
        ip("-n", world, "address", "add", "192.0.2.9/24", "dev", "eth0")
        ip("-n", world, "link", "set", "eth0", "up")
        net, outside = lab.net(), outside_of(lab, "uplink")
        connected(lab, net, outside=outside)
        client = guest(lab, net, 11)
        wire = Wire(world, "eth0")
        assert client.pings("192.0.2.9")
        wire.until(socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.9"))
        wire.close()
        assert client.pings("198.51.100.1")

        with socket.create_server(("0.0.0.0", 8022)):
            for address in ("198.51.100.1", "192.0.2.1"):
                assert not connects(client, address, 8022)
            run_in(world, lambda: socket.create_connection(("192.0.2.1", 8022), 5).close())
        # From the world beyond, nobody comes in.
        ip("-n", world, "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
        ping = ["ping", "-n", "-c", "1", "-W", "1", "198.51.100.10"]
        done = run_in(world, lambda: subprocess.run(ping, capture_output=True, check=False))
        assert done.returncode != 0

        with changes.collecting() as made:
            lab.fabric.realize_outside(outside.network, outside.subnet)
        assert made == []
        lab.fabric.remove_outside(outside.network)
        assert not client.pings("192.0.2.9")
        tables = ["nft", "list", "tables", "ip"]
        listed = subprocess.run(tables, capture_output=True, text=True, check=True)
        assert outside.network.id not in listed.stdout
    finally:
        ip("netns", "delete", world)


def connects(client: Guest, address: str, port: int) -> bool:
    """Whether a TCP connection to an address comes about."""

    def inside() -> bool:
        try:
            socket.create_connection((address, port), 1.5).close()
        except OSError:
            return False
        return True

    return run_in(client.namespace, inside)


def test_an_outside_needs_a_gateway_address(lab: Lab) -> None:
    net = lab.net(external=True)
    bare = net.subnet.model_copy(update={"gateway": None})
    with pytest.raises(InvalidRequest, match="no gateway address"):
        lab.fabric.realize_outside(net.network, bare)
    theirs = net.network.model_copy(update={"outside": "uplink", "physical_bridge": "br0"})
    with pytest.raises(InvalidRequest, match="operator"):
        lab.fabric.realize_outside(theirs, net.subnet)


def told(lab: Lab, guest: Guest, name: str) -> None:
    """Metadata for a guest, with its name in every document."""
    meta = {
        "uuid": f"id-of-{name}",
        "hostname": name,
        "public_keys": {"laptop": f"ssh-ed25519 AAAA {name}"},
    }
    lab.fabric.put_metadata(
        guest.binding,
        {
            "meta_data.json": json.dumps(meta).encode(),
            "network_data.json": b"{}",
            "user_data": f"#!/bin/sh\necho {name}\n".encode(),
        },
    )


@pytest.mark.parametrize("way", ["by DHCP's route", "by the router"])
def test_each_guest_is_told_about_itself_only(lab: Lab, way: str) -> None:
    net = lab.served()
    lab.fabric.realize_router(lab.router(net))
    lab.fabric.serve_metadata(net.network)
    guests = {name: guest(lab, net, last) for name, last in (("one", 11), ("two", 12))}
    for name, each in guests.items():
        told(lab, each, name)
        if way == "by DHCP's route":
            ip("-n", each.namespace, "route", "add", METADATA, "via", "10.5.0.2")
    for name, each in guests.items():
        status, content = fetch(each, "/openstack/latest/meta_data.json")
        assert (status, json.loads(content)["hostname"]) == (200, name)
        assert fetch(each, "/openstack/latest/user_data")[1].endswith(f"{name}\n".encode())
        assert fetch(each, "/latest/meta-data/instance-id") == (200, f"id-of-{name}".encode())
        assert fetch(each, "/latest/meta-data/local-ipv4") == (200, str(each.address).encode())


def test_networks_of_one_router_have_their_own_metadata(lab: Lab) -> None:
    """Asked by the router, where the question could go either way."""
    nets = {"left": lab.served("10.5.0.0/24"), "right": lab.served("10.6.0.0/24")}
    lab.fabric.realize_router(lab.router(*nets.values()))
    for name, net in nets.items():
        lab.fabric.serve_metadata(net.network)
        each = guest(lab, net, 11)
        told(lab, each, name)
        assert fetch(each, "/latest/meta-data/hostname") == (200, name.encode())
        assert fetch(each, "/latest/meta-data/local-ipv4") == (200, str(each.address).encode())


def test_metadata_is_for_asking_and_for_nothing_else(lab: Lab) -> None:
    net = lab.served()
    lab.fabric.serve_metadata(net.network)
    asker, other = guest(lab, net, 11, via=2), guest(lab, net, 12, via=2)
    told(lab, asker, "one")
    secret = lab.directory / "networks" / net.network.id / "metadata" / "secret"
    secret.write_text("secret")
    assert fetch(asker, "/openstack")[1].split()[-1] == b"latest"
    assert fetch(asker, "/openstack/latest/")[1].split() == [
        b"meta_data.json",
        b"network_data.json",
        b"password",
        b"user_data",
    ]
    assert fetch(asker, "/openstack/latest/password") == (200, b"")
    for path in (
        "/openstack/latest/vendor_data.json",
        "/openstack/latest/../../secret",
        "/openstack/latest/%2e%2e/secret",
        "/openstack/latest//etc/passwd",
        "/10.5.0.11/meta_data.json",
        "/latest/meta-data/../../10.5.0.11/user_data",
    ):
        assert fetch(asker, path)[0] == 404, path
    assert fetch(asker, "/openstack/latest/user_data", "PUT")[0] == 405
    assert fetch(other, "/openstack/latest/meta_data.json")[0] == 404
    lab.fabric.drop_metadata(asker.binding.port)
    assert fetch(asker, "/openstack/latest/user_data")[0] == 404


def test_the_metadata_server_has_given_everything_up(lab: Lab) -> None:
    net = lab.served()
    lab.fabric.serve_metadata(net.network)
    pid = int((lab.directory / "networks" / net.network.id / "metadata" / "server.pid").read_text())
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "CapEff:\t0000000000000000" in status
    assert str(Path(f"/proc/{pid}/root").readlink()).endswith("/metadata/guests")


def test_a_guest_that_only_holds_connections_keeps_nobody_waiting(lab: Lab) -> None:
    net = lab.served()
    lab.fabric.serve_metadata(net.network)
    holder, asker = guest(lab, net, 11, via=2), guest(lab, net, 12, via=2)
    told(lab, asker, "two")

    def hold() -> list[socket.socket]:
        return [socket.create_connection((METADATA, 80), 5) for _ in range(40)]

    held = run_in(holder.namespace, hold)
    start = time.monotonic()
    assert fetch(asker, "/latest/meta-data/hostname") == (200, b"two")
    assert time.monotonic() - start < 5
    for each in held:
        each.close()


def test_unknown_documents_are_refused(lab: Lab) -> None:
    net = lab.served()
    with pytest.raises(InvalidRequest, match="no such metadata"):
        lab.fabric.put_metadata(lab.binding(net, 11), {"../x": b""})
