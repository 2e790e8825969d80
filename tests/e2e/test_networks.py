"""What guests can reach, and what they cannot: shown by packets, with a control beside."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest

from blocks.marks import dhcp_namespace, outside_namespace
from tests.cloud import Cloud
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

GUESTS = {"left": "lab", "right": "lab", "apart": "twin"}


@pytest.fixture(scope="module")
def guests(site_cloud: Cloud) -> Iterator[Cloud]:
    """Two guests on one network, and one on another network with the same addresses."""
    for name, network in GUESTS.items():
        site_cloud.fifty(
            *("vm", "create", name, "--image", "micro", "--flavor", "tiny"),
            *("--network", network),
        )
    yield site_cloud
    for name in GUESTS:
        site_cloud.fifty("vm", "delete", name)


def _address(cloud: Cloud, name: str) -> str:
    return str(cloud.ports(name)[0].addresses[0].address)


def _ping(cloud: Cloud, source: str, target: str, *options: str) -> bool:
    said = cloud.ssh(source, f"ping -c 2 -W 3 {' '.join(options)} {target} || true")
    return ", 0% packet loss" in said


def test_guests_of_one_network_reach_each_other(guests: Cloud) -> None:
    assert _ping(guests, "left", _address(guests, "right"))
    assert _ping(guests, "right", _address(guests, "left"))
    said = guests.ssh("left", f"echo | nc -w 5 {_address(guests, 'right')} 22 | head -n 1")
    assert said.startswith("SSH-2.0")


def test_a_guest_of_another_network_is_not_reached(guests: Cloud) -> None:
    """`apart` listens for anything from `left`; the control comes from its own network."""
    apart = guests.ports("apart")[0]
    own, other = (
        dhcp_namespace(apart.network_id),
        dhcp_namespace(guests.ports("left")[0].network_id),
    )
    unused = "10.77.1.200"
    guests.ssh("apart", f"ip address add {unused}/24 dev eth0")
    assert not _ping(guests, "left", unused)
    target = _address(guests, "apart")
    # The control: the guest that was not reached does answer on its own network.
    assert _arping(own, target, apart.mac or "")
    assert not _arping(other, target, apart.mac or "")


def _arping(namespace: str, address: str, mac: str) -> bool:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "arping", "-c", "2", "-w", "4", address],
        capture_output=True,
        text=True,
        check=False,
    )
    return mac.upper() in done.stdout.upper()


def test_a_spoofed_address_gets_nowhere(guests: Cloud) -> None:
    right = _address(guests, "right")
    assert _ping(guests, "left", right)
    guests.ssh("left", "ip address add 10.77.1.201/24 dev eth0")
    try:
        assert not _ping(guests, "left", right, "-I", "10.77.1.201")
    finally:
        guests.ssh("left", "ip address del 10.77.1.201/24 dev eth0")
    assert _ping(guests, "left", right)


def test_what_the_groups_do_not_let_in_stays_out(guests: Cloud) -> None:
    """From outside of the group: SSH is let in, another port is not; the guest serves both."""
    left = guests.ports("left")[0]
    address = _address(guests, "left")
    guests.ssh("left", "nc -l -p 8080 -e /bin/hostname >/dev/null 2>&1 </dev/null &")

    def tcp(port: int) -> str:
        return guests.in_network(
            "left",
            "timeout",
            "4",
            "bash",
            "-c",
            f"exec 3<>/dev/tcp/{address}/{port} && head -c 7 <&3",
        )

    assert tcp(22) == "SSH-2.0"
    assert "left" not in tcp(8080)
    # The control: a member of the group does get in.
    assert guests.ssh("right", f"nc -w 5 {address} 8080").strip() == "left"
    assert left.security_groups == guests.ports("right")[0].security_groups


def test_the_outside_sees_the_routers_address_and_not_the_guests(guests: Cloud) -> None:
    public = next(n for n in guests.world.store.networks.list() if n.external)
    namespace = outside_namespace(public.id)
    with subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            namespace,
            "tcpdump",
            "-lni",
            "any",
            "-c",
            "1",
            "icmp[icmptype] = icmp-echo",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sniffer:
        assert sniffer.stderr is not None
        eventually(
            lambda: "listening" in str(sniffer.stderr and sniffer.stderr.readline()), "tcpdump"
        )
        assert _ping(guests, "left", "172.29.77.1")
        seen = sniffer.communicate(timeout=60)[0]
    [router] = guests.world.store.routers.list()
    assert router.gateway is not None
    assert f"{router.gateway.port.addresses[0].address} > 172.29.77.1" in seen


def test_a_guest_reads_its_own_metadata_and_no_other(guests: Cloud) -> None:
    for name in ("left", "right"):
        said = guests.ssh(name, "wget -qO- http://169.254.169.254/latest/meta-data/hostname")
        assert said.strip() == name


def test_nothing_but_the_guest_itself_answers_on_its_link(guests: Cloud) -> None:
    """All nodes of the link (ff02::1) are asked: the host has no address on the bridge."""
    lines = guests.ssh("left", "grep eth0 /proc/net/if_inet6").splitlines()
    own = {str(IPv6Address(int(line.split()[0], 16))) for line in lines}
    said = guests.ssh("left", "ping -6 -c 3 -W 3 -I eth0 ff02::1 || true")
    answered = set(re.findall(r"bytes from ([0-9a-f:]+): seq", said))
    assert answered == own
