"""What dnsmasq is told of a subnet, without running it; and the leases it has written."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from blocks.fabric.dhcp_leases import find_lease
from blocks.fabric.dnsmasq_config import configuration
from blocks.resources import Network, Port, PortKind, Subnet

MAC = "fa:16:3e:00:00:01"
NETWORK = Network.model_validate(
    {
        "id": "11111111-2222-3333-4444-000000000000",
        "tenant_id": "t",
        "name": "n",
        "type": "gre",
        "mtu": 1458,
        "zone": 1,
        "anchor_host": "h",
    }
)
PORT = Port(
    id="11111111-2222-3333-4444-555555555555",
    tenant_id="t",
    network_id=NETWORK.id,
    kind=PortKind.DHCP,
    mark=7,
)


def lines(directory: Path, **more: Any) -> list[str]:  # noqa: ANN401 - a subnet's fields
    subnet = Subnet.model_validate(
        {
            "id": "s",
            "network_id": NETWORK.id,
            "cidr": "192.168.0.0/24",
            "gateway": "192.168.0.1",
            "dhcp_address": "192.168.0.2",
            **more,
        }
    )
    text = configuration(directory, NETWORK, subnet, PORT)
    check_syntax(directory, text)
    return text.splitlines()


def check_syntax(directory: Path, text: str) -> None:
    """dnsmasq itself reads it, and nothing else: `--test` opens no socket."""
    program = shutil.which("dnsmasq")
    assert program is not None
    for folder in ("names", "hosts"):
        (directory / folder).mkdir(exist_ok=True)
    (directory / "dnsmasq.conf").write_text(text)
    command = [program, "--test", f"--conf-file={directory / 'dnsmasq.conf'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def routes(found: list[str]) -> set[str]:
    """What the options 121 and 249 hold."""
    begin = ("dhcp-option=option:classless-static-route,", "dhcp-option=249,")
    return {
        line.removeprefix(begin[0]).removeprefix(begin[1])
        for line in found
        if line.startswith(begin)
    }


def test_gateway_names_mtu_and_range(tmp_path: Path) -> None:
    found = lines(tmp_path, dns=["192.0.2.1", "192.0.2.2"], lease_s=600)
    assert "dhcp-range=192.168.0.0,static,255.255.255.0,600" in found
    assert "dhcp-option=option:router,192.168.0.1" in found
    assert "dhcp-option=option:dns-server,192.0.2.1,192.0.2.2" in found
    assert "dhcp-option-force=option:mtu,1458" in found


def test_without_name_servers_the_networks_own_answers(tmp_path: Path) -> None:
    assert "dhcp-option=option:dns-server,192.168.0.2" in lines(tmp_path)


def test_option_121_repeats_the_default_route(tmp_path: Path) -> None:
    host_routes = [
        {"destination": "10.9.0.0/16", "nexthop": "192.168.0.9"},
        {"destination": "10.8.0.0/16", "nexthop": "192.168.0.8"},
    ]
    assert routes(lines(tmp_path, host_routes=host_routes)) == {
        "169.254.169.254/32,192.168.0.2,10.9.0.0/16,192.168.0.9,10.8.0.0/16,192.168.0.8,"
        "0.0.0.0/0,192.168.0.1"
    }


def test_a_host_route_goes_before_ours_to_the_same_place(tmp_path: Path) -> None:
    default = [{"destination": "0.0.0.0/0", "nexthop": "192.168.0.254"}]
    assert routes(lines(tmp_path, host_routes=default)) == {
        "169.254.169.254/32,192.168.0.2,0.0.0.0/0,192.168.0.254"
    }


def test_without_a_gateway_nobody_is_told_of_one(tmp_path: Path) -> None:
    found = lines(tmp_path, gateway=None)
    assert "dhcp-option=option:router" in found
    assert routes(found) == {"169.254.169.254/32,192.168.0.2"}


@pytest.mark.parametrize(
    ("mac", "address", "found"),
    [
        (MAC, "10.5.0.11", True),
        (MAC, "10.5.0.12", False),
        ("fa:16:3e:00:00:02", "10.5.0.11", False),
    ],
)
def test_a_lease_is_its_mac_addresses_own(
    tmp_path: Path, mac: str, address: str, *, found: bool
) -> None:
    file = tmp_path / "leases"
    file.write_text(f"1700000000 {MAC} 10.5.0.11 hello *\nduid 00:01\n")
    lease = find_lease(file, mac, IPv4Address(address))
    assert (lease is not None) == found
    if lease is not None:
        assert lease.expires_at == datetime.fromtimestamp(1700000000, UTC)
        assert lease.host_name == "hello"


def test_no_leases_yet(tmp_path: Path) -> None:
    assert find_lease(tmp_path / "leases", MAC, IPv4Address("10.5.0.11")) is None
