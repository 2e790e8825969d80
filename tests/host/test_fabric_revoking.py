"""Rules that change while connections are open: what is revoked ends, what is not lives on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes
from blocks.fabric import connections
from blocks.resources import FirewallRule
from tests.host.fabric_lab import (
    ANY_EGRESS,
    ETH_P_IP,
    Guest,
    Lab,
    Net,
    Wire,
    ethernet,
    lab_at,
    udp,
    wait_for,
)
from tests.host.fabric_talks import talk

pytestmark = pytest.mark.host

ANY_INGRESS = FirewallRule(direction="ingress")
OPEN = (ANY_EGRESS, ANY_INGRESS)


def ingress(protocol: str, first: int | None = None, *remotes: str) -> FirewallRule:
    return FirewallRule.model_validate(
        {
            "direction": "ingress",
            "protocol": protocol,
            "port_min": first,
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
    made = lab.guest(net, last, rules)
    made.configure()
    return made


def again(lab: Lab, of: Guest, *rules: FirewallRule) -> None:
    of.binding = of.binding.model_copy(update={"rules": rules})
    lab.fabric.protect(of.binding)


def test_what_a_rule_still_lets_pass_lives_on(lab: Lab, net: Net) -> None:
    client, server = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    with (
        talk(client.namespace, server.namespace, 80, address=server.address) as kept,
        talk(client.namespace, server.namespace, 81, address=server.address) as revoked,
        talk(server.namespace, client.namespace, 82, address=client.address) as outward,
    ):
        with changes.collecting() as made:
            again(lab, server, ANY_EGRESS, ingress("tcp", 80))
        assert [change.what for change in made if "Cut 1 connections" in change.what]
        assert kept.goes_on()
        assert outward.goes_on()
        assert revoked.has_ended()
        # Now one that was begun from inside.
        again(lab, server, ingress("tcp", 80))
        assert kept.goes_on()
        assert outward.has_ended()


def test_a_revoked_connection_does_not_come_back_from_the_other_side(lab: Lab, net: Net) -> None:
    """Both may begin connections with the other; this one was begun by who may not any more."""
    client, server = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    with talk(client.namespace, server.namespace, address=server.address) as revoked:
        assert revoked.goes_on()
        again(lab, server, ANY_EGRESS)
        # `has_ended` lets the server speak first, which may send whatever it likes.
        assert revoked.has_ended()
        with talk(server.namespace, client.namespace, 81, address=client.address) as other:
            assert other.goes_on()


def test_a_remote_that_leaves_a_group_is_cut_and_the_others_are_not(lab: Lab, net: Net) -> None:
    member, leaver = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    server = guest(lab, net, 20, ANY_EGRESS, ingress("tcp", 80, "10.5.0.11/32", "10.5.0.12/32"))
    with (
        talk(leaver.namespace, server.namespace, 80, address=server.address) as cut,
    ):
        again(lab, server, ANY_EGRESS, ingress("tcp", 80, "10.5.0.11/32"))
        assert cut.has_ended()
    with talk(member.namespace, server.namespace, 80, address=server.address) as kept:
        many = [f"10.5.0.{last}/32" for last in range(11, 60, 3)]
        again(lab, server, ANY_EGRESS, ingress("tcp", 80, *many))
        assert kept.goes_on()


def test_what_was_killed_before_it_cut_cuts_when_it_is_repeated(
    lab: Lab, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with talk(client.namespace, server.namespace, address=server.address) as revoked:
        with monkeypatch.context() as patch:
            patch.setattr(connections, "cut", killed)
            with pytest.raises(KeyboardInterrupt):
                again(lab, server, ANY_EGRESS)
        lab.fabric.protect(server.binding)
        assert revoked.has_ended()


def test_a_thousand_connections_are_cut_in_one_go(lab: Lab, net: Net) -> None:
    client, server = guest(lab, net, 11, *OPEN), guest(lab, net, 12, *OPEN)
    packets = [udp(client.address, server.address, 4000, 10000 + n, b"open") for n in range(1000)]
    frames = [ethernet(server.mac, client.mac, ETH_P_IP, packet) for packet in packets]
    client.send(*frames)
    zone = net.network.zone

    def open_ones() -> int:
        return len(connections.tracked(zone, {server.address}))

    wait_for("the packets to be seen", lambda: open_ones() == 1000)
    again(lab, server, ANY_EGRESS, ingress("udp", 10001))
    assert open_ones() == 1


def test_icmp_rules_go_by_type_and_code_and_end_with_them(lab: Lab, net: Net) -> None:
    sender, echo = guest(lab, net, 11, *OPEN), guest(lab, net, 12, ingress("icmp", 8))
    words = ["ping", "-n", "-i", "0.2", "-W", "1", str(echo.address)]
    pinging = subprocess.Popen(
        ["ip", "netns", "exec", sender.namespace, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert pinging.stdout
        while "icmp_seq=3" not in pinging.stdout.readline():
            assert pinging.poll() is None
        again(lab, echo, ingress("icmp", 13))
        wire = Wire(echo.namespace, "eth0")
        control = udp(sender.address, echo.address, 1, 5000, b"control")
        again(lab, echo, ingress("icmp", 13), ingress("udp", 5000))
        sender.send(ethernet(echo.mac, sender.mac, ETH_P_IP, control))
        wire.until(b"control")
        # The same ping, of the same id, which was a tracked connection a moment ago.
        for number in range(3):
            word = f"after {number}".encode()
            assert not sender.pings(echo.address)
            later = udp(sender.address, echo.address, 1, 5000, word)
            sender.send(ethernet(echo.mac, sender.mac, ETH_P_IP, later))
            heard = wire.until(word)
            assert not any(frame[12:14] == b"\x08\x00" and frame[23] == 1 for frame in heard)
        wire.close()
    finally:
        pinging.kill()
        pinging.wait()


def test_turning_port_security_on_ends_what_it_does_not_let_pass(lab: Lab, net: Net) -> None:
    client = guest(lab, net, 11, *OPEN)
    binding = lab.binding(net, 12, (ANY_EGRESS, ingress("tcp", 80)))
    unsecured = binding.port.model_copy(update={"port_security": False})
    server = lab.cable(binding.model_copy(update={"port": unsecured}))
    lab.fabric.plug(server.binding, None)
    lab.fabric.protect(server.binding)
    server.configure()
    with (
        talk(client.namespace, server.namespace, 80, address=server.address) as kept,
        talk(client.namespace, server.namespace, 81, address=server.address) as ends,
    ):
        assert ends.goes_on()
        lab.fabric.protect(binding)
        assert kept.goes_on()
        assert ends.has_ended()
