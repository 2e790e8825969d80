"""What Open vSwitch is told, for what is seen there and what is wanted."""

from __future__ import annotations

import uuid
from ipaddress import IPv4Address

import pytest

from blocks import marks
from blocks.errors import Conflict
from blocks.fabric.segments.carrier import Ends
from blocks.fabric.segments.underlay import segment_mtu
from blocks.fabric.segments.vswitch import Row, quoted
from blocks.fabric.segments.vswitch_plan import Mark, Seen, WantedPort, WantedSwitch, steps
from blocks.resources import NetworkType

MARK = Mark("00ab", "n1")
IDS = {"fifty-site": "00ab", "fifty-id": "n1"}
OURS = WantedSwitch("ovf1", "netdev", ours=True)
CABLE = WantedPort("qvo1")
TUNNEL = WantedPort("ot-1", "gre", {"key": "7", "local_ip": "192.0.2.1", "remote_ip": "192.0.2.2"})
ACCESS = WantedPort("qvo1", tag=101)


def seen(*ports: WantedPort, ids: dict[str, str] = IDS, fault: str = "") -> Seen:
    """Open vSwitch with exactly these ports."""
    rows: dict[str, Row] = {}
    interfaces: dict[str, Row] = {}
    for port in ports:
        tag: object = [] if port.tag is None else port.tag
        rows[port.name] = {"_uuid": port.name, "tag": tag, "protected": port.protected}
        interfaces[port.name] = {"type": port.kind, "options": port.options, "error": fault or []}
    names = [port.name for port in ports]
    bridge = {"name": "ovf1", "external_ids": ids, "ports": names[0] if len(names) == 1 else names}
    return Seen(bridge, rows, interfaces)


def commands(
    wanted: list[WantedPort], there: Seen, *, switch: WantedSwitch = OURS, tunnels: bool = True
) -> list[tuple[str, ...]]:
    found = steps(switch, wanted, MARK, there, tunnels=tunnels)
    return [command for step in found for command in step.commands]


def test_what_is_as_wanted_is_left() -> None:
    assert commands([CABLE, TUNNEL], seen(CABLE, TUNNEL)) == []
    assert commands([CABLE], seen(CABLE)) == []
    operators = WantedSwitch("br-x", "system", ours=False)
    assert commands([ACCESS], seen(ACCESS, ids={}), switch=operators) == []


def test_all_of_it_is_made_where_nothing_is() -> None:
    made = commands([CABLE, TUNNEL], Seen(None, {}, {}))
    assert [command[:2] for command in made] == [
        ("add-br", "ovf1"),
        ("set", "Bridge"),
        *[("add-port", "ovf1"), ("set", "Port"), ("set", "Interface")] * 2,
    ]
    assert all(set(MARK.words) <= set(command) for command in made if command[0] == "set")
    [of_tunnel] = [command for command in made if command[:3] == ("set", "Interface", "ot-1")]
    assert 'options={key="7",local_ip="192.0.2.1",remote_ip="192.0.2.2"}' in of_tunnel
    assert next(command for command in made if "protected=true" in command)[2] == "ot-1"


@pytest.mark.parametrize(
    "there",
    [
        WantedPort("ot-1", "gre", {**TUNNEL.options, "key": "8"}),
        WantedPort("ot-1", "vxlan", TUNNEL.options),
        WantedPort("ot-1", "gre", TUNNEL.options, tag=3),
    ],
)
def test_a_port_that_differs_is_set(there: WantedPort) -> None:
    assert [c[:2] for c in commands([TUNNEL], seen(there))] == [
        ("set", "Port"),
        ("set", "Interface"),
    ]


def test_a_port_that_is_at_fault_or_elsewhere_is_made_again() -> None:
    for there in (seen(CABLE, fault="No such device"), Seen(None, *_parts(seen(CABLE)))):
        made = [command[0] for command in commands([CABLE], there)]
        assert made[-4:] == ["del-port", "add-port", "set", "set"]


def _parts(there: Seen) -> tuple[dict[str, Row], dict[str, Row]]:
    return there.ports, there.interfaces


def test_a_tunnel_to_a_host_that_has_left_goes() -> None:
    assert commands([CABLE], seen(CABLE, TUNNEL)) == [("del-port", "ot-1")]
    assert commands([CABLE], seen(CABLE, TUNNEL), tunnels=False) == []


@pytest.mark.parametrize("ids", [{}, {**IDS, "fifty-id": "n2"}, {**IDS, "fifty-site": "ffff"}])
def test_somebody_elses_bridge_is_a_conflict(ids: dict[str, str]) -> None:
    with pytest.raises(Conflict, match="not ours"):
        steps(OURS, [CABLE], MARK, seen(CABLE, ids=ids))


def test_no_value_is_taken_for_more_than_one() -> None:
    assert quoted('a",tag=7 -- del-br x') == '"a\\",tag=7 -- del-br x"'


def test_a_host_is_no_peer_of_its_own() -> None:
    one, two = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
    ends = Ends.of([one, two], one)
    assert ends is not None
    assert ends.peers == {two}
    # Not told is not the same as none.
    assert Ends.of(None, one) is None


def test_names_fit_into_a_link_name_and_differ_by_peer() -> None:
    network = str(uuid.uuid4())
    peers = [IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")]
    for name in (marks.gretap_name, marks.vswitch_tunnel_name):
        assert len({name(network, peer) for peer in peers}) == 2
        assert all(len(name(network, peer)) <= 15 for peer in peers)


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (NetworkType.VXLAN, 8950),
        (NetworkType.GRE, 8958),
        (NetworkType.VLAN, 9000),
        (NetworkType.FLAT, 9000),
        (NetworkType.LOCAL, 9000),
    ],
)
def test_what_a_tunnel_leaves_of_the_mtu(kind: NetworkType, left: int) -> None:
    assert segment_mtu(kind, None, 9000) == left
    assert segment_mtu(kind) == left - 7500
