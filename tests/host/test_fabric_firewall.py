"""What passes a port and what does not, shown by packets.

Where something must not arrive, a control packet that may is sent after it on the same
way: when the control is there, the other would have been, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes
from blocks.fabric import NetworkFabric, nft, nft_reading
from blocks.fabric.firewall_tables import tables_of
from blocks.resources import FirewallRule, PortBinding
from tests.host.fabric_lab import (
    ANY_EGRESS,
    ETH_P_ARP,
    ETH_P_IP,
    Guest,
    Lab,
    Net,
    Wire,
    arp,
    ethernet,
    ip,
    lab_at,
    tcp_connects,
    udp,
)
from tests.waiting import eventually

pytestmark = pytest.mark.host

EVERYONE = "ff:ff:ff:ff:ff:ff"
ICMP = FirewallRule(direction="ingress", protocol="icmp")
ANY_INGRESS = FirewallRule(direction="ingress")
OPEN = (ANY_EGRESS, ANY_INGRESS)


def ingress(
    protocol: str, first: int | None = None, last: int | None = None, *remotes: str
) -> FirewallRule:
    return FirewallRule.model_validate(
        {
            "direction": "ingress",
            "protocol": protocol,
            "port_min": first,
            "port_max": last,
            "remotes": remotes or None,
        }
    )


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


@pytest.fixture
def net(lab: Lab) -> Net:
    return lab.net()


def guest(lab: Lab, net: Net, last: int, *rules: FirewallRule) -> Guest:
    """A guest with an address, and these rules."""
    made = lab.guest(net, last, rules)
    made.configure()
    return made


def again(lab: Lab, of: Guest, *rules: FirewallRule) -> None:
    """Other rules for the same guest."""
    of.binding = of.binding.model_copy(update={"rules": rules})
    lab.fabric.protect(of.binding)


def test_nothing_comes_in_unless_a_rule_lets_it(lab: Lab, net: Net) -> None:
    sender = guest(lab, net, 11, ANY_EGRESS)
    closed = guest(lab, net, 12, ANY_EGRESS)
    web = guest(lab, net, 13, ANY_EGRESS, ingress("tcp", 80, 82), ICMP)

    assert sender.pings(web.address)
    assert tcp_connects(sender, web, 80)
    assert tcp_connects(sender, web, 82)
    assert not tcp_connects(sender, web, 83)
    assert not sender.pings(closed.address)
    assert not tcp_connects(sender, closed, 80)
    # What it asked for itself comes back in.
    assert closed.pings(web.address)
    assert tcp_connects(closed, web, 81)


def test_nothing_goes_out_unless_a_rule_lets_it(lab: Lab, net: Net) -> None:
    server = guest(lab, net, 11, *OPEN)
    egress = FirewallRule(direction="egress", protocol="tcp", port_min=80, port_max=80)
    client = guest(lab, net, 12, egress, ANY_INGRESS)

    assert tcp_connects(client, server, 80)
    assert not tcp_connects(client, server, 81)
    assert not client.pings(server.address)
    # Its answers go out.
    assert server.pings(client.address)


def test_a_rule_for_some_remotes_is_for_nobody_else(lab: Lab, net: Net) -> None:
    friend, stranger = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    server = guest(lab, net, 20, ANY_EGRESS, ingress("tcp", 80, 80, "10.5.0.11/32"))
    assert tcp_connects(friend, server, 80)
    assert not tcp_connects(stranger, server, 80)

    # More remotes than rules are made for: a set.
    many = [f"10.5.0.{last}/32" for last in range(11, 40, 2)]
    again(lab, server, ANY_EGRESS, ingress("tcp", 80, 80, *many))
    assert tcp_connects(friend, server, 80)
    assert not tcp_connects(stranger, server, 80)

    nobody = FirewallRule(direction="ingress", protocol="tcp", remotes=())
    again(lab, server, ANY_EGRESS, nobody)
    assert not tcp_connects(friend, server, 80)


def test_icmp_rules_go_by_type(lab: Lab, net: Net) -> None:
    sender = guest(lab, net, 11, *OPEN)
    echo = guest(lab, net, 12, ingress("icmp", 8, 0))
    other = guest(lab, net, 13, ingress("icmp", 13))
    assert sender.pings(echo.address)
    assert not sender.pings(other.address)


def test_a_revoked_rule_cuts_open_connections(lab: Lab, net: Net) -> None:
    client = guest(lab, net, 11, *OPEN)
    server = guest(lab, net, 12, ANY_EGRESS, ingress("udp", 5000))
    wire = Wire(server.namespace, "eth0")

    def say(port: int, word: bytes) -> None:
        packet = udp(client.address, server.address, 4000, port, word)
        client.send(ethernet(server.mac, client.mac, ETH_P_IP, packet))

    say(5000, b"before")
    wire.until(b"before")
    again(lab, server, ANY_EGRESS, ingress("udp", 5001))
    say(5000, b"revoked")
    say(5001, b"control")
    assert not any(b"revoked" in frame for frame in wire.until(b"control"))
    wire.close()


def spoofed(guest: Guest, to: Guest) -> dict[str, bytes]:
    """Frames that must not leave a guest, all of them carrying `spoof`."""
    stranger, other_mac = "10.5.0.99", "fa:16:3e:99:99:99"
    mark = b"spoof"
    data = udp(guest.address, to.address, 4000, 5000, mark)
    offer = udp(guest.address, "255.255.255.255", 67, 68, mark * 60)
    claims = {
        "ARP for another's address": arp(2, guest.mac, stranger, to.mac, to.address),
        "ARP with another's MAC": arp(2, other_mac, guest.address, to.mac, to.address),
        "ARP request for another": arp(1, guest.mac, stranger, EVERYONE, to.address),
    }
    foreign = udp(stranger, to.address, 4000, 5000, mark)
    return {
        "another's MAC address": ethernet(to.mac, other_mac, ETH_P_IP, data),
        "another's IP address": ethernet(to.mac, guest.mac, ETH_P_IP, foreign),
        "no IP address": ethernet(
            to.mac, guest.mac, ETH_P_IP, udp("0.0.0.0", to.address, 4000, 5000, mark)
        ),
        "a DHCP server": ethernet(EVERYONE, guest.mac, ETH_P_IP, offer),
        "a VLAN tag": ethernet(
            to.mac, guest.mac, 0x8100, b"\x00\x05" + ETH_P_IP.to_bytes(2, "big") + data
        ),
        "IPv6 (a router advertisement)": ethernet(
            "33:33:00:00:00:01",
            guest.mac,
            0x86DD,
            bytes.fromhex("6000000000103aff") + bytes(16) + bytes(16) + b"\x86\x00" + mark * 4,
        ),
        "an unknown protocol": ethernet(to.mac, guest.mac, 0x88B5, mark * 12),
        **{
            what: ethernet(to.mac, guest.mac, ETH_P_ARP, packet + mark)
            for what, packet in claims.items()
        },
    }


@pytest.mark.parametrize("protected", [True, False])
def test_a_guest_says_only_who_it_is(lab: Lab, net: Net, protected: bool) -> None:
    """With `protected` false the same frames do arrive: they are such as can."""
    liar, hearer = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    if not protected:
        lab.fabric.unprotect(liar.binding.port)
        lab.fabric.unprotect(hearer.binding.port)
    wire = Wire(hearer.namespace, "eth0")
    frames = spoofed(liar, hearer)
    for what, frame in frames.items():
        liar.send(frame)
        control = udp(liar.address, hearer.address, 4000, 5000, f"after {what}".encode())
        liar.send(ethernet(hearer.mac, liar.mac, ETH_P_IP, control))
        heard = wire.until(f"after {what}".encode())
        assert any(b"spoof" in each for each in heard) is not protected, what
    wire.close()


def test_what_other_ethertypes_bring_does_not_reach_a_guest(lab: Lab, net: Net) -> None:
    """From a port that is nobody's guest (the wire): IPv6 is dropped, IPv4 goes by the rules."""
    hearer = guest(lab, net, 12, ANY_EGRESS, ingress("udp", 5000))
    outsider = lab.cable(lab.binding(net, 50))
    bridge = lab.fabric.segment_bridge(net.network)
    assert outsider.binding.port.tap
    ip("link", "set", outsider.binding.port.tap, "master", bridge, "up")
    wire = Wire(hearer.namespace, "eth0")
    for frame in (
        ethernet(hearer.mac, outsider.mac, 0x86DD, b"unwanted" * 8),
        ethernet(
            hearer.mac,
            outsider.mac,
            ETH_P_IP,
            udp(outsider.address, hearer.address, 1, 5001, b"unwanted"),
        ),
    ):
        outsider.send(frame)
    wanted = udp(outsider.address, hearer.address, 1, 5000, b"wanted")
    outsider.send(ethernet(hearer.mac, outsider.mac, ETH_P_IP, wanted))
    assert not any(b"unwanted" in frame for frame in wire.until(b"wanted"))
    wire.close()


def test_guests_and_the_host_do_not_reach_each_other(lab: Lab, net: Net) -> None:
    """Even on a bridge that (as an operator's may) has an address of the host's."""
    first, second = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    bridge = lab.fabric.segment_bridge(net.network)
    ip("address", "add", "10.5.0.200/24", "dev", bridge)
    assert first.pings(second.address)
    assert not first.pings("10.5.0.200")
    host_pings = ["ping", "-n", "-c", "1", "-W", "1", str(first.address)]
    assert subprocess.run(host_pings, capture_output=True, check=False).returncode != 0

    lab.fabric.unprotect(first.binding.port)
    # Several tries: both may still be waiting for an answer to what they asked in vain.
    assert first.pings("10.5.0.200", tries=5)


def test_equal_addresses_of_two_networks_never_meet(lab: Lab) -> None:
    """The same five-tuple, open in one network, opens nothing in the other."""
    left, right = lab.net(), lab.net()
    here, there = guest(lab, left, 11, *OPEN), guest(lab, left, 12, ANY_EGRESS)
    twin, closed = guest(lab, right, 11, *OPEN), guest(lab, right, 12, ANY_EGRESS)
    ends = (Wire(here.namespace, "eth0"), Wire(closed.namespace, "eth0"))

    # `there` opens a connection to `here`, so that replies may come in.
    opened = udp(there.address, here.address, 5000, 4000, b"open")
    there.send(ethernet(here.mac, there.mac, ETH_P_IP, opened))
    ends[0].until(b"open")
    reply = udp(twin.address, closed.address, 4000, 5000, b"reply")
    twin.send(ethernet(closed.mac, twin.mac, ETH_P_IP, reply))

    again(lab, closed, ANY_EGRESS, ingress("udp", 6000))
    control = udp(twin.address, closed.address, 4000, 6000, b"control")
    twin.send(ethernet(closed.mac, twin.mac, ETH_P_IP, control))
    heard = ends[1].until(b"control")
    assert not any(b"reply" in frame or b"open" in frame for frame in heard)
    # In its own network the reply is one.
    wire = Wire(there.namespace, "eth0")
    answer = udp(here.address, there.address, 4000, 5000, b"reply")
    here.send(ethernet(there.mac, here.mac, ETH_P_IP, answer))
    wire.until(b"reply")
    for each in (*ends, wire):
        each.close()


def test_marks_are_taken_off_and_those_of_others_left(lab: Lab, net: Net) -> None:
    sender, receiver = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    table = {"family": "bridge", "table": "lab_marks"}
    counted = [
        nft.match(nft.field("udp", "dport"), 5000),
        nft.match(nft.meta("mark"), 0),
        {"counter": {"packets": 0, "bytes": 0}},
    ]
    hook = {"type": "filter", "hook": "postrouting", "prio": 300, "policy": "accept"}
    nft.apply(
        [
            *nft.new_table(table),
            nft.add_chain(table, "last", **hook),
            nft.add_rule(table, "last", counted),
        ]
    )
    wire = Wire(receiver.namespace, "eth0")
    packet = udp(sender.address, receiver.address, 4000, 5000, b"unmarked")
    sender.send(ethernet(receiver.mac, sender.mac, ETH_P_IP, packet))
    wire.until(b"unmarked")
    wire.close()
    done = subprocess.run(
        ["nft", "-j", "list", "table", "bridge", "lab_marks"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"packets": 1' in json.dumps(json.loads(done.stdout))


def test_two_sites_on_one_host_do_not_disturb_each_other(
    lab: Lab, net: Net, tmp_path: Path
) -> None:
    first = guest(lab, net, 11, *OPEN)
    other = Lab(tmp_path / "other")
    try:
        foreign_net = other.net()
        a, b = guest(other, foreign_net, 11, *OPEN), guest(other, foreign_net, 12, ANY_EGRESS)
        # Each site counts its marks from 1: the same number, and not the same mark.
        same = a.binding.port.model_copy(update={"mark": first.binding.port.mark})
        marks_of = [
            tables_of(site).key(port)
            for site, port in ((lab.site, first.binding.port), (other.site, same))
        ]
        assert marks_of[0] != marks_of[1]
        second = guest(lab, net, 12, *OPEN)
        assert first.pings(second.address)
        assert not a.pings(b.address)
        lab.fabric.unprotect(first.binding.port)
        lab.fabric.unprotect(second.binding.port)
        assert nft.listing("table", family="bridge", name=f"fifty_{lab.site}") is None
        assert not a.pings(b.address)
        assert b.pings(a.address)
    finally:
        other.close()


PROTECT = """
import sys
from pathlib import Path
from blocks.fabric import NetworkFabric
from blocks.resources import PortBinding
fabric = NetworkFabric(Path(sys.argv[1]), sys.argv[2], "lab")
bindings = [PortBinding.model_validate_json(line) for line in sys.stdin]
for binding in bindings:
    fabric.protect(binding)
for binding in bindings[::2]:
    fabric.unprotect(binding.port)
"""


def test_processes_at_the_same_time_lose_no_port(lab: Lab, net: Net) -> None:
    shares: list[list[PortBinding]] = [
        [lab.binding(net, start + n, OPEN) for n in range(12)] for start in (20, 40, 60)
    ]
    directory = str(lab.directory / "networks")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROTECT, directory, lab.site], stdin=subprocess.PIPE, text=True
        )
        for _ in shares
    ]
    for worker, share in zip(workers, shares, strict=True):
        worker.communicate("\n".join(binding.model_dump_json() for binding in share), timeout=120)
        assert worker.returncode == 0
    firewall = NetworkFabric(lab.directory / "networks", lab.site, "lab")
    kept = [binding for share in shares for binding in share[1::2]]
    gone = [binding for share in shares for binding in share[::2]]
    owners = {found.owner for found in firewall.inventory() if found.kind == "nft"}
    assert owners == {binding.port.id for binding in kept}
    for binding in kept:
        assert not [text for text in firewall.prove(binding) if "chain" in text or "map" in text]
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert not [binding for binding in gone if str(binding.port.tap) in listed.stdout]


def _waits_for_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(pid) in line.split() for line in lines)


def test_rules_are_read_when_no_other_process_can_change_any(lab: Lab, net: Net) -> None:
    binding = lab.binding(net, 20, OPEN)
    unprotect = "from pathlib import Path; from blocks.fabric import NetworkFabric; " + (
        "from blocks.resources import Port; import sys; "
        "NetworkFabric(Path(sys.argv[1]), sys.argv[2], 'lab').unprotect("
        "Port.model_validate_json(sys.argv[3]))"
    )
    lab.fabric.protect(binding)
    words = [str(lab.directory / "networks"), lab.site, binding.port.model_dump_json()]

    def read() -> list[PortBinding]:
        other = subprocess.Popen([sys.executable, "-c", unprotect, *words])
        remover.append(other)
        eventually(lambda: _waits_for_a_lock(other.pid), "process that waits for the lock")
        return [binding]

    remover: list[subprocess.Popen[bytes]] = []
    lab.fabric.protect_each(read)
    assert remover[0].wait(timeout=120) == 0
    # Whoever removes last is right: nothing was applied after it from what was read before.
    assert not [found for found in lab.fabric.inventory() if found.kind == "nft"]


def test_protecting_twice_says_so_once_and_mends_what_was_broken(lab: Lab, net: Net) -> None:
    sender, closed = guest(lab, net, 11, *OPEN), guest(lab, net, 12, ANY_EGRESS)
    with changes.collecting() as made:
        lab.fabric.protect(closed.binding)
    assert made == []
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert sender.pings(closed.address)
    wrong = lab.fabric.prove(closed.binding)
    assert [text for text in wrong if "with the rules of all ports, is not there" in text]
    with changes.collecting() as made:
        lab.fabric.protect(closed.binding)
    assert len(made) == 1
    assert not sender.pings(closed.address)


def test_two_networks_with_equal_addresses_stay_apart(lab: Lab) -> None:
    left, right = lab.net(), lab.net()
    here, beside = guest(lab, left, 11, *OPEN), guest(lab, left, 12, *OPEN)
    there, neighbour = guest(lab, right, 12, *OPEN), guest(lab, right, 11, *OPEN)
    near, far = Wire(beside.namespace, "eth0"), Wire(there.namespace, "eth0")

    def shout(speaker: Guest, word: bytes) -> None:
        question = arp(1, speaker.mac, speaker.address, EVERYONE, "10.5.0.12")
        speaker.send(ethernet(EVERYONE, speaker.mac, ETH_P_ARP, question + word))

    shout(here, b"crossing")
    near.until(b"crossing")
    shout(neighbour, b"control")
    assert not any(b"crossing" in frame for frame in far.until(b"control"))
    near.close()
    far.close()


def test_what_the_kernel_tells_is_what_nft_lists(lab: Lab, net: Net) -> None:
    """Chains and elements are read without libnftables; both must see the same."""
    guest(lab, net, 11, *OPEN)
    many = [f"10.5.0.{last}/32" for last in range(11, 60, 3)]
    guest(lab, net, 12, ANY_EGRESS, ingress("tcp", 80, 82, *many))
    tables, chains, members = tables_of(lab.site), 0, 0
    for table in tables.tables():
        for item in nft.listing("chains", family=table["family"]) or []:
            name = item.get("chain", {}).get("name")
            if name and item["chain"]["table"] == table["table"]:
                listing = nft.listing("chain", **table, name=name)
                assert nft_reading.comments(table, name) == nft.comments(listing, table, name)
                chains += 1
        assert nft_reading.comments(table, "nowhere") is None
        assert nft_reading.comments({**table, "table": "nowhere"}, "nowhere") is None
    for table, name, kinds in tables.maps():
        for member in nft.elements(table, name, "map" if "map" in kinds else "set"):
            assert nft_reading.holds(table, name, member)
            key, value = member if isinstance(member, list) else (member, None)
            other = {"goto": {"target": "elsewhere"}} if isinstance(value, dict) else 5
            assert value is None or not nft_reading.holds(table, name, [key, other])
            assert not nft_reading.holds(table, name, 77 if isinstance(key, int) else f"{key}x")
            members += 1
    assert chains >= 6
    assert members >= 8
