"""What a guest is told about itself: OpenStack's metadata documents.

The same documents go onto the config drive (step 29) and to the metadata service
(step 35), in the format of `nova.api.metadata.base` (version `latest`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from blocks.errors import InvalidRequest
from blocks.loading import load_secret
from blocks.resources import Instance, PortBinding, Subnet, VmRequest
from blocks.settings import settings
from blocks.user_data import USER_DATA_LIMIT, check_user_data

#: Where the documents are on the config drive and below the metadata service's root.
ROOT = "openstack/latest"


def documents(
    instance: Instance,
    request: VmRequest,
    key: tuple[str, str] | None,
    bindings: Sequence[PortBinding],
    random_seed: bytes,
) -> Mapping[str, bytes]:
    """The documents of an instance, by their path.

    Args:
        instance: The instance.
        request: What was asked for: the user data, or the Secret block that holds it.
        key: The key pair's name and public key.
        bindings: Its ports, for the network data.
        random_seed: Entropy for the guest's random generator.
    """
    files = {
        f"{ROOT}/meta_data.json": _json(_meta_data(instance, key, random_seed)),
        f"{ROOT}/network_data.json": _json(network_data(bindings)),
        f"{ROOT}/vendor_data.json": _json(vendor_data(settings().vendor_data)),
    }
    if user_data := _user_data(request):
        files[f"{ROOT}/user_data"] = user_data.encode()
    return files


def _user_data(request: VmRequest) -> str | None:
    if request.user_data_secret is not None:
        return read_secret(request.user_data_secret)
    return request.user_data


def read_secret(name: str) -> str:
    """User data from a Prefect Secret block: read each time it is written, kept nowhere.

    Raises:
        NotFound: There is no such block.
        InvalidRequest: What it holds is no user data; the message quotes none of it.
    """
    # What the block holds, not `get()`: that would parse text that happens to be JSON.
    held = load_secret(name)
    if not isinstance(held, str):
        raise InvalidRequest(f"the Secret block {name!r} holds no text")
    try:
        check_user_data(held)
    except ValueError as error:
        raise InvalidRequest(f"what the Secret block {name!r} holds {error}") from None
    return held


def vendor_data(path: Path | None) -> dict[str, str]:
    """The operator's vendor data, as cloud-init reads it (`convert_vendordata`).

    Nova has it from `[api] vendordata_jsonfile_path`, and gives it to every guest.

    Args:
        path: The file of `FIFTY_VENDOR_DATA`; none: there is no vendor data.

    Raises:
        InvalidRequest: The file is not there, or what it holds is no user data.
    """
    if path is None:
        return {}
    hint = "FIFTY_VENDOR_DATA names it"
    try:
        with path.open("rb") as file:
            text = file.read(USER_DATA_LIMIT + 1).decode()
        check_user_data(text)
    except OSError as error:
        raise InvalidRequest(f"the vendor data {path}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError:
        raise InvalidRequest(f"the vendor data {path} is no text in UTF-8", hint=hint) from None
    except ValueError as error:
        raise InvalidRequest(f"the vendor data {path} {error}", hint=hint) from None
    return {"cloud-init": text}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _meta_data(
    instance: Instance, key: tuple[str, str] | None, random_seed: bytes
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "uuid": instance.id,
        "name": instance.name,
        "hostname": instance.name,
        "launch_index": 0,
        "availability_zone": "nova",
        "project_id": instance.tenant_id,
        "random_seed": base64.b64encode(random_seed).decode(),
        "devices": [],
    }
    if key is not None:
        name, public = key
        document["public_keys"] = {name: public}
        document["keys"] = [{"name": name, "type": "ssh", "data": public}]
    return document


def network_data(bindings: Sequence[PortBinding]) -> dict[str, Any]:
    """The network configuration (Nova's `nova.virt.netutils.get_network_metadata`).

    A subnet without DHCP is described in full, so that the guest can configure itself.
    """
    links, networks, services = [], [], []
    for binding in bindings:
        port, subnet = binding.port, binding.subnets[0]
        link = f"tap{port.id[:8]}"
        links.append(
            {
                "id": link,
                "vif_id": port.id,
                "type": "phy",
                "mtu": binding.network.mtu,
                "ethernet_mac_address": port.mac,
            }
        )
        network: dict[str, Any] = {
            "id": f"network{port.index}",
            "network_id": binding.network.id,
            "link": link,
            "type": "ipv4_dhcp" if subnet.dhcp else "ipv4",
        }
        if not subnet.dhcp:
            network |= {
                "ip_address": str(port.addresses[0].address),
                "netmask": str(subnet.cidr.netmask),
                "routes": _routes(subnet),
                "services": [{"type": "dns", "address": str(dns)} for dns in subnet.dns],
            }
            services += network["services"]
        networks.append(network)
    return {"links": links, "networks": networks, "services": services}


def _routes(subnet: Subnet) -> list[dict[str, str]]:
    """The default route, unless the subnet's own lead elsewhere; then its own ones."""
    routes = {IPv4Network("0.0.0.0/0"): subnet.gateway} if subnet.gateway else {}
    routes |= {route.destination: route.nexthop for route in subnet.host_routes}
    return [
        {"network": str(to.network_address), "netmask": str(to.netmask), "gateway": str(via)}
        for to, via in routes.items()
    ]
