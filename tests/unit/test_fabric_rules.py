"""What the firewall's rules say, without a kernel: data, words, marks."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from blocks.errors import InvalidRequest
from blocks.fabric import firewall_rules, nft, nft_words
from blocks.fabric.firewall_tables import one_table, packet_mark
from blocks.resources import FirewallRule, FixedIp, Network, Port, PortBinding, PortKind


def port(mark: int = 7, mac: str | None = "fa:16:3e:00:00:01") -> Port:
    return Port(
        id="11111111-2222-3333-4444-555555555555",
        tenant_id="t",
        network_id="n",
        kind=PortKind.COMPUTE,
        mac=mac,
        addresses=(FixedIp(subnet_id="s", address=IPv4Address("10.5.0.11")),),
        tap="tap11111111222",
        mark=mark,
    )


def binding(*rules: dict[str, Any]) -> PortBinding:
    network = Network.model_validate(
        {"id": "n", "tenant_id": "t", "name": "n", "type": "local", "zone": 1, "anchor_host": "h"}
    )
    made = tuple(FirewallRule.model_validate({"direction": "ingress", **rule}) for rule in rules)
    return PortBinding(port=port(), network=network, subnets=(), rules=made)


def words(*rules: dict[str, Any]) -> list[str]:
    """The port's own ingress rules as one would type them."""
    made = firewall_rules.directed(binding(*rules), "ingress")
    return [nft_words.rule(rule.statements) for rule in made[4:-1]]


@pytest.mark.parametrize(
    ("rule", "typed"),
    [
        ({}, ["goto pass"]),
        ({"protocol": "tcp"}, ["meta l4proto tcp goto pass"]),
        ({"protocol": "tcp", "port_min": 22, "port_max": 22}, ["tcp dport 22 goto pass"]),
        ({"protocol": "udp", "port_min": 1, "port_max": 9}, ["udp dport 1-9 goto pass"]),
        ({"protocol": "tcp", "port_min": 22}, ["tcp dport 22 goto pass"]),
        (
            {"protocol": "icmp", "port_min": 8, "port_max": 0},
            ["meta l4proto icmp icmp type 8 icmp code 0 goto pass"],
        ),
        ({"remotes": ["0.0.0.0/0"]}, ["goto pass"]),
        ({"remotes": []}, []),
        ({"remotes": ["10.0.0.0/8"]}, ["ip saddr 10.0.0.0/8 goto pass"]),
        ({"remotes": ["10.0.0.0/25", "10.0.0.128/25"]}, ["ip saddr 10.0.0.0/24 goto pass"]),
        (
            {"remotes": ["10.0.0.1/32", "10.0.0.3/32"]},
            ["ip saddr 10.0.0.1 goto pass", "ip saddr 10.0.0.3 goto pass"],
        ),
    ],
)
def test_a_rule_of_a_group_becomes_rules_of_nftables(
    rule: dict[str, Any], typed: list[str]
) -> None:
    assert words(rule) == typed


def test_many_remotes_share_a_rule() -> None:
    remotes = [str(IPv4Network((0x0A000001 + 2 * n, 32))) for n in range(50)]
    (only,) = words({"remotes": remotes})
    assert only.count(",") == 49


def test_whatever_no_rule_lets_pass_is_dropped_last() -> None:
    for direction in ("ingress", "egress"):
        *_, last = firewall_rules.directed(binding({}), direction)
        assert last.statements == ({"drop": None},)
    *_, last = firewall_rules.spoofing(port())
    assert last.statements == ({"drop": None},)


def test_a_comment_tells_rules_apart_and_fits() -> None:
    rules = [
        rule
        for last in range(3)
        for rule in firewall_rules.directed(
            binding({"remotes": [f"10.0.{last}.{n}/32" for n in range(0, 20, 2)]}), "ingress"
        )[4:-1]
    ]
    comments = [rule.comment for rule in rules]
    assert len(set(comments)) == 3
    assert len({rule.words for rule in rules}) == 1
    assert all(len(comment.encode()) < 120 for comment in comments)


def test_a_port_without_a_mac_address_has_no_rules() -> None:
    with pytest.raises(InvalidRequest, match="no MAC address"):
        firewall_rules.spoofing(port(mac=None))


def test_marks_of_two_sites_differ_and_are_never_nothing() -> None:
    sites = ("0000", "0001", "beef", "ffff")
    numbers = [1, 2, 255, 32767]
    marks = {packet_mark(site, port(number)) for site in sites for number in numbers}
    assert len(marks) == len(sites) * len(numbers)
    assert all(0 < mark < 1 << 32 for mark in marks)
    assert packet_mark("beef", port(0xBEEF << 15)) != 0
    assert packet_mark("beef", port((1 << 31) - 1)) < 1 << 32


def test_one_table_knows_ports_by_name_and_networks_by_bridge() -> None:
    """The form for kernels with nf_conntrack_bridge: all in family bridge, no marks."""
    tables = one_table("beef")
    assert tables.tables() == [{"family": "bridge", "table": "fifty_beef"}]
    said = json.dumps(tables.commands())
    assert '"inet"' not in said
    assert '"mark"' not in said
    assert "ibrname" in said
    assert {name for _, name, _ in tables.members(port())} == {
        "guards",
        "guests",
        "egress",
        "ingress",
    }
    order = [(chain.hook, chain.priority) for chain in tables.chains()]
    # Conntrack is at -200: zones before it, states after it.
    assert ("prerouting", -300) in order
    assert all(
        chain.priority > -200 for chain in tables.chains() if chain.name in ("leaving", "arriving")
    )
    # No group says anything of ARP, which this family sees, too.
    grouped = {chain.name: chain.rules for chain in tables.chains()}
    for name in ("leaving", "arriving"):
        [rule] = grouped[name]
        assert rule.statements[0] == nft.match(nft.field("ether", "type"), "ip")
