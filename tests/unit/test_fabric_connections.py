"""Open connections: which lines of conntrack(8) say what, and which of them may go on."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from blocks.fabric import firewall_rules, nft_words, translation
from blocks.fabric.connections import Connection, ends, parsed
from blocks.fabric.open_connections import revoked
from blocks.resources import (
    FirewallRule,
    FixedIp,
    FloatingIp,
    Network,
    Port,
    PortBinding,
    PortKind,
    Route,
    Router,
    RouterLeg,
    Subnet,
)

GUEST, OTHER, FAR = "10.5.0.11", "10.5.0.12", "203.0.113.9"
GATEWAY, FLOATING = "198.51.100.10", "198.51.100.20"


def connection(
    source: str,
    destination: str,
    *,
    answered_by: str | None = None,
    answered_to: str | None = None,
    protocol: int = 6,
    ports: tuple[int, int] | None = (40000, 80),
    icmp: tuple[int, int, int] | None = None,
) -> Connection:
    return Connection(
        protocol,
        IPv4Address(source),
        IPv4Address(destination),
        IPv4Address(answered_by or destination),
        IPv4Address(answered_to or source),
        ports,
        icmp,
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "tcp      6 431999 ESTABLISHED src=10.5.0.11 dst=203.0.113.9 sport=40000 dport=80 "
            "src=203.0.113.9 dst=198.51.100.10 sport=80 dport=40000 [ASSURED] mark=0 use=1",
            connection(GUEST, FAR, answered_to=GATEWAY),
        ),
        (
            "udp      17 29 src=10.5.0.11 dst=10.5.0.12 sport=5 dport=53 [UNREPLIED] "
            "src=10.5.0.12 dst=10.5.0.11 sport=53 dport=5 mark=0 zone=7 use=1",
            connection(GUEST, OTHER, protocol=17, ports=(5, 53)),
        ),
        (
            "icmp     1 29 src=10.5.0.11 dst=10.5.0.12 type=8 code=0 id=77 "
            "src=10.5.0.12 dst=10.5.0.11 type=0 code=0 id=77 mark=0 use=1",
            connection(GUEST, OTHER, protocol=1, ports=None, icmp=(8, 0, 77)),
        ),
        (
            "unknown  47 599 src=10.5.0.11 dst=10.5.0.12 src=10.5.0.12 dst=10.5.0.11 use=1",
            connection(GUEST, OTHER, protocol=47, ports=None),
        ),
        ("conntrack v1.4.7 (conntrack-tools): 4 flow entries have been shown.", None),
        ("", None),
    ],
)
def test_a_line_of_conntrack_is_a_connection(line: str, said: Connection | None) -> None:
    assert parsed(line) == said


def test_the_report_names_each_pair_once_and_not_thousands() -> None:
    many = [connection(GUEST, f"10.6.{n // 250}.{n % 250}") for n in range(1000)]
    assert len(ends(many)) == 20
    assert ends([connection(GUEST, OTHER), connection(GUEST, OTHER, ports=(1, 2))]) == [
        (GUEST, OTHER)
    ]


def bound(address: str, *rules: dict[str, Any], port_security: bool = True) -> PortBinding:
    network = Network.model_validate(
        {"id": "n", "tenant_id": "t", "name": "n", "type": "local", "zone": 1, "anchor_host": "h"}
    )
    port = Port(
        id="11111111-2222-3333-4444-555555555555",
        tenant_id="t",
        network_id="n",
        kind=PortKind.COMPUTE,
        mac="fa:16:3e:00:00:01",
        addresses=(FixedIp(subnet_id="s", address=IPv4Address(address)),),
        tap="tap11111111222",
        mark=1,
        port_security=port_security,
    )
    made = tuple(FirewallRule.model_validate(rule) for rule in rules)
    return PortBinding(port=port, network=network, subnets=(), rules=made)


WEB = {"direction": "ingress", "protocol": "tcp", "port_min": 80, "port_max": 82}
PING = {"direction": "ingress", "protocol": "icmp", "port_min": 8}
OUT = {"direction": "egress"}


@pytest.mark.parametrize(
    ("rules", "tracked", "goes_on"),
    [
        ([WEB], connection(OTHER, GUEST), True),
        ([WEB], connection(OTHER, GUEST, ports=(1, 83)), False),
        ([WEB], connection(OTHER, GUEST, protocol=17), False),
        ([WEB], connection(GUEST, OTHER), False),
        ([OUT], connection(GUEST, OTHER), True),
        ([OUT], connection(OTHER, GUEST), False),
        ([{**WEB, "remotes": ["10.5.0.12/32"]}], connection(OTHER, GUEST), True),
        ([{**WEB, "remotes": ["10.5.0.13/32"]}], connection(OTHER, GUEST), False),
        ([{**WEB, "remotes": []}], connection(OTHER, GUEST), False),
        ([PING], connection(OTHER, GUEST, protocol=1, ports=None, icmp=(8, 0, 1)), True),
        ([PING], connection(OTHER, GUEST, protocol=1, ports=None, icmp=(13, 0, 1)), False),
        (
            [{**PING, "port_max": 1}],
            connection(OTHER, GUEST, protocol=1, ports=None, icmp=(8, 0, 1)),
            False,
        ),
        ([{"direction": "ingress"}], connection(OTHER, GUEST, protocol=47, ports=None), True),
        # DHCP needs no rule, in either direction.
        ([], connection(GUEST, OTHER, protocol=17, ports=(68, 67)), True),
        ([], connection(OTHER, GUEST, protocol=17, ports=(67, 68)), True),
        ([], connection(OTHER, GUEST, protocol=17, ports=(68, 67)), False),
        # Other people's.
        ([], connection(OTHER, FAR), True),
    ],
)
def test_a_connection_goes_on_if_it_might_begin(
    rules: list[dict[str, Any]], tracked: Connection, goes_on: bool
) -> None:
    assert revoked([bound(GUEST, *rules)], [tracked]) == (set() if goes_on else {tracked})


def test_both_ends_must_let_a_connection_pass() -> None:
    tracked = [connection(GUEST, OTHER)]
    assert not revoked([bound(GUEST, OUT), bound(OTHER, WEB)], tracked)
    assert revoked([bound(GUEST, OUT), bound(OTHER)], tracked)
    assert revoked([bound(GUEST), bound(OTHER, WEB)], tracked)


def test_without_port_security_everything_goes_on() -> None:
    assert not revoked([bound(GUEST, port_security=False)], [connection(GUEST, OTHER)])


def test_tcp_begins_with_a_syn() -> None:
    """Else a cut connection came back by its next packet, from the other side, too."""
    for direction in ("ingress", "egress"):
        typed = [
            nft_words.rule(rule.statements)
            for rule in firewall_rules.directed(bound(GUEST, OUT, WEB), direction)
        ]
        assert typed[2] == "tcp flags & 23 != 2 drop"
        assert typed.index("ct state established,related goto pass") == 0


def leg(cidr: str, address: str, kind: PortKind) -> RouterLeg:
    network = Network.model_validate(
        {"id": "n", "tenant_id": "t", "name": "n", "type": "local", "zone": 1, "anchor_host": "h"}
    )
    subnet = Subnet.model_validate({"id": cidr, "network_id": "n", "cidr": cidr})
    port = Port(
        id="11111111-2222-3333-4444-555555555555",
        tenant_id="t",
        network_id="n",
        kind=kind,
        addresses=(FixedIp(subnet_id=cidr, address=IPv4Address(address)),),
        mark=1,
    )
    return RouterLeg(port=port, network=network, subnet=subnet)


def router(*, snat: bool = True, floating: str | None = GUEST) -> Router:
    """Two networks, a gateway, one network more behind a route, and a floating IP."""
    return Router(
        id="r",
        tenant_id="t",
        name="router",
        host="h",
        snat=snat,
        legs=(
            leg("10.5.0.0/24", "10.5.0.1", PortKind.ROUTER_INTERFACE),
            leg("10.6.0.0/24", "10.6.0.1", PortKind.ROUTER_INTERFACE),
        ),
        gateway=leg("198.51.100.0/24", GATEWAY, PortKind.ROUTER_GATEWAY),
        routes=(Route.model_validate({"destination": "10.7.0.0/24", "nexthop": "10.6.0.9"}),),
        floating_ips=(
            FloatingIp.model_validate(
                {
                    "id": "f",
                    "tenant_id": "t",
                    "network_id": "x",
                    "address": FLOATING,
                    "fixed_address": floating,
                }
            ),
        ),
    )


FROM_FLOATING = connection(GUEST, FAR, answered_to=FLOATING)
TO_FLOATING = connection(FAR, FLOATING, answered_by=GUEST)
AS_GATEWAY = connection(OTHER, FAR, answered_to=GATEWAY)
HAIRPIN = connection(OTHER, FLOATING, answered_by=GUEST, answered_to=GATEWAY)
PLAIN_OUT, PLAIN_IN = connection(GUEST, FAR), connection(FAR, GUEST)
INSIDE = [
    connection(GUEST, "10.6.0.5"),
    connection(GUEST, "10.7.0.5"),
    connection("10.7.0.5", GUEST),
    connection(GUEST, "10.5.0.1"),
    connection(FAR, GATEWAY),
    connection(GUEST, "169.254.169.254"),
    connection("0.0.0.0", "255.255.255.255", protocol=17, ports=(68, 67)),
    connection(GUEST, "10.5.0.255", protocol=17),
    connection(GUEST, "224.0.0.251", protocol=17),
]


@pytest.mark.parametrize(
    ("of", "connected", "stale"),
    [
        (router(), True, [PLAIN_OUT, PLAIN_IN]),
        (
            router(floating=None),
            True,
            [FROM_FLOATING, TO_FLOATING, HAIRPIN, PLAIN_OUT, PLAIN_IN],
        ),
        (
            router(floating=OTHER),
            True,
            [FROM_FLOATING, TO_FLOATING, HAIRPIN, PLAIN_OUT, PLAIN_IN],
        ),
        (router(snat=False), True, [AS_GATEWAY]),
        (
            router(),
            False,
            [FROM_FLOATING, TO_FLOATING, AS_GATEWAY, HAIRPIN, PLAIN_OUT, PLAIN_IN],
        ),
    ],
    ids=["attached", "detached", "moved", "without SNAT", "without a gateway"],
)
def test_connections_end_with_the_translation_they_began_with(
    of: Router, connected: bool, stale: list[Connection]
) -> None:
    translated = [FROM_FLOATING, TO_FLOATING, AS_GATEWAY, HAIRPIN, PLAIN_OUT, PLAIN_IN]
    inside = INSIDE if connected else [each for each in INSIDE if str(each.destination) != GATEWAY]
    assert translation.stale(of, [*translated, *inside], connected=connected) == stale


def test_what_the_router_answered_itself_is_cut_when_a_guest_shall_answer() -> None:
    before = connection(FAR, FLOATING)
    assert translation.stale(router(), [before], connected=True) == [before]


def typed(of: Router, *, connected: bool = True) -> dict[str, list[str]]:
    return {
        chain.name: [nft_words.rule(rule.statements) for rule in chain.rules]
        for chain in translation.chains(of, connected=connected)
    }


def test_floating_ips_are_maps_and_rules_that_stay() -> None:
    assert typed(router(floating=None)) == typed(router())
    pairs = [each.elements for each in translation.maps(router(), connected=True)]
    assert pairs == [{FLOATING: GUEST}, {GUEST: FLOATING}]
    bare = [each.elements for each in translation.maps(router(floating=None), connected=True)]
    assert bare == [{}, {}]


def test_a_router_without_a_gateway_translates_nothing() -> None:
    assert list(typed(router(), connected=False)) == ["forward"]
    assert translation.maps(router(), connected=False) == []


def test_snat_is_what_remains_for_those_without_a_floating_ip() -> None:
    outgoing = typed(router())["postrouting"]
    assert outgoing[0].endswith("snat to ip saddr map @floating_from")
    assert outgoing[-1].endswith(f"snat to {GATEWAY}")
    without = typed(router(snat=False))
    assert without["postrouting"] == outgoing[:-1]
    assert without["forward"][-1].startswith("meta iifname qg-")
    assert without["forward"][-1].endswith(" accept")
    assert "ct status dnat" not in without["forward"][-1]
    assert all("ct status dnat" in line for line in typed(router())["forward"][2:])
