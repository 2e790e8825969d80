"""The seed's seven commands from their file, and after Tempest's scenarios what guests do there.

`test_network_basic_ops`, `test_security_groups_basic_ops`, `test_network_advanced_server_ops`
and port security, with real guests; whoever is outside is the external network's namespace.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from deployments import ovs_daemons
from tests.cloud import Cloud
from tests.e2e.seed_network import (
    FILE,
    NETWORK,
    OUTSIDE,
    PUBLIC,
    ROUTER,
    SILENCE_S,
    SeedNetwork,
    goes_on,
    has_ended,
)
from tests.forked import forked
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PING, TCP = ("--protocol", "icmp"), ("--protocol", "tcp")


@pytest.fixture(scope="module", name="seed")
def _seed(site_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeedNetwork]:
    """The seed's network with two guests, `first` with a floating IP; nothing left of it."""
    ovs_daemons.use(site_cloud.home)
    with forked(site_cloud) as cloud:
        seed = SeedNetwork(cloud, tmp_path_factory.mktemp("seed"))
        try:
            seed.fifty("network", "create", "--file", str(FILE))
            seed.create_vm("first", "--floating")
            seed.create_vm("second")
            yield seed
        finally:
            seed.remove()
            left = differences(seed.before, cloud.inventory())
            ovs_daemons.leave(cloud.home)
        assert left == []
        assert cloud.json("audit")["clean"]


@pytest.fixture(scope="module", name="floating")
def _floating(seed: SeedNetwork) -> Iterator[str]:
    """The floating IP of `first`, which lets in anyone from here on: for the tests at the end."""
    seed.fifty("security-group", "add-rule", "default")
    [found] = seed.json("floating-ip", "list")
    yield str(found["address"])
    seed.forget_rules()


def test_the_seven_commands_made_what_they_say(seed: SeedNetwork) -> None:
    network, public = (seed.json("network", "show", name) for name in (NETWORK, PUBLIC))
    router = seed.json("router", "show", ROUTER)
    assert (network["type"], network["segment_id"]) == ("gre", 1)
    [inner], [outer] = network["subnets"], public["subnets"]
    assert (inner["cidr"], inner["gateway"], inner["dns"]) == (
        *("192.168.0.0/24", "192.168.0.1"),
        ["8.8.8.8"],
    )
    assert (public["external"], outer["cidr"], outer["gateway"]) == (True, "172.24.1.0/24", OUTSIDE)
    assert outer["dhcp"] is False
    assert outer["pools"] == [{"first": "172.24.1.100", "last": "172.24.1.200"}]
    assert [leg["network"] for leg in router["interfaces"]] == [NETWORK]
    assert router["gateway"]["network"] == PUBLIC
    assert "172.24.1.100" in json.dumps(router["gateway"])
    assert seed.json("network", "show", NETWORK, "--check")["clean"]
    # And the guest was told of it.
    assert "nameserver 8.8.8.8" in seed.cloud.ssh("first", "cat /etc/resolv.conf")
    assert "default via 192.168.0.1 " in seed.cloud.ssh("first", "ip route")


def test_basic_operations_inside(seed: SeedNetwork) -> None:
    """Guests reach each other, their gateway, and somebody outside."""
    assert seed.pings("first", seed.address("second"))
    assert seed.pings("second", seed.address("first"))
    assert seed.pings("second", "192.168.0.1")
    assert seed.pings("second", OUTSIDE)


def test_the_default_group_lets_nobody_in_until_it_is_told(seed: SeedNetwork) -> None:
    [found] = seed.json("floating-ip", "list")
    address = found["address"]
    assert (found["vm"], found["fixed_address"]) == ("first", seed.address("first"))
    assert not seed.answers(address)
    assert seed.who(address) == ""
    seed.fifty("security-group", "add-rule", "default", *PING)
    assert seed.answers(address)
    assert seed.who(address) == ""
    seed.fifty("security-group", "add-rule", "default", *TCP, "--port", "22")
    assert seed.who(address) == "first"
    seed.forget_rules()
    assert seed.who(address) == ""
    # The site itself logs in all the same.
    assert seed.cloud.ssh("first", "hostname").strip() == "first"


def test_without_port_security_an_address_can_be_anybodys(seed: SeedNetwork) -> None:
    first, second = seed.address("first"), seed.address("second")
    unused = "192.168.0.222"
    seed.cloud.ssh("first", f"ip address add {unused}/24 dev eth0")
    try:
        assert not seed.pings("first", second, "-I", unused)
        seed.fifty("vm", "set-interface", "first", first, "--port-security", "off")
        # `second` lets in what is in its group; now anyone says who they are.
        seed.fifty("security-group", "add-rule", "default", *PING)
        assert seed.pings("first", second, "-I", unused)
    finally:
        seed.fifty("vm", "set-interface", "first", first, "--port-security", "on")
        seed.forget_rules()
    assert not seed.pings("first", second, "-I", unused)
    assert seed.pings("first", second)
    seed.cloud.ssh("first", f"ip address del {unused}/24 dev eth0")


def test_what_the_host_has_lost_of_the_external_network_is_made_again(seed: SeedNetwork) -> None:
    """It was made along with the tenant's, and is a network of its own since."""
    subprocess.run(["ip", "netns", "delete", seed.outside], check=True)
    assert not seed.json("network", "show", PUBLIC, "--check", code=3)["clean"]
    assert not seed.pings("second", OUTSIDE)
    seed.cloud.fifty("reconcile")
    assert seed.pings("second", OUTSIDE)
    assert seed.json("network", "show", PUBLIC, "--check")["clean"]


def test_what_is_in_use_stays(seed: SeedNetwork) -> None:
    before = seed.cloud.inventory()
    assert "in use" in seed.refused("network", "delete", NETWORK)
    assert "in use" in seed.refused("network", "delete", PUBLIC)
    assert seed.refused("router", "delete", ROUTER)
    assert seed.refused("router", "clear-gateway", ROUTER)
    assert seed.refused("router", "remove-interface", ROUTER, NETWORK)
    assert differences(before, seed.cloud.inventory()) == []


def test_a_floating_ip_is_moved_and_detached_while_connections_live(
    seed: SeedNetwork, floating: str
) -> None:
    other = seed.json("floating-ip", "create", PUBLIC)["address"]
    for name in ("first", "second"):
        seed.serve_echo(name)
    try:
        assert seed.who(floating) == "first"
        with seed.talk(floating) as talk:
            assert goes_on(talk)
            seed.fifty("floating-ip", "attach", floating, "second")
            assert seed.who(floating) == "second"
            assert has_ended(talk)
        seed.fifty("floating-ip", "attach", other, "first")
        assert (seed.who(floating), seed.who(other)) == ("second", "first")
        with seed.talk(floating) as cut, seed.talk(other) as kept:
            assert goes_on(cut)
            assert goes_on(kept)
            seed.fifty("floating-ip", "detach", floating)
            assert has_ended(cut)
            assert not seed.answers(floating)
            # The control: the one that was left alone goes on.
            assert goes_on(kept)
        # Hairpin: a guest reaches its neighbour by the address outside.
        assert seed.pings("second", other)
    finally:
        seed.fifty("floating-ip", "delete", other)
        seed.fifty("floating-ip", "attach", floating, "first")


def test_what_a_rule_no_longer_lets_in_ends(seed: SeedNetwork, floating: str) -> None:
    """A group of its own, by CIDR; taken away while somebody is connected."""
    first = seed.address("first")
    seed.serve_echo("first")
    seed.fifty("security-group", "create", "web")
    try:
        rules = seed.json(
            *("security-group", "add-rule", "web", *TCP),
            *("--port", "7777", "--cidr", f"{OUTSIDE}/32"),
        )["rules"]
        seed.fifty("vm", "set-interface", "first", first, "--security-group", "web")
        # Only what the group lets in, of what `default` did: not ping, and not the neighbour.
        assert not seed.answers(floating)
        assert not seed.pings("second", first)
        with seed.talk(floating) as talk:
            assert goes_on(talk)
            [rule] = [rule for rule in rules if rule["direction"] == "ingress"]
            seed.fifty("security-group", "remove-rule", "web", rule["id"])
            assert has_ended(talk)
        with pytest.raises(OSError, match="timed out"):
            seed.talk(floating, SILENCE_S).close()
        # Members of `default`, wherever they are: the neighbour, and nobody outside.
        seed.fifty("security-group", "add-rule", "web", "--remote-group", "default")
        assert seed.pings("second", first)
        assert not seed.answers(floating)
        assert "in use" in seed.refused("security-group", "delete", "web")
        # Both groups at once.
        both = ("--security-group", "web", "--security-group", "default")
        seed.fifty("vm", "set-interface", "first", first, *both)
        assert seed.answers(floating)
    finally:
        seed.fifty("vm", "set-interface", "first", first, "--security-group", "default")
        seed.fifty("security-group", "delete", "web")
    assert seed.pings("second", first)


def test_a_server_that_was_off_is_where_it_was(seed: SeedNetwork, floating: str) -> None:
    before = seed.json("vm", "show", "first")["addresses"]
    hypervisor, instance = seed.cloud.world.hypervisor, seed.cloud.instance("first").id
    hypervisor.shutdown(instance)
    eventually(lambda: hypervisor.state(instance) == "shutoff", "guest that is off")
    seed.cloud.fifty("reconcile")
    assert seed.json("vm", "show", "first")["status"] == "SHUTOFF"
    assert not seed.answers(floating)
    seed.fifty("vm", "start", "first")
    assert seed.json("vm", "show", "first")["addresses"] == before
    assert seed.who(floating) == "first"
    assert seed.pings("first", seed.address("second"))


def test_another_tenant_is_outside(seed: SeedNetwork, floating: str) -> None:
    """Its guest has the same address in its network, and its router the same outside."""
    cloud = seed.cloud
    cloud.fifty(
        *("network", "create", "away", "--cidr", "192.168.0.0/24"),
        *("--router", "away", "--external-network", seed.public.id),
    )
    try:
        cloud.fifty(
            *("vm", "create", "stranger", "--image", "micro", "--flavor", "tiny"),
            *("--network", f"away:{seed.address('first')}"),
        )
        # By the floating IP, as long as a rule lets in who is not in the group.
        assert seed.pings("stranger", floating)
        seed.forget_rules()
        assert not seed.pings("stranger", floating)
        # The control: what is outside of both answers it.
        assert seed.pings("stranger", OUTSIDE)
        assert "stranger" in seed.refused("floating-ip", "attach", floating, "stranger")
    finally:
        cloud.delete(vm["id"] for vm in cloud.json("vm", "list") if vm["name"] == "stranger")
        cloud.fifty("network", "delete", "away")
        cloud.fifty("router", "delete", "away")
