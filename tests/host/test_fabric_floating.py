"""Floating IPs, routes, and gateways that come and go, while connections are open."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import connections, run_in
from blocks.resources import FirewallRule, FloatingIp, PortBinding, Route, Router
from tests.host.fabric_lab import ANY_EGRESS, Guest, Lab, Net, Wire, ip, lab_at
from tests.host.fabric_talks import floating, given, talk
from tests.waiting import eventually

pytestmark = pytest.mark.host

OPEN = (ANY_EGRESS, FirewallRule(direction="ingress"))
FAR, GATEWAY, FLOATING, SECOND = ("198.51.100.1", "198.51.100.10", "198.51.100.20", "198.51.100.21")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


@pytest.fixture
def outside(lab: Lab) -> Net:
    net = lab.net("198.51.100.0/24", external=True)
    lab.fabric.realize_outside(net.network, net.subnet)
    return net


def guest(lab: Lab, net: Net, last: int) -> Guest:
    """A guest with an address and a route to its router, open to everything."""
    made = lab.guest(net, last, OPEN)
    made.configure(net.subnet.cidr[1])
    return made


def connected(lab: Lab, *nets: Net, outside: Net, snat: bool = True) -> Router:
    router = lab.router(*nets, outside=outside, snat=snat)
    lab.fabric.realize_router(router)
    lab.fabric.connect_outside(router)
    return router


def far_end(outside: Net) -> str:
    """The namespace of who is outside."""
    return marks.outside_namespace(outside.network.id)


def reaches(outside: Net, address: str) -> bool:
    """Whether an address answers those outside."""
    ping = ["ping", "-n", "-c", "1", "-W", "1", address]
    done = run_in(far_end(outside), lambda: subprocess.run(ping, capture_output=True, check=False))
    return done.returncode == 0


def test_a_floating_ip_leads_to_its_guest_and_is_its_address_outside(
    lab: Lab, outside: Net
) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    chosen, other = guest(lab, net, 11), guest(lab, net, 12)
    far = far_end(outside)
    assert not reaches(outside, FLOATING)
    given(lab, router, floating(outside, 20, chosen))
    with talk(far, chosen.namespace, address=FLOATING, at=chosen.address) as inward:
        assert inward.goes_on()
        assert inward.seen_as == FAR
    for each, seen_as in ((chosen, FLOATING), (other, GATEWAY)):
        with talk(each.namespace, far, address=FAR) as outward:
            assert outward.goes_on()
            assert outward.seen_as == seen_as


def test_the_neighbours_are_told_of_a_floating_ip(lab: Lab, outside: Net) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    assert router.gateway and router.gateway.port.mac
    wire = Wire(far_end(outside), marks.dhcp_leg_name(outside.network.id))
    given(lab, router, floating(outside, 20, guest(lab, net, 11)))
    mac = bytes.fromhex(router.gateway.port.mac.replace(":", ""))
    wire.until(mac + socket.inet_aton(FLOATING))
    wire.close()


def test_detaching_cuts_what_went_over_it_and_nothing_else(lab: Lab, outside: Net) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    one, two = guest(lab, net, 11), guest(lab, net, 12)
    far = far_end(outside)
    pair = (floating(outside, 20, one), floating(outside, 21, two))
    router = given(lab, router, *pair)
    with (
        talk(far, one.namespace, 80, address=FLOATING, at=one.address) as cut,
        talk(one.namespace, far, 81, address=FAR) as cut_too,
        talk(far, two.namespace, 82, address=SECOND, at=two.address) as kept,
        talk(one.namespace, two.namespace, 83, address=two.address) as within,
    ):
        router = given(lab, router, pair[1])
        assert kept.goes_on()
        assert within.goes_on()
        assert cut.has_ended()
        assert cut_too.has_ended()
    assert not reaches(outside, FLOATING)
    assert one.pings(FAR), "by the gateway's address again"


def test_a_port_is_proven_whatever_becomes_of_others_floating_ips(lab: Lab, outside: Net) -> None:
    """Step 38 of one VM, while another's is recorded and not yet connected, or just given up."""
    net = lab.net()
    router = connected(lab, net, outside=outside)
    one, two = guest(lab, net, 11), guest(lab, net, 12)
    own, another = floating(outside, 20, one), floating(outside, 21, two)

    def recorded(*all_of_it: FloatingIp) -> Router:
        return router.model_copy(update={"floating_ips": all_of_it})

    def told(binding: PortBinding, *all_of_it: FloatingIp) -> str:
        found = lab.fabric.prove(binding, recorded(*all_of_it))
        return " ".join(text for text in found if "floating" in text or "qg-" in text)

    given(lab, router, own)
    assert told(one.binding, own, another) == ""
    assert SECOND in told(two.binding, own, another)
    given(lab, router, own, another)
    assert told(one.binding, own) == ""
    assert SECOND in " ".join(lab.fabric.router_differences(recorded(own)))
    given(lab, router)
    assert FLOATING in told(one.binding, own, another)


def test_a_floating_ip_moves_to_another_guest(lab: Lab, outside: Net) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    one, two = guest(lab, net, 11), guest(lab, net, 12)
    far = far_end(outside)
    before = floating(outside, 20, one)
    router = given(lab, router, before)
    with talk(far, one.namespace, address=FLOATING, at=one.address) as old:
        assert old.goes_on()
        given(lab, router, before.model_copy(update={"fixed_address": two.address}))
        with talk(far, two.namespace, 81, address=FLOATING, at=two.address) as new:
            assert new.goes_on()
        assert old.has_ended()


def test_a_floating_ip_moves_to_another_router(lab: Lab, outside: Net) -> None:
    """Those outside, who still know the first router's MAC address, are told the other's."""
    left, right = lab.net(), lab.net()
    first = connected(lab, left, outside=outside)
    second = lab.router(right, outside=outside)
    assert second.gateway
    other = second.gateway.port.addresses[0].model_copy(update={"address": outside.subnet.cidr[11]})
    port = second.gateway.port.model_copy(update={"addresses": (other,)})
    gateway = second.gateway.model_copy(update={"port": port})
    second = second.model_copy(update={"gateway": gateway})
    lab.fabric.realize_router(second)
    lab.fabric.connect_outside(second)
    here, there = guest(lab, left, 11), guest(lab, right, 11)
    first = given(lab, first, floating(outside, 20, here))
    assert reaches(outside, FLOATING)
    given(lab, first)
    given(lab, second, floating(outside, 20, there))
    far = far_end(outside)
    with talk(far, there.namespace, address=FLOATING, at=there.address) as moved:
        assert moved.goes_on()


def test_guests_reach_a_floating_ip_of_their_own_network(lab: Lab, outside: Net) -> None:
    """Hairpin: the answer must come from the address that was asked."""
    left, right = lab.net("10.5.0.0/24"), lab.net("10.6.0.0/24")
    router = connected(lab, left, right, outside=outside)
    target, beside, beyond = guest(lab, left, 11), guest(lab, left, 12), guest(lab, right, 13)
    given(lab, router, floating(outside, 20, target), floating(outside, 21, beyond))
    for asker, seen_as in ((beside, GATEWAY), (beyond, SECOND), (target, FLOATING)):
        with talk(asker.namespace, target.namespace, address=FLOATING, at=target.address) as turn:
            assert turn.goes_on()
            assert turn.seen_as == seen_as


def test_floating_ips_work_without_snat_for_the_others(lab: Lab, outside: Net) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside, snat=False)
    chosen, other = guest(lab, net, 11), guest(lab, net, 12)
    given(lab, router, floating(outside, 20, chosen))
    assert reaches(outside, FLOATING)
    far = far_end(outside)
    with talk(chosen.namespace, far, address=FAR) as outward:
        assert outward.seen_as == FLOATING
    assert not other.pings(FAR)
    ip("-n", far, "route", "add", "10.5.0.0/24", "via", GATEWAY)
    assert other.pings(FAR)


def test_snat_is_turned_on_and_off_while_guests_run(lab: Lab, outside: Net) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    client = guest(lab, net, 11)
    far = far_end(outside)
    ip("-n", far, "route", "add", "10.5.0.0/24", "via", GATEWAY)
    for snat, seen_as in ((True, GATEWAY), (False, str(client.address)), (True, GATEWAY)):
        with talk(client.namespace, far, address=FAR) as outward:
            assert outward.goes_on()
            assert outward.seen_as == seen_as
            lab.fabric.connect_outside(router.model_copy(update={"snat": not snat}))
            assert outward.has_ended()


def test_connecting_again_changes_nothing_and_cuts_nothing(lab: Lab, outside: Net) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    one, two = guest(lab, net, 11), guest(lab, net, 12)
    router = given(lab, router, floating(outside, 20, one))
    far = far_end(outside)
    with (
        talk(far, one.namespace, 80, address=FLOATING, at=one.address) as inward,
        talk(two.namespace, far, 81, address=FAR) as outward,
        talk(two.namespace, one.namespace, 82, address=FLOATING, at=one.address) as hairpin,
        changes.collecting() as made,
    ):
        lab.fabric.realize_router(router)
        lab.fabric.connect_outside(router)
        assert made == []
        assert inward.goes_on()
        assert outward.goes_on()
        assert hairpin.goes_on()


def _somebody_waits_for_a_lock() -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(os.getpid()) in line.split() for line in lines)


def test_two_changes_at_once_do_not_undo_each_other(lab: Lab, outside: Net) -> None:
    """The second one is recorded, and begins, when the first has read the record already."""
    net = lab.net()
    one, two = guest(lab, net, 11), guest(lab, net, 12)
    bare = lab.router(net, outside=outside)
    pair = (floating(outside, 20, one), floating(outside, 21, two))
    with_one = bare.model_copy(update={"floating_ips": pair[:1]})
    with_both = bare.model_copy(update={"floating_ips": pair})
    second = threading.Thread(target=lab.fabric.follow_router, args=(bare.id, lambda: with_both))

    def read() -> Router:
        second.start()
        eventually(lambda: _somebody_waits_for_a_lock() or not second.is_alive(), "second change")
        return with_one

    # The thread is in this test's namespace, as it is started from here.
    lab.fabric.follow_router(bare.id, read)
    second.join()
    assert lab.fabric.router_differences(with_both) == []
    assert reaches(outside, FLOATING)
    assert reaches(outside, SECOND)


def test_what_was_killed_before_it_cut_cuts_when_it_is_repeated(
    lab: Lab, outside: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = lab.net()
    router = connected(lab, net, outside=outside)
    one = guest(lab, net, 11)
    router = given(lab, router, floating(outside, 20, one))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with talk(far_end(outside), one.namespace, address=FLOATING, at=one.address) as inward:
        bare = router.model_copy(update={"floating_ips": ()})
        with monkeypatch.context() as patch:
            patch.setattr(connections, "cut", killed)
            with pytest.raises(KeyboardInterrupt):
                lab.fabric.connect_outside(bare)
        given(lab, bare)
        assert inward.has_ended()


@pytest.mark.parametrize(
    "breaks",
    [
        ["nft", "flush", "ruleset"],
        ["nft", "delete", "element", "ip", "TABLE", "floating_to", f"{{ {FLOATING} }}"],
        ["nft", "flush", "chain", "ip", "TABLE", "postrouting"],
        ["ip", "address", "delete", f"{FLOATING}/32", "dev", "OUTER"],
        ["ip", "route", "delete", "10.7.0.0/24"],
        ["ip", "route", "delete", "default"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_what_was_broken_is_told_and_mended(lab: Lab, outside: Net, breaks: list[str]) -> None:
    net = lab.net()
    one = guest(lab, net, 11)
    router = lab.router(net, outside=outside)
    route = Route.model_validate({"destination": "10.7.0.0/24", "nexthop": "10.5.0.11"})
    router = router.model_copy(update={"routes": (route,)})
    lab.fabric.realize_router(router)
    lab.fabric.connect_outside(router)
    router = given(lab, router, floating(outside, 20, one))
    assert router.gateway
    names = {
        "TABLE": marks.firewall_table(lab.site),
        "OUTER": marks.gateway_leg_name(router.gateway.port.id),
    }
    words = [names.get(word, word) for word in breaks]
    run_in(marks.router_namespace(router.id), lambda: subprocess.run(words, check=True))
    assert lab.fabric.router_differences(router)
    lab.fabric.realize_router(router)
    lab.fabric.connect_outside(router)
    assert lab.fabric.router_differences(router) == []
    assert reaches(outside, FLOATING)


def test_a_route_leads_to_a_network_behind_another_router(lab: Lab) -> None:
    left, transit, right = (lab.net(cidr) for cidr in ("10.5.0.0/24", "10.6.0.0/24", "10.7.0.0/24"))
    first, second = lab.router(left, transit), lab.router(right, transit)
    # Both have a leg in the transit network; the second is .9 there.
    leg = second.legs[1]
    fixed = leg.port.addresses[0].model_copy(update={"address": transit.subnet.cidr[9]})
    moved = leg.model_copy(update={"port": leg.port.model_copy(update={"addresses": (fixed,)})})
    second = second.model_copy(update={"legs": (second.legs[0], moved)})
    here, there = guest(lab, left, 11), guest(lab, right, 12)

    def routed(router: Router, *pairs: tuple[str, str]) -> None:
        made = tuple(Route.model_validate({"destination": to, "nexthop": by}) for to, by in pairs)
        given_routes = router.model_copy(update={"routes": made})
        lab.fabric.realize_router(given_routes)
        assert lab.fabric.router_differences(given_routes) == []
        with changes.collecting() as again:
            lab.fabric.realize_router(given_routes)
        assert again == []

    routed(second, ("10.5.0.0/24", "10.6.0.1"))
    routed(first)
    assert not here.pings(there.address)
    routed(first, ("10.7.0.0/24", "10.6.0.9"))
    assert here.pings(there.address)
    # A more exact one, and another next hop for the first.
    routed(first, ("10.7.0.0/24", "10.6.0.8"), ("10.7.0.12/32", "10.6.0.9"))
    assert here.pings(there.address)
    routed(first, ("10.7.0.0/24", "10.6.0.8"))
    assert not here.pings(there.address)
    with pytest.raises(InvalidRequest, match="no network of the router"):
        routed(first, ("10.7.0.0/24", "10.9.0.1"))


def test_the_gateway_comes_and_goes_while_guests_talk(lab: Lab, outside: Net) -> None:
    left, right = lab.net("10.5.0.0/24"), lab.net("10.6.0.0/24")
    bare = lab.router(left, right)
    lab.fabric.realize_router(bare)
    here, there = guest(lab, left, 11), guest(lab, right, 12)
    far = far_end(outside)
    with talk(here.namespace, there.namespace, address=there.address) as within:
        assert not here.pings(FAR)
        router = lab.router(left, right, outside=outside)
        router = bare.model_copy(update={"gateway": router.gateway})
        lab.fabric.connect_outside(router)
        assert within.goes_on()
        with talk(here.namespace, far, 81, address=FAR) as outward:
            assert outward.goes_on()
            lab.fabric.disconnect_outside(bare)
            assert lab.fabric.router_differences(bare) == []
            assert within.goes_on()
            assert outward.has_ended()


def test_another_gateway_takes_the_place_of_the_first(lab: Lab, outside: Net) -> None:
    net = lab.net()
    elsewhere = lab.net("203.0.113.0/24", external=True)
    lab.fabric.realize_outside(elsewhere.network, elsewhere.subnet)
    router = connected(lab, net, outside=outside)
    client = guest(lab, net, 11)
    other = lab.router(net, outside=elsewhere)
    router = router.model_copy(update={"gateway": other.gateway})
    assert [text for text in lab.fabric.router_differences(router) if "should not have" in text]
    lab.fabric.realize_router(router)
    lab.fabric.connect_outside(router)
    assert lab.fabric.router_differences(router) == []
    assert client.pings("203.0.113.1")
    assert not client.pings(FAR)
