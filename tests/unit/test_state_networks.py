"""What the state store knows about networks: segments, peers, floating IPs, groups and routes."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml

from blocks.errors import Conflict
from blocks.resources import (
    Host,
    Network,
    NetworkDriver,
    NetworkRequest,
    NetworkType,
    Pool,
    PortKind,
    Route,
    Router,
    SecurityGroupRule,
    Subnet,
)
from blocks.state import Caller, StateStore
from tasks.draft import describe_all
from tasks.network_addresses import planned_subnet
from tasks.network_request import problems
from tasks.port_bindings import binding_of
from tests.unit.test_network_bad_input import Site
from tests.unit.test_state_migrations import _upgrade

SEED = Path(__file__).parents[2] / "deployments" / "examples" / "seed-network.yaml"


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "state.db")
    yield site
    site.store.database.dispose()


def _network(store: StateStore, tenant: str, kind: NetworkType, segment: int | None) -> Network:
    return store.networks.create(
        Network(
            id=str(uuid.uuid4()),
            tenant_id=tenant,
            name=f"n-{uuid.uuid4()}",
            type=kind,
            driver=NetworkDriver.OPENVSWITCH,
            segment_id=segment,
            zone=0,
            anchor_host="here",
            port_security=False,
        )
    )


def test_segment_ids_are_unique_for_each_type(site: Site) -> None:
    store, tenant = site.store, site.mine.tenant_id
    for kind in (NetworkType.VLAN, NetworkType.VXLAN):
        made = _network(store, tenant, kind, 7)
        assert store.networks.get(made.id) == made
        assert (made.segment_id, made.driver, made.port_security) == (7, "openvswitch", False)
    with pytest.raises(Conflict, match="gre segment 7 is taken"):
        _network(store, tenant, NetworkType.GRE, 7)
    chosen = [_network(store, tenant, NetworkType.VLAN, None).segment_id for _ in range(20)]
    assert len({*chosen, 7}) == 21
    assert all(number is not None and 1 <= number <= 4094 for number in chosen)
    assert _network(store, tenant, NetworkType.GRE, 2**32 - 1).segment_id == 2**32 - 1
    assert _network(store, tenant, NetworkType.LOCAL, None).segment_id is None


def test_a_segment_id_is_free_again_after_its_network(site: Site) -> None:
    network = _network(site.store, site.mine.tenant_id, NetworkType.GRE, 9)
    assert site.store.networks.delete(network.id)
    assert _network(site.store, site.mine.tenant_id, NetworkType.GRE, 9).segment_id == 9


def test_the_peers_of_a_network_are_the_other_hosts_that_it_is_on(site: Site) -> None:
    store, network = site.store, site.lab
    for number, name in enumerate(("here", "there", "elsewhere", "alone"), start=1):
        address = IPv4Address(f"192.0.2.{number}") if name != "alone" else None
        host = Host(name=name, vcpus=1, ram_mib=1, disk_gib=1, underlay_ip=address)
        store.hosts.report(host)
    assert {host.name: host.underlay_ip for host in store.hosts.list()}["alone"] is None
    assert store.networks.peers(network.id, "here") == []
    # Its anchor is one, with or without a port.
    assert store.networks.peers(network.id, "there") == [IPv4Address("192.0.2.1")]
    for place, last in (("there", 30), ("alone", 31)):
        port = site.guest(site.mine, network, f"10.0.0.{last}")
        store.ports.bind(port, place, [])
        site.guest(site.mine, site.plain, f"10.3.0.{last}")
    assert store.networks.peers(network.id, "here") == [IPv4Address("192.0.2.2")]
    assert store.networks.peers(network.id, "elsewhere") == [
        IPv4Address("192.0.2.1"),
        IPv4Address("192.0.2.2"),
    ]


def test_a_floating_ip_leads_to_one_port_at_a_time(site: Site) -> None:
    store = site.store
    [attached] = store.routers.get(site.router.id).floating_ips
    assert (attached.id, attached.fixed_address) == (site.floating, IPv4Address("10.0.0.20"))
    assert not store.floating_ips.attach(site.floating, site.port)
    other = site.guest(site.mine, site.lab, "10.0.0.21")
    assert store.floating_ips.attach(site.floating, other)
    [moved] = store.routers.get(site.router.id).floating_ips
    assert (moved.port_id, moved.fixed_address) == (other, IPv4Address("10.0.0.21"))
    with pytest.raises(Conflict, match="is attached"):
        store.floating_ips.delete(site.floating)
    assert store.floating_ips.detach(site.floating)
    assert not store.floating_ips.detach(site.floating)
    assert store.routers.get(site.router.id).floating_ips == ()
    assert store.floating_ips.delete(site.floating)
    assert not store.floating_ips.delete(site.floating)
    again = store.floating_ips.create(
        str(uuid.uuid4()), site.mine.tenant_id, site.public.id, attached.address
    )
    assert again.address == attached.address


def test_a_floating_ip_outlives_the_port_that_it_leads_to(site: Site) -> None:
    store = site.store
    store.ports.delete(site.port)
    floating = store.floating_ips.get(site.floating)
    assert (floating.port_id, floating.fixed_address, floating.router_id) == (None, None, None)
    assert floating.address == IPv4Address("172.24.1.150")
    assert store.routers.get(site.router.id).floating_ips == ()
    # It is its tenant's, and nothing that the audit would take back.
    assert site.floating not in {found.name for found in store.allocations.inventory()}


def test_floating_ips_are_seen_by_their_tenant_only(site: Site) -> None:
    store = site.store
    assert store.floating_ips.list(site.other.tenant_id) == []
    mine = store.floating_ips.list(site.mine.tenant_id)
    assert [str(each.address) for each in mine] == ["172.24.1.150", "172.24.1.151"]
    assert store.floating_ips.find(site.mine.tenant_id, "172.24.1.150").id == site.floating


def test_a_rule_reaches_the_ports_of_its_group(site: Site) -> None:
    store = site.store
    port = store.ports.get(site.port)
    before = store.groups.rules_of(port)
    rule = SecurityGroupRule(
        id=str(uuid.uuid4()),
        direction="ingress",
        protocol="icmp",
        port_min=8,
        port_max=0,
        remote_cidr=IPv4Network("192.0.2.0/24"),
    )
    assert store.groups.add_rule(site.group, rule)
    assert not store.groups.add_rule(site.group, rule)
    assert len(store.groups.rules_of(port)) == len(before) + 1
    assert [member.id for member in store.groups.members(site.group)] == [site.port]
    assert store.groups.members(site.group, "elsewhere") == []
    assert store.groups.remove_rule(site.group, rule.id)
    assert not store.groups.remove_rule(site.group, rule.id)
    assert store.groups.rules_of(port) == before


def test_the_default_group_lets_in_its_members_and_nobody_else(site: Site) -> None:
    groups = site.store.groups
    group = groups.find(site.mine.tenant_id, "default")
    assert {(rule.direction, rule.protocol, rule.remote_group_id) for rule in group.rules} == {
        ("egress", None, None),
        ("ingress", None, group.id),
    }


def test_the_site_itself_may_log_in_whatever_the_groups_say(site: Site) -> None:
    """From the DHCP port's address: step 49 asks from there, and `fifty vm ssh`."""
    store = site.store
    port = store.ports.get(site.guest(site.mine, site.lab, "10.0.0.60"))
    assert not binding_of(store, port, "vm").rules
    own = store.ports.plan(
        port_id=str(uuid.uuid4()),
        tenant_id=site.mine.tenant_id,
        network_id=site.lab.id,
        kind=PortKind.DHCP,
        device_id=site.lab.id,
    )
    [subnet] = store.networks.subnets(site.lab.id)
    store.ports.give_address(own.id, subnet.id, IPv4Address("10.0.0.61"))
    [rule] = binding_of(store, port, "vm").rules
    assert rule.model_dump(mode="json") == {
        "direction": "ingress",
        "protocol": "tcp",
        "port_min": 22,
        "port_max": 22,
        "remotes": ["10.0.0.61/32"],
    }


def test_a_new_group_lets_out_and_not_in(site: Site) -> None:
    group = site.store.groups.find(site.mine.tenant_id, "named")
    assert [(rule.direction, rule.protocol, rule.remote_cidr) for rule in group.rules] == [
        ("egress", None, None)
    ]
    site.store.groups.remove_rule(site.group, site.rule)
    assert site.store.groups.delete(site.named)
    assert not site.store.groups.delete(site.named)


def test_routes_and_snat_of_a_router_are_kept(site: Site) -> None:
    routers, router = site.store.routers, site.router
    route = Route(destination=IPv4Network("10.7.0.0/16"), nexthop=IPv4Address("10.0.0.20"))
    assert routers.set_routes(router.id, [route])
    assert not routers.set_routes(router.id, [route])
    assert routers.set_snat(router.id, snat=False)
    assert not routers.set_snat(router.id, snat=False)
    found: Router = routers.get(router.id)
    assert (found.routes, found.snat) == ((route,), False)


def test_a_subnet_keeps_its_pools_in_order_and_its_host_routes(site: Site) -> None:
    network = site.network(site.mine, "pools", "10.6.0.0/24")
    [made] = site.store.networks.subnets(network.id)
    subnet = Subnet(
        id=str(uuid.uuid4()),
        network_id=network.id,
        cidr=IPv4Network("10.8.0.0/24"),
        gateway=IPv4Address("10.8.0.1"),
        pools=tuple(
            Pool(first=IPv4Address(first), last=IPv4Address(last))
            for first, last in (("10.8.0.50", "10.8.0.50"), ("10.8.0.10", "10.8.0.11"))
        ),
        host_routes=(
            Route(destination=IPv4Network("10.99.0.0/16"), nexthop=IPv4Address("10.8.0.50")),
        ),
    )
    site.store.networks.add_subnet(subnet)
    assert list(site.store.networks.subnets(network.id)) == [made, subnet]
    given = []
    for number in range(3):
        port = site.store.ports.plan(
            port_id=str(uuid.uuid4()),
            tenant_id=site.mine.tenant_id,
            network_id=network.id,
            kind=PortKind.COMPUTE,
            device_id=f"vm-{number}",
            port_security=number != 1,
        )
        assert port.port_security is (number != 1)
        given.append(str(site.store.ports.give_address(port.id, subnet.id)[0]))
    assert given == ["10.8.0.50", "10.8.0.10", "10.8.0.11"]
    assert site.store.ports.set_security(port.id, on=False)
    assert not site.store.ports.set_security(port.id, on=False)


def test_a_store_without_drivers_keeps_its_networks(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = StateStore(path, "here")
    _upgrade(store.database, "0002")
    store.database.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO tenants VALUES ('t', 'mine', 1, 120, '2026-01-01')")
        connection.execute(
            "INSERT INTO networks (id, tenant_id, name, type, mtu, external, shared, outside, "
            "zone, anchor_host) VALUES ('n', 't', 'lab', 'vxlan', 1450, 0, 0, 'closed', 5, 'here')"
        )
        connection.execute("INSERT INTO segments VALUES ('vxlan', 77, 'n')")
        connection.execute(
            "INSERT INTO subnets (id, network_id, cidr, gateway, dns, pools, dhcp, lease_s) "
            "VALUES ('s', 'n', '10.0.0.0/24', '10.0.0.1', '[]', '[]', 1, 60)"
        )
        connection.execute(
            'INSERT INTO ports (id, tenant_id, network_id, kind, "index", mark) '
            "VALUES ('p', 't', 'n', 'compute', 0, 9)"
        )
        connection.execute("INSERT INTO routers VALUES ('r', 't', 'main', 'here', 1)")
    connection.close()
    store.initialize()
    network = store.networks.get("n")
    assert (network.driver, network.segment_id, network.port_security) == ("linuxbridge", 77, True)
    assert store.networks.subnets("n")[0].host_routes == ()
    assert store.ports.get("p").port_security
    assert store.routers.get("r").routes == ()
    store.database.dispose()


def test_the_seeds_network_is_one_request(tmp_path: Path) -> None:
    form = yaml.safe_load(SEED.read_text())
    assert describe_all(NetworkRequest, form) == []
    request = NetworkRequest.model_validate(form)
    store = StateStore(tmp_path / "state.db", "here")
    store.initialize()
    tenant = store.tenants.create("openstack")
    caller = store.tenants.caller(store.tenants.issue_token(tenant, "admin"))
    assert isinstance(caller, Caller)
    assert problems(request, caller, store) == []
    assert (request.name, request.type, request.segment) == ("openstack-Net", "gre", 1)
    inside = planned_subnet(str(uuid.uuid4()), request)
    assert (str(inside.cidr), str(inside.gateway), inside.dhcp) == (
        "192.168.0.0/24",
        "192.168.0.1",
        True,
    )
    assert request.create_external is not None
    outside = planned_subnet(str(uuid.uuid4()), request.create_external)
    assert (str(outside.cidr), str(outside.gateway), outside.dhcp) == (
        "172.24.1.0/24",
        "172.24.1.1",
        False,
    )
    [pool] = outside.pools
    assert (str(pool.first), str(pool.last)) == ("172.24.1.100", "172.24.1.200")
    store.database.dispose()
