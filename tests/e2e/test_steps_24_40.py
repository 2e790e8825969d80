"""Steps 24 to 40, each by what other tools find: the disk, the network, the volumes."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blocks.marks import bridge_name, dhcp_namespace, firewall_table, router_namespace
from tests.cloud import Cloud
from tests.sites import INJECTED, USER_DATA

pytestmark = pytest.mark.e2e

NAME = "specimen"
GIB = 1024**3


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _directory(cloud: Cloud) -> Path:
    return cloud.home / "instances" / cloud.instance(NAME).id


def _disk(cloud: Cloud) -> dict[str, Any]:
    disk = _directory(cloud) / "disk.qcow2"
    document: dict[str, Any] = json.loads(
        _said("qemu-img", "info", "-U", "--output=json", "-f", "qcow2", str(disk))
    )
    return document


def _link(name: str, *options: str) -> dict[str, Any]:
    [document] = json.loads(_said("ip", *options, "-json", "-details", "link", "show", name))
    found: dict[str, Any] = document
    return found


def test_24_the_guest_runs_with_the_specified_accelerator(specimen: Cloud) -> None:
    spec = specimen.build(NAME).plan["spec"]
    xml = specimen.world.hypervisor.definition(specimen.instance(NAME).id) or ""
    kind = "qemu" if spec["accelerator"] == "tcg" else "kvm"
    assert re.search(rf"<domain [^>]*type=['\"]{kind}['\"]", xml)
    vmx = re.search(r"^flags.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.M)
    assert (spec["accelerator"] == "kvm") == bool(vmx)


def test_25_the_instance_directory_is_qemus_alone(specimen: Cloud) -> None:
    status = _directory(specimen).stat()
    uid, _gid = specimen.world.hypervisor.qemu_identity()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o700, uid)


def test_26_the_base_in_the_cache_has_the_images_checksum(specimen: Cloud) -> None:
    image = specimen.world.store.images.get(specimen.instance(NAME).image_id)
    base = specimen.world.images.cached(image)
    assert _said("sha256sum", str(base)).split()[0] == image.sha256


def test_27_the_disk_is_an_overlay_on_the_base(specimen: Cloud) -> None:
    image = specimen.world.store.images.get(specimen.instance(NAME).image_id)
    disk = _disk(specimen)
    assert disk["backing-filename"] == str(specimen.world.images.cached(image))
    assert disk["backing-filename-format"] == "qcow2"


def test_28_the_disk_and_the_guests_root_have_the_flavors_size(specimen: Cloud) -> None:
    assert _disk(specimen)["virtual-size"] == 2 * GIB
    kib = int(specimen.ssh(NAME, "df -k /").splitlines()[-1].split()[1])
    assert 1.8 * GIB / 1024 < kib <= 2 * GIB / 1024


def test_29_another_tool_reads_the_config_drive(specimen: Cloud, tmp_path: Path) -> None:
    iso = _directory(specimen) / "config.iso"
    assert "config-2" in _said("blkid", "-o", "value", "-s", "LABEL", str(iso))
    subprocess.run(
        ["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/", str(tmp_path / "cd")],
        check=True,
        capture_output=True,
    )
    latest = tmp_path / "cd" / "openstack" / "latest"
    meta_data = json.loads((latest / "meta_data.json").read_text())
    assert (meta_data["uuid"], meta_data["hostname"]) == (specimen.instance(NAME).id, NAME)
    assert (latest / "user_data").read_text() == USER_DATA
    links = json.loads((latest / "network_data.json").read_text())["links"]
    assert [link["ethernet_mac_address"] for link in links] == [p.mac for p in specimen.ports(NAME)]


def test_30_the_injected_file_is_in_the_guest(specimen: Cloud) -> None:
    assert specimen.ssh(NAME, "cat /etc/injected") == INJECTED
    sent = specimen.build(NAME).request["inject"][0]["content_base64"]
    assert base64.b64decode(sent).decode() == INJECTED


def test_31_the_bridge_and_the_tunnel_are_there(specimen: Cloud) -> None:
    port = specimen.ports(NAME)[0]
    network = specimen.world.store.networks.get(port.network_id)
    bridge = _link(bridge_name(network.id))
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    tunnel = _link(f"vx-{network.id.replace('-', '')[:11]}")
    assert tunnel["linkinfo"]["info_data"]["id"] == network.segment_id
    assert tunnel["master"] == bridge["ifname"]


def test_32_dnsmasq_has_leased_the_ports_address(specimen: Cloud) -> None:
    port = specimen.ports(NAME)[0]
    leases = (specimen.home / "networks" / port.network_id).rglob("*leases*")
    told = "\n".join(file.read_text() for file in leases if file.is_file())
    assert f"{port.mac} 10.77.1.77" in told


def test_33_the_router_has_the_gateways_address(specimen: Cloud) -> None:
    [router] = specimen.world.store.routers.list()
    said = _said("ip", "-n", router_namespace(router.id), "-4", "-o", "address")
    assert "10.77.1.1/24" in said
    assert (
        _said(
            "ip",
            "netns",
            "exec",
            router_namespace(router.id),
            "sysctl",
            "-n",
            "net.ipv4.ip_forward",
        ).strip()
        == "1"
    )


def test_34_what_goes_outside_is_translated_to_the_gateways_address(specimen: Cloud) -> None:
    [router] = specimen.world.store.routers.list()
    assert router.gateway is not None
    address = str(router.gateway.port.addresses[0].address)
    rules = _said("ip", "netns", "exec", router_namespace(router.id), "nft", "list", "ruleset")
    assert re.search(rf"snat (ip )?to {re.escape(address)}", rules)
    assert "1 packets received" in specimen.ssh(NAME, "ping -c 1 -W 5 172.29.77.1")


def test_35_the_guest_reads_its_own_metadata(specimen: Cloud) -> None:
    url = "http://169.254.169.254/openstack/latest/meta_data.json"
    assert json.loads(specimen.ssh(NAME, f"wget -qO- {url}"))["uuid"] == specimen.instance(NAME).id


def test_36_each_tap_is_in_its_networks_bridge(specimen: Cloud) -> None:
    for port in specimen.ports(NAME):
        tap = _link(port.tap or "")
        assert tap["linkinfo"]["info_kind"] == "tun"
        assert tap["master"] == bridge_name(port.network_id)
        assert port.id in tap["ifalias"]


def test_37_the_ports_rules_are_in_the_kernel(specimen: Cloud) -> None:
    table = firewall_table(specimen.world.site)
    rules = _said("nft", "list", "table", "bridge", table)
    for port in specimen.ports(NAME):
        assert port.tap and port.tap in rules
        assert port.mac and port.mac in rules


def test_38_the_kernel_is_what_is_recorded(specimen: Cloud) -> None:
    assert specimen.journal(specimen.build(NAME))[38].state == "done"
    port = specimen.ports(NAME)[0]
    namespace = dhcp_namespace(port.network_id)
    answer = _said("ip", "netns", "exec", namespace, "arping", "-c", "1", "-w", "5", "10.77.1.77")
    assert (port.mac or "").upper() in answer.upper()


def test_39_the_volume_is_a_file_of_its_size(specimen: Cloud) -> None:
    [volume] = specimen.world.store.volumes.of(specimen.instance(NAME).id)
    info = json.loads(
        _said("qemu-img", "info", "-U", "--output=json", "-f", "qcow2", volume.path or "")
    )
    assert info["virtual-size"] == GIB


def test_40_the_guest_has_the_volume(specimen: Cloud) -> None:
    assert specimen.ssh(NAME, "cat /sys/block/vdb/size").strip() == str(GIB // 512)
    [volume] = specimen.world.store.volumes.of(specimen.instance(NAME).id)
    assert specimen.ssh(NAME, "cat /sys/block/vdb/serial").strip() == volume.id[:20]
