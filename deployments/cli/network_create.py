"""`fifty network create`: a network by options, by a file, or by both."""

from __future__ import annotations

from typing import Any, Literal

from deployments.cli.context import Credentials, Flag, Json, Several, credentials_name, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.files import Findings
from deployments.cli.flow_runs import run_flow
from deployments.cli.networks import tell
from deployments.cli.output import WrongUsage


def create(
    name: str | None = None,
    /,
    *,
    cidr: str | None = None,
    file: str | None = None,
    type: Literal["flat", "local", "vlan", "vxlan", "gre"] | None = None,
    segment: str | None = None,
    gateway: str | None = None,
    dns: Several = None,
    pool: Several = None,
    host_route: Several = None,
    no_dhcp: Flag = False,
    external: Flag = False,
    outside: Literal["closed", "uplink", "bridge"] | None = None,
    physical_bridge: str | None = None,
    physical_interface: str | None = None,
    no_port_security: Flag = False,
    router: str | None = None,
    external_network: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Make a network with one subnet.

    Args:
        name: Its name.
        cidr: Its IPv4 addresses, such as 192.168.0.0/24.
        file: A YAML file with the fields of `create-network`; options go before it.
        type: How it is told from the others on the wire (default: vxlan).
        segment: Its VLAN id, VNI or GRE key; chosen where not given.
        gateway: Its gateway's address (default: the first one).
        dns: A name server for its guests; can be given several times.
        pool: FIRST-LAST, addresses that may be given out (default: all); several times.
        host_route: CIDR=ADDRESS, a route that the guests are told; several times.
        no_dhcp: No DHCP server.
        external: A network outside, for routers' gateways; admins only.
        outside: What an external network leads to (default: closed).
        physical_bridge: For flat: a bridge of this host that is there already.
        physical_interface: For vlan: the interface of this host that carries it.
        no_port_security: Neither anti-spoofing nor security groups; admins only.
        router: Attach it to this router, which is made if it is not there.
        external_network: Give that router its gateway in this network.
    """
    findings = Findings()
    number = findings.whole("--segment", segment) if segment is not None else None
    routes = [findings.route("--host-route", text) for text in host_route or ()]
    wanted = {
        "name": name,
        "cidr": cidr,
        "type": type,
        "segment": number,
        "gateway": gateway,
        "dns": dns,
        "pool": pool,
        "host_routes": routes or None,
        "dhcp": False if no_dhcp else None,
        "external": external or None,
        "outside": outside,
        "physical_bridge": physical_bridge,
        "physical_interface": physical_interface,
        "port_security": False if no_port_security else None,
        "router": router,
        "external_network": external_network,
        "credentials": credentials,
    }
    request: dict[str, Any] = findings.form("--file", file) if file is not None else {}
    findings.refuse()
    request |= {key: value for key, value in wanted.items() if value is not None}
    request.setdefault("credentials", credentials_name(None))
    missing = [field for field in ("name", "cidr") if field not in request]
    if missing:
        raise WrongUsage(
            f"{' and '.join(missing)} not given",
            "`fifty network create NAME --cidr CIDR`, or a --file that has them",
        )
    if detach:
        send("create-network", request, json=json, look="fifty network list")
        return
    require_root("making a network")
    run_flow("create_network", request).require_success()
    tell(str(request["name"]), str(request["credentials"]), json=json)
