"""DHCP and DNS of a network, asked by a real client (busybox) in a guest."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import run_in
from deployments import processes
from tests.host.fabric_lab import Guest, Lab, Net, ip, lab_at, wait_for

pytestmark = pytest.mark.host

SCRIPT = """#!/bin/sh
[ "$1" = bound ] && env > %s
exit 0
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


def take_lease(lab: Lab, guest: Guest, tries: int = 20) -> dict[str, str]:
    """What a DHCP client in the guest is told; nothing if it gets no lease."""
    said, script = lab.directory / "said", lab.directory / "script"
    said.unlink(missing_ok=True)
    script.write_text(SCRIPT % said)
    script.chmod(0o755)
    options = [word for name in ("mtu", "121", "hostname") for word in ("-O", name)]
    guest.run(
        *("busybox", "udhcpc", "-f", "-n", "-q", "-t", str(tries), "-T", "1"),
        *("-i", "eth0", "-s", str(script), *options),
    )
    if not said.exists():
        return {}
    return dict(line.split("=", 1) for line in said.read_text().splitlines() if "=" in line)


def dnsmasq(lab: Lab, net: Net) -> list[int]:
    """The pids of the network's dnsmasq, by /proc."""
    home = str(lab.directory / "networks" / net.network.id)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except FileNotFoundError:
            continue
        if words[0].endswith("dnsmasq") and any(home in word for word in words):
            found.append(int(path.parent.name))
    return found


def ask_dns(guest: Guest, server: object, name: str) -> tuple[int, list[str]]:
    """The answer's code and addresses for a name (RFC 1035)."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + question + b"\0" + struct.pack("!2H", 1, 1)

    def inside() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(10)
            udp.sendto(query, (str(server), 53))
            return udp.recv(4096)

    answer = run_in(guest.namespace, inside)
    count = struct.unpack_from("!H", answer, 6)[0]
    addresses, rest = [], answer[len(query) :]
    for _ in range(count):
        length = struct.unpack_from("!H", rest, 10)[0]
        addresses.append(socket.inet_ntoa(rest[12 : 12 + length]))
        rest = rest[12 + length :]
    return answer[3] & 0xF, addresses


def test_a_guest_learns_all_it_needs(lab: Lab) -> None:
    net = lab.served(mtu=1450)
    guest = lab.guest(net, 11)
    lab.fabric.reserve(guest.binding)
    told = take_lease(lab, guest)
    assert told["ip"] == "10.5.0.11"
    assert told["mask"] == "24"
    assert told["router"] == "10.5.0.1"
    assert told["dns"] == "10.5.0.2"
    assert told["mtu"] == "1450"
    assert told["serverid"] == "10.5.0.2"
    assert told["lease"] == "86400"
    assert told["hostname"] == "vm11"
    assert told["staticroutes"] == "169.254.169.254/32 10.5.0.2 0.0.0.0/0 10.5.0.1"

    lease = lab.fabric.lease(guest.binding.port)
    assert lease is not None
    assert (lease.address, lease.mac, lease.host_name) == (guest.address, guest.mac, "vm11")
    assert lease.expires_at is not None
    assert 86000 < lease.expires_at.timestamp() - time.time() < 86500


def test_without_a_gateway_there_is_no_default_route(lab: Lab) -> None:
    net = lab.net()
    net.subnet = net.subnet.model_copy(update={"gateway": None, "dns": ("192.0.2.53",)})
    lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
    guest = lab.guest(net, 11)
    lab.fabric.reserve(guest.binding)
    told = take_lease(lab, guest)
    assert told["ip"] == "10.5.0.11"
    assert "router" not in told
    assert told["dns"] == "192.0.2.53"
    assert told["staticroutes"] == "169.254.169.254/32 10.5.0.2"


def test_only_ports_of_ours_get_an_address(lab: Lab) -> None:
    net = lab.served()
    stranger = lab.guest(net, 12)
    assert take_lease(lab, stranger, tries=2) == {}
    assert lab.fabric.lease(stranger.binding.port) is None
    lab.fabric.reserve(stranger.binding)
    assert take_lease(lab, stranger)["ip"] == "10.5.0.12"


def test_a_released_address_is_free_for_the_next(lab: Lab) -> None:
    net = lab.served()
    first = lab.guest(net, 11)
    lab.fabric.reserve(first.binding)
    assert take_lease(lab, first)["ip"] == "10.5.0.11"
    lab.fabric.release(first.binding.port)
    wait_for("the lease to end", lambda: lab.fabric.lease(first.binding.port) is None)

    second = lab.guest(net, 11)
    lab.fabric.reserve(second.binding)
    assert take_lease(lab, second)["ip"] == "10.5.0.11"
    assert take_lease(lab, first, tries=2) == {}
    assert len(dnsmasq(lab, net)) == 1
    with changes.collecting() as made:
        lab.fabric.release(first.binding.port)
    assert made == []


def test_names_of_the_network_resolve_and_no_others(lab: Lab) -> None:
    net = lab.served()
    asker, other = lab.guest(net, 11), lab.guest(net, 12)
    asker.configure()
    for guest in (asker, other):
        lab.fabric.reserve(guest.binding)
    found = (0, ["10.5.0.12"])
    wait_for("the name", lambda: ask_dns(asker, "10.5.0.2", "vm12.fifty.internal") == found)
    assert ask_dns(asker, "10.5.0.2", "vm12") == found
    code, addresses = ask_dns(asker, "10.5.0.2", "www.example.org")
    assert (code != 0, addresses) == (True, [])
    lab.fabric.release(other.binding.port)
    wait_for("the name to go", lambda: not ask_dns(asker, "10.5.0.2", "vm12.fifty.internal")[1])


def test_a_dead_server_is_started_again_and_knows_its_ports(lab: Lab) -> None:
    net = lab.served()
    guest = lab.guest(net, 11)
    lab.fabric.reserve(guest.binding)
    (pid,) = dnsmasq(lab, net)
    process = processes.identify(pid)
    assert process is not None
    os.kill(pid, signal.SIGKILL)
    # It has no command line any more before it lets its sockets go.
    assert processes.wait_for_end(process, 60)
    assert any("dnsmasq" in text for text in lab.fabric.prove(guest.binding))
    with changes.collecting() as made:
        lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
    assert len(made) == 1
    assert take_lease(lab, guest)["ip"] == "10.5.0.11"


def test_other_options_restart_the_server(lab: Lab) -> None:
    net = lab.served()
    guest = lab.guest(net, 11)
    lab.fabric.reserve(guest.binding)
    changed = net.subnet.model_copy(update={"dns": ("192.0.2.1", "192.0.2.2")})
    lab.fabric.serve_dhcp(net.network, changed, net.dhcp_port)
    assert len(dnsmasq(lab, net)) == 1
    assert take_lease(lab, guest)["dns"] == "192.0.2.1 192.0.2.2"


def test_without_dhcp_there_is_still_the_way_to_the_guests(lab: Lab) -> None:
    net = lab.served(dhcp=False)
    guest = lab.guest(net, 11)
    guest.configure()
    lab.fabric.reserve(guest.binding)
    assert dnsmasq(lab, net) == []
    assert lab.fabric.neighbour_answers(guest.binding.port, net.network, 10)
    namespace = marks.dhcp_namespace(net.network.id)
    assert "10.5.0.2/24" in ip("-n", namespace, "-4", "address", "show")


def test_a_neighbour_is_only_who_has_the_ports_mac(lab: Lab) -> None:
    net = lab.served()
    guest, absent = lab.guest(net, 11), lab.guest(net, 12)
    guest.configure()
    assert lab.fabric.neighbour_answers(guest.binding.port, net.network, 10)
    assert not lab.fabric.neighbour_answers(absent.binding.port, net.network, 0.3)
    other = guest.binding.port.model_copy(update={"mac": "fa:16:3e:00:00:01"})
    assert not lab.fabric.neighbour_answers(other, net.network, 0.3)


@pytest.mark.parametrize("name", ["a b", "a,10.0.0.9", "a\nfa:16:3e:00:00:01,10.5.0.9", "-x", "A"])
def test_a_name_that_is_none_gets_nowhere(lab: Lab, name: str) -> None:
    net = lab.served()
    with pytest.raises(InvalidRequest, match="host name"):
        lab.fabric.reserve(lab.binding(net, 11, name=name))
    assert not list((lab.directory / "networks" / net.network.id / "dhcp" / "hosts").iterdir())
