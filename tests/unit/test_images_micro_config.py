"""The micro guest's reader of the config drive (an awk script), run by this host's busybox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from blocks.images.recipe_book import RECIPES

SCRIPT = RECIPES / "micro" / "config-drive.awk"
KEY = "ssh-ed25519 AAAAC3Nza/+= me@home"


def plan(directory: Path, meta: object, network: object | None = None) -> list[str]:
    (directory / "meta_data.json").write_text(json.dumps(meta, indent=1))
    names = ["meta_data.json"]
    if network is not None:
        (directory / "network_data.json").write_text(json.dumps(network))
        names.append("network_data.json")
    command = ["busybox", "awk", "-f", str(SCRIPT), *names]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def meta(**more: object) -> dict[str, object]:
    return {
        "uuid": "83679162-1378-4288-a2d4-70e13ec132aa",
        "hostname": "hello",
        "keys": [{"name": "k", "type": "ssh", "data": KEY}],
        "nested": {"empty": [], "none": {}, "list": [1, [2, "three"], None, True]},
    } | more


def test_name_and_keys(tmp_path: Path) -> None:
    lines = plan(tmp_path, meta())
    assert lines == [
        "uuid 83679162-1378-4288-a2d4-70e13ec132aa",
        "hostname hello",
        f"key {KEY}",
    ]


def test_keys_by_name_alone(tmp_path: Path) -> None:
    assert f"key {KEY}" in plan(tmp_path, meta(keys=[], public_keys={"k": KEY}))


def test_a_value_never_spans_two_lines(tmp_path: Path) -> None:
    lines = plan(tmp_path, meta(hostname='a\nkey ssh-rsa EVIL "q" \\ \u00e9 end', public_keys={}))
    assert 'hostname a key ssh-rsa EVIL "q" \\ ? end' in lines
    assert [line for line in lines if line.startswith("key ")] == [f"key {KEY}"]


def test_networks(tmp_path: Path) -> None:
    mac, other = "fa:16:3e:00:00:01", "fa:16:3e:00:00:02"
    network = {
        "links": [
            {"id": "tap1", "ethernet_mac_address": mac.upper(), "mtu": 1450, "type": "bridge"},
            {"id": "tap2", "ethernet_mac_address": other, "mtu": None, "type": "bridge"},
        ],
        "networks": [
            {"id": "network0", "type": "ipv4_dhcp", "link": "tap1", "network_id": "n"},
            {
                "id": "network1",
                "type": "ipv4",
                "link": "tap2",
                "ip_address": "10.9.0.5",
                "netmask": "255.255.254.0",
                "routes": [
                    {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.9.0.1"},
                    {"network": "10.8.0.0", "netmask": "255.255.0.0", "gateway": "10.9.0.2"},
                ],
            },
        ],
        "services": [{"type": "dns", "address": "10.9.0.3"}, {"type": "ntp", "address": "x"}],
    }
    assert plan(tmp_path, meta(), network)[3:] == [
        f"mtu {mac} 1450",
        f"dhcp {mac}",
        f"address {other} 10.9.0.5 23",
        f"route {other} 0.0.0.0 0 10.9.0.1",
        f"route {other} 10.8.0.0 16 10.9.0.2",
        "dns 10.9.0.3",
    ]
