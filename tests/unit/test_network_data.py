"""A guest's network data: what stands in it, and what the micro guest makes of that."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from blocks.images.recipe_book import RECIPES
from blocks.resources import Network, Port, PortBinding, Subnet
from tasks.metadata import network_data

SCRIPT = RECIPES / "micro" / "config-drive.awk"


def binding(number: int, *, mtu: int = 1500, **subnet: Any) -> PortBinding:  # noqa: ANN401
    """A port, the host 1NUMBER of 10.NUMBER.0.0/24."""
    network = {"id": f"n{number}", "tenant_id": "t", "name": f"net{number}", "type": "local"}
    address = {"subnet_id": "s", "address": f"10.{number}.0.1{number}"}
    port = {"id": f"p{number}", "tenant_id": "t", "network_id": f"n{number}", "kind": "compute"}
    cidr = {"id": "s", "network_id": f"n{number}", "cidr": f"10.{number}.0.0/24"}
    return PortBinding(
        port=Port.model_validate(
            {
                **port,
                "index": number,
                "mac": f"fa:16:3e:00:00:0{number}",
                "addresses": [address],
                "mark": 1 + number,
            }
        ),
        network=Network.model_validate({**network, "mtu": mtu, "zone": 1, "anchor_host": "h"}),
        subnets=(Subnet.model_validate({**cidr, **subnet}),),
    )


STATIC: dict[str, Any] = {
    "dhcp": False,
    "gateway": "10.1.0.1",
    "dns": ["192.0.2.1", "192.0.2.2"],
    "host_routes": [{"destination": "10.99.0.0/16", "nexthop": "10.1.0.9"}],
}


def guest_plan(directory: Path, bindings: list[PortBinding]) -> list[str]:
    """What the micro guest's init does, from its config drive's documents."""
    (directory / "meta_data.json").write_text("{}")
    (directory / "network_data.json").write_text(json.dumps(network_data(bindings)))
    command = ["busybox", "awk", "-f", str(SCRIPT), "meta_data.json", "network_data.json"]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_dhcp_tells_the_rest() -> None:
    [network] = network_data([binding(0, gateway="10.0.0.1", dns=["192.0.2.1"])])["networks"]
    assert network == {
        "id": "network0",
        "network_id": "n0",
        "link": "tapp0",
        "type": "ipv4_dhcp",
    }


def test_without_dhcp_all_is_there_for_the_guest(tmp_path: Path) -> None:
    plan = guest_plan(tmp_path, [binding(0, mtu=1450), binding(1, mtu=1458, **STATIC)])
    first, second = "fa:16:3e:00:00:00", "fa:16:3e:00:00:01"
    assert [line for line in plan if line.split()[0] not in ("uuid", "hostname")] == [
        f"mtu {first} 1450",
        f"mtu {second} 1458",
        f"dhcp {first}",
        f"address {second} 10.1.0.11 24",
        f"route {second} 0.0.0.0 0 10.1.0.1",
        f"route {second} 10.99.0.0 16 10.1.0.9",
        "dns 192.0.2.1",
        "dns 192.0.2.2",
    ]


def test_a_host_route_of_everything_goes_before_the_gateway(tmp_path: Path) -> None:
    routes = [{"destination": "0.0.0.0/0", "nexthop": "10.1.0.254"}]
    plan = guest_plan(tmp_path, [binding(1, **{**STATIC, "host_routes": routes})])
    assert [line for line in plan if line.startswith("route")] == [
        "route fa:16:3e:00:00:01 0.0.0.0 0 10.1.0.254"
    ]


def test_without_gateway_and_routes_there_are_none(tmp_path: Path) -> None:
    plan = guest_plan(tmp_path, [binding(1, **{**STATIC, "gateway": None, "host_routes": []})])
    assert not [line for line in plan if line.startswith("route")]
