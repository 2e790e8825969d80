"""What cannot be, about networks, is refused whole: with the reason and a hint, nothing changed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import BaseModel
from sqlalchemy import select

from blocks.errors import Conflict, FiftyError, InvalidRequest, NotFound, QuotaExceeded, Unsupported
from blocks.resources import (
    FloatingIpRequest,
    Network,
    NetworkRequest,
    NetworkType,
    Pool,
    PortKind,
    PortRequest,
    Router,
    RouterRequest,
    SecurityGroupRequest,
    Subnet,
    VmRequest,
)
from blocks.state import Caller, StateStore
from blocks.state.tables import Base
from blocks.world import World
from tasks import floating_ip_actions, router_actions, security_group_actions
from tasks.draft import describe_all, refusal, valid_part
from tasks.network_request import problems
from tasks.router_legs import add_interface

HERE = "here"


class Fabric:
    """Stands for the host: whoever touches it has not refused."""

    def protect_each(self, read: Callable[[], object]) -> None:
        """What is refused when the rules are read has changed none of them."""
        read()
        raise AssertionError("rules were about to be changed")

    def __getattr__(self, name: str) -> Callable[..., None]:
        raise AssertionError(f"{name} was called: something was about to be changed")


class Site:
    """A store with two tenants, their networks and routers, and a guest with a floating IP."""

    def __init__(self, path: Path) -> None:
        self.store = StateStore(path, HERE)
        self.store.initialize()
        self.mine = self.caller("mine", "member")
        self.other = self.caller("other", "member")
        self.admin = Caller(**{**vars(self.mine), "role": "admin"})
        self.world = cast("World", SimpleNamespace(store=self.store, fabric=Fabric()))
        self.lab = self.network(self.mine, "lab", "10.0.0.0/24", NetworkType.GRE, segment_id=7)
        self.office = self.network(self.mine, "office", "10.0.0.128/25")
        self.plain = self.network(self.mine, "plain", "10.3.0.0/24")
        self.theirs = self.network(self.other, "theirs", "10.4.0.0/24")
        self.public = self.network(self.mine, "public", "172.24.1.0/24", external=True)
        self.second = self.network(self.mine, "second", "172.25.1.0/24", external=True)
        self.router = self.made_router("main", self.lab, self.public)
        self.made_router("other", self.office)
        self.port = self.guest(self.mine, self.lab, "10.0.0.20")
        self.lonely = self.guest(self.mine, self.plain, "10.3.0.20")
        self.foreign = self.guest(self.other, self.theirs, "10.4.0.20")
        self.floating = str(uuid.uuid4())
        outside = IPv4Address("172.24.1.150")
        self.store.floating_ips.create(self.floating, self.mine.tenant_id, self.public.id, outside)
        self.store.floating_ips.attach(self.floating, self.port)
        self.free = str(uuid.uuid4())
        free = IPv4Address("172.24.1.151")
        self.store.floating_ips.create(self.free, self.mine.tenant_id, self.public.id, free)
        self.group = str(uuid.uuid4())
        self.store.groups.create(self.group, self.mine.tenant_id, "web")
        self.store.ports.bind(self.port, HERE, [self.group])
        self.named = str(uuid.uuid4())
        self.store.groups.create(self.named, self.mine.tenant_id, "named")
        rule = security_group_actions.planned_rule(
            self.store,
            self.store.groups.get(self.group),
            SecurityGroupRequest(action="add-rule", name="web", remote_group="named"),
        )
        self.store.groups.add_rule(self.group, rule)
        self.rule = rule.id
        self.store.groups.create(str(uuid.uuid4()), self.other.tenant_id, "secret")

    def caller(self, name: str, role: str) -> Caller:
        tenant = self.store.tenants.create(name)
        caller = self.store.tenants.caller(self.store.tenants.issue_token(tenant, role))
        assert caller is not None
        self.store.groups.ensure_default(tenant)
        return caller

    def network(
        self,
        caller: Caller,
        name: str,
        cidr: str,
        kind: NetworkType = NetworkType.VXLAN,
        **values: Any,  # noqa: ANN401
    ) -> Network:
        network = self.store.networks.create(
            Network(
                id=str(uuid.uuid4()),
                tenant_id=caller.tenant_id,
                name=name,
                type=NetworkType.FLAT if values.get("external") else kind,
                zone=0,
                anchor_host=HERE,
                **values,
            )
        )
        whole = IPv4Network(cidr)
        self.store.networks.add_subnet(
            Subnet(
                id=str(uuid.uuid4()),
                network_id=network.id,
                cidr=whole,
                gateway=whole.network_address + 1,
                pools=(Pool(first=whole[10], last=whole[60]),),
            )
        )
        return network

    def made_router(self, name: str, inside: Network, outside: Network | None = None) -> Router:
        router = Router(id=str(uuid.uuid4()), tenant_id=inside.tenant_id, name=name, host=HERE)
        self.store.routers.create(router)
        [subnet] = self.store.networks.subnets(inside.id)
        add_interface(router, inside, subnet, self.store)
        if outside is not None:
            [subnet] = self.store.networks.subnets(outside.id)
            port = self._port(router.tenant_id, outside, PortKind.ROUTER_GATEWAY, router.id)
            self.store.ports.give_address(port, subnet.id)
        return self.store.routers.get(router.id)

    def guest(self, caller: Caller, network: Network, address: str) -> str:
        port = self._port(caller.tenant_id, network, PortKind.COMPUTE, str(uuid.uuid4()))
        [subnet] = self.store.networks.subnets(network.id)
        self.store.ports.give_address(port, subnet.id, IPv4Address(address))
        return port

    def _port(self, tenant: str, network: Network, kind: PortKind, device: str) -> str:
        port = self.store.ports.plan(
            port_id=str(uuid.uuid4()),
            tenant_id=tenant,
            network_id=network.id,
            kind=kind,
            device_id=device,
            host=HERE,
        )
        self.store.ports.give_mac(port.id)
        return port.id

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        with self.store.database.read() as session:
            return {
                table.name: [tuple(row) for row in session.execute(select(table))]
                for table in Base.metadata.sorted_tables
            }


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site") / "state.db")
    yield site
    site.store.database.dispose()


def _checked(model: type[BaseModel], form: Mapping[str, Any], what: str) -> Any:  # noqa: ANN401
    lines = describe_all(model, form)
    if lines:
        raise refusal(what, lines)
    return model.model_validate(form)


def _create_network(site: Site, caller: Caller, form: Mapping[str, Any]) -> None:
    """What step 1 of `create-network` does."""
    lines = describe_all(NetworkRequest, form)
    request = valid_part(NetworkRequest, form)
    if request is not None:
        lines += problems(request, caller, site.store)
    if lines:
        raise refusal("network", lines)


_CHANGES: Mapping[str, tuple[type[BaseModel], Any]] = {
    "router": (RouterRequest, router_actions),
    "floating-ip": (FloatingIpRequest, floating_ip_actions),
    "security-group": (SecurityGroupRequest, security_group_actions),
}


def _change(site: Site, caller: Caller, word: str, form: Mapping[str, Any]) -> str:
    model, module = _CHANGES[word]
    request = _checked(model, form, word)
    lines = module.wrong(request)
    if lines:
        raise refusal(word, lines)
    done: str = module.ACTIONS[request.action](site.world, caller, request)
    return done


def _filled(site: Site, value: Any) -> Any:  # noqa: ANN401
    """A form with the ids of what is there: `{port}` and the like."""
    if isinstance(value, Mapping):
        return {key: _filled(site, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(site, each) for each in value]
    if isinstance(value, str):
        ids = {name: str(getattr(each, "id", each)) for name, each in vars(site).items()}
        return value.format(**ids)
    return value


def _refused(site: Site, do: Callable[[], object]) -> FiftyError:
    """The refusal of what is done, which has changed nothing."""
    before = site.everything()
    with pytest.raises(FiftyError) as raised:
        do()
    assert site.everything() == before
    assert raised.value.hint, "it says what can be done about it"
    assert "\n" not in raised.value.message
    return raised.value


_NET: dict[str, Any] = {"name": "new", "cidr": "10.9.0.0/24"}
_OUT: dict[str, Any] = {"name": "outer", "cidr": "172.30.0.0/24"}

#: Networks that cannot be: what is asked for besides a name and a CIDR, and what is told.
NETWORKS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"cidr": "10.9.0.1/24"}, "host bits"),
    ({"cidr": "10.9.0.0"}, "no prefix length"),
    ({"cidr": "10.9.0.0/30"}, "not between /8 and /29"),
    ({"cidr": "0.0.0.0/0"}, "not between /8 and /29"),
    ({"cidr": "224.0.0.0/24"}, "not for hosts"),
    ({"cidr": "169.254.0.0/16"}, "not for hosts"),
    ({"cidr": "nonsense"}, "not an IPv4 network"),
    ({"cidr": ["10.9.0.0/24", "10.10.0.0/24"]}, "cidr: a network has one subnet"),
    ({"cidr": "10.9.0.0/24,10.10.0.0/24"}, "one subnet; give the other a network of its own"),
    ({"subnets": [{"cidr": "10.10.0.0/24"}]}, "subnets"),
    ({"name": "../../etc"}, "letters, digits"),
    ({"name": "lab"}, "is there already"),
    ({"gateway": "10.8.0.1"}, "not an address for a host of 10.9.0.0/24"),
    ({"gateway": "10.9.0.255"}, "not an address for a host"),
    ({"gateway": "none"}, "gateway: every subnet has a gateway"),
    ({"gateway": False}, "every subnet has a gateway address; without a router"),
    ({"dns": [1]}, "dns.0: is a number"),
    ({"pool": "10.9.0.90-10.9.0.80"}, "reversed"),
    ({"pool": "10.9.0.90-10.10.0.80"}, "10.10.0.80 is not an address for a host"),
    ({"pool": "10.9.0.10"}, "not FIRST-LAST"),
    ({"pool": ["10.9.0.10-10.9.0.20", "10.9.0.20-10.9.0.30"]}, "overlaps 10.9.0.10-10.9.0.20"),
    ({"dns": ["8.8.8.8.8"]}, "dns.0"),
    ({"dns": ["8.8.8.8", "8.8.8.8"]}, "twice"),
    ({"type": "token-ring"}, "type"),
    ({"type": "gre", "segment": 0}, "not between 1 and 4294967295"),
    ({"type": "gre", "segment": 2**32}, "not between 1 and 4294967295"),
    ({"type": "vxlan", "segment": 2**24}, "not between 1 and 16777215"),
    ({"type": "vlan", "segment": 4095, "physical_interface": "eth0"}, "not between 1 and 4094"),
    ({"type": "gre", "segment": 7}, "segment 7 is taken"),
    ({"type": "local", "segment": 3}, "has no segment id"),
    ({"type": "vlan"}, "needs the host's interface"),
    ({"type": "vxlan", "physical_interface": "eth0"}, "needs none"),
    ({"type": "vlan", "physical_interface": "../eth0"}, "physical_interface"),
    ({"type": "gre", "physical_bridge": "br0"}, "has its own bridge"),
    ({"router": "main", "cidr": "10.0.0.0/16"}, "overlaps 10.0.0.0/24 of the network 'lab'"),
    ({"router": "main", "cidr": "172.24.0.0/16"}, "overlaps 172.24.1.0/24"),
    ({"external": True, "cidr": "172.24.1.128/25"}, "overlaps 172.24.1.0/24"),
    ({"external": True, "router": "main"}, "an external network is a router's gateway"),
    ({"external_network": "public"}, "needs a router"),
    ({"router": "new", "external_network": "lab"}, "is not an external network"),
    ({"router": "new", "external_network": "nowhere"}, "there is no network 'nowhere'"),
    ({"router": "main", "external_network": "second"}, "has its gateway in 'public'"),
    ({"outside": "uplink"}, "is for external networks"),
    ({"external": True, "outside": "bridge"}, "needs the physical bridge"),
    ({"create_external": _OUT}, "needs a router"),
    ({"router": "new", "create_external": {**_OUT, "name": "new"}}, "that of the tenant network"),
    ({"router": "new", "create_external": {**_OUT, "cidr": "10.9.0.0/25"}}, "overlaps 10.9.0.0/24"),
    ({"router": "new", "create_external": {**_OUT, "name": "public"}}, "is there already"),
    (
        {"router": "new", "create_external": {**_OUT, "pool": "172.30.0.200-172.30.0.100"}},
        "create_external.pool: '172.30.0.200-172.30.0.100' is reversed",
    ),
    (
        {"router": "new", "create_external": _OUT, "external_network": "public"},
        "cannot be in 'public' and in 'outer'",
    ),
    ({"host_routes": [{"destination": "10.8.0.0/16", "nexthop": "10.7.0.1"}]}, "10.7.0.1 is not"),
    ({"host_routes": [{"destination": "10.8.0.1/16", "nexthop": "10.9.0.5"}]}, "host bits"),
    (
        {
            "type": "flat",
            "external": True,
            "host_routes": [{"destination": "10.8.0.0/16", "nexthop": "10.9.0.5"}],
        },
        "an external network has none",
    ),
    ({"surprise": 1}, "surprise"),
)


@pytest.mark.parametrize(("more", "told"), NETWORKS, ids=[told for _more, told in NETWORKS])
def test_a_network_that_cannot_be(site: Site, more: dict[str, Any], told: str) -> None:
    form = {**_NET, **more}
    error = _refused(site, lambda: _create_network(site, site.admin, form))
    assert isinstance(error, InvalidRequest)
    assert told in str(error)


ADMINS: tuple[dict[str, Any], ...] = (
    {"external": True},
    {"type": "gre", "segment": 8},
    {"type": "vlan", "physical_interface": "eth0"},
    {"type": "flat", "physical_bridge": "br0"},
    {"port_security": False},
    {"router": "new", "create_external": _OUT},
)


@pytest.mark.parametrize("more", ADMINS, ids=[list(more)[-1] for more in ADMINS])
def test_what_only_an_admin_may(site: Site, more: dict[str, Any]) -> None:
    form = {**_NET, **more}
    error = _refused(site, lambda: _create_network(site, site.mine, form))
    assert "only an admin may" in str(error)
    _create_network(site, site.admin, form)


def test_all_that_is_wrong_is_told_at_once(site: Site) -> None:
    form = {**_NET, "name": "lab", "gateway": "1.1.1.1", "pool": "x", "type": "gre", "segment": 7}
    error = _refused(site, lambda: _create_network(site, site.admin, form))
    assert len(error.details) == 4


IPV6: tuple[dict[str, Any], ...] = (
    {"cidr": "fd00:1::/64"},
    {"gateway": "fd00:1::1"},
    {"dns": ["2001:4860:4860::8888"]},
    {"pool": ["fd00:1::10-fd00:1::20"]},
    {"host_routes": [{"destination": "fd00:2::/64", "nexthop": "10.9.0.5"}]},
    {"router": "new", "create_external": {**_OUT, "cidr": "fd00:1::/64"}},
)


@pytest.mark.parametrize("more", IPV6, ids=[list(more)[-1] for more in IPV6])
def test_ipv6_is_refused_by_name(site: Site, more: dict[str, Any]) -> None:
    form = {**_NET, **more}
    error = _refused(site, lambda: _create_network(site, site.admin, form))
    assert isinstance(error, Unsupported)
    assert "IPv6 is not supported" in str(error)


IPV6_ELSEWHERE: tuple[tuple[type[BaseModel], dict[str, Any]], ...] = (
    (VmRequest, {"name": "a", "image": "micro", "networks": ["lab:fd00::1"]}),
    (VmRequest, {"name": "a", "image": "micro", "networks": ["lab"], "fixed_ip": "fd00::1"}),
    (PortRequest, {"action": "attach", "name": "a", "network": "lab", "fixed_ip": "fd00::1"}),
    (FloatingIpRequest, {"action": "attach", "name": "172.24.1.9", "fixed_ip": "fd00::1"}),
    (
        RouterRequest,
        {
            "action": "set-routes",
            "name": "r",
            "routes": [{"destination": "fd00:2::/64", "nexthop": "fd00::1"}],
        },
    ),
    (
        SecurityGroupRequest,
        {"action": "add-rule", "name": "g", "direction": "ingress", "remote_cidr": "fd00::/64"},
    ),
    (
        SecurityGroupRequest,
        {"action": "add-rule", "name": "g", "direction": "ingress", "protocol": "ipv6-icmp"},
    ),
)


@pytest.mark.parametrize(
    ("model", "form"), IPV6_ELSEWHERE, ids=[f"{one.__name__}" for one, _form in IPV6_ELSEWHERE]
)
def test_ipv6_is_refused_by_name_elsewhere(model: type[BaseModel], form: dict[str, Any]) -> None:
    lines = describe_all(model, form)
    assert lines
    assert isinstance(refusal("request", lines), Unsupported)
    # The control: nothing else is wrong with it.
    plain = json.loads(
        json.dumps(form)
        .replace("fd00:2::/64", "10.7.0.0/16")
        .replace("fd00::/64", "10.7.0.0/16")
        .replace("fd00::1", "10.0.0.9")
        .replace("ipv6-icmp", "icmp")
    )
    assert describe_all(model, plain) == []


_ROUTE = {"destination": "10.7.0.0/16", "nexthop": "10.0.0.20"}

#: Changes that cannot be: of what, the request, the kind of refusal, and what is told.
CHANGES: tuple[tuple[str, dict[str, Any], type[FiftyError], str], ...] = (
    ("router", {"action": "create", "name": "main"}, Conflict, "is there already"),
    ("router", {"action": "explode", "name": "main"}, InvalidRequest, "action"),
    ("router", {"action": "add-interface", "name": "main"}, InvalidRequest, "needs one"),
    (
        "router",
        {"action": "add-interface", "name": "main", "network": "office"},
        Conflict,
        "10.0.0.128/25 overlaps 10.0.0.0/24",
    ),
    (
        "router",
        {"action": "add-interface", "name": "other", "network": "lab"},
        Conflict,
        "overlaps",
    ),
    (
        "router",
        {"action": "add-interface", "name": "main", "network": "theirs"},
        NotFound,
        "there is no network 'theirs'",
    ),
    (
        "router",
        {"action": "add-interface", "name": "main", "network": "second"},
        InvalidRequest,
        "not one of the tenant's own",
    ),
    (
        "router",
        {"action": "remove-interface", "name": "main", "network": "lab"},
        Conflict,
        "needs its leg there",
    ),
    (
        "router",
        {"action": "remove-interface", "name": "main", "network": "public"},
        InvalidRequest,
        "is external",
    ),
    (
        "router",
        {"action": "set-gateway", "name": "main", "network": "second"},
        Conflict,
        "has its gateway in 'public'",
    ),
    (
        "router",
        {"action": "set-gateway", "name": "main", "network": "lab"},
        InvalidRequest,
        "is not an external network",
    ),
    ("router", {"action": "clear-gateway", "name": "main"}, Conflict, "needs its leg there"),
    ("router", {"action": "clear-gateway", "name": "main", "snat": True}, InvalidRequest, "snat"),
    ("router", {"action": "delete", "name": "main"}, Conflict, "is attached to lab"),
    ("router", {"action": "delete", "name": "nothing"}, NotFound, "there is no router"),
    ("router", {"action": "set-routes", "name": "main"}, InvalidRequest, "needs them"),
    (
        "router",
        {
            "action": "set-routes",
            "name": "main",
            "routes": [{**_ROUTE, "nexthop": "10.99.0.1"}],
        },
        InvalidRequest,
        "in none of the router's networks",
    ),
    (
        "router",
        {"action": "set-routes", "name": "main", "routes": [{**_ROUTE, "nexthop": "10.0.0.1"}]},
        InvalidRequest,
        "is the router itself",
    ),
    (
        "router",
        {"action": "set-routes", "name": "main", "routes": [_ROUTE, _ROUTE]},
        InvalidRequest,
        "given twice",
    ),
    (
        "router",
        {
            "action": "set-routes",
            "name": "main",
            "routes": [{**_ROUTE, "destination": "0.0.0.0/0"}],
        },
        InvalidRequest,
        "the default route",
    ),
    (
        "router",
        {"action": "set-routes", "name": "main", "routes": [{**_ROUTE, "nexthop": "fd00::1"}]},
        Unsupported,
        "IPv6",
    ),
    ("floating-ip", {"action": "create"}, InvalidRequest, "needs the external network"),
    ("floating-ip", {"action": "create", "network": "lab"}, InvalidRequest, "not an external"),
    (
        "floating-ip",
        {"action": "create", "network": "public", "name": "172.24.1.150"},
        Conflict,
        "is taken",
    ),
    (
        "floating-ip",
        {"action": "create", "network": "public", "name": "10.1.1.1"},
        InvalidRequest,
        "is not in 172.24.1.0/24",
    ),
    (
        "floating-ip",
        {"action": "create", "network": "public", "name": "172.24.1.1"},
        Conflict,
        "is the gateway",
    ),
    (
        "floating-ip",
        {"action": "create", "network": "public", "name": "fd00::5"},
        Unsupported,
        "v6",
    ),
    (
        "floating-ip",
        {"action": "attach", "name": "172.24.1.151", "port": "{lonely}"},
        Conflict,
        "no router leads from 'public' to 'plain'",
    ),
    (
        "floating-ip",
        {"action": "attach", "name": "172.24.1.151", "port": "{port}"},
        Conflict,
        "172.24.1.150 leads to 10.0.0.20 already",
    ),
    (
        "floating-ip",
        {"action": "attach", "name": "172.24.1.151", "port": "{foreign}"},
        NotFound,
        "there is no port",
    ),
    (
        "floating-ip",
        {
            "action": "attach",
            "name": "172.24.1.151",
            "port": "{port}",
            "fixed_ip": "10.0.0.99",
        },
        InvalidRequest,
        "not an address of the port",
    ),
    (
        "floating-ip",
        {"action": "attach", "name": "172.24.1.151", "vm": "nobody"},
        NotFound,
        "nobody",
    ),
    ("floating-ip", {"action": "attach", "name": "172.24.1.151"}, InvalidRequest, "one of them"),
    ("floating-ip", {"action": "detach", "name": "172.24.1.9"}, NotFound, "no floating IP"),
    ("security-group", {"action": "create", "name": "web"}, Conflict, "is there already"),
    ("security-group", {"action": "delete", "name": "web"}, Conflict, "is in use"),
    ("security-group", {"action": "delete", "name": "named"}, Conflict, "is in use"),
    ("security-group", {"action": "delete", "name": "default"}, Conflict, "stays"),
    ("security-group", {"action": "delete", "name": "secret"}, NotFound, "no security group"),
    ("security-group", {"action": "remove-rule", "name": "web"}, InvalidRequest, "rule's id"),
    (
        "security-group",
        {"action": "remove-rule", "name": "named", "rule": "{rule}"},
        InvalidRequest,
        "one of the group 'web'",
    ),
    (
        "security-group",
        {"action": "add-rule", "name": "web", "remote_group": "named"},
        Conflict,
        "has this rule already",
    ),
)


@pytest.mark.parametrize(
    ("word", "form", "kind", "told"),
    CHANGES,
    ids=[f"{word} {form['action']}: {told}" for word, form, _kind, told in CHANGES],
)
def test_a_change_that_cannot_be(
    site: Site, word: str, form: dict[str, Any], kind: type[FiftyError], told: str
) -> None:
    error = _refused(site, lambda: _change(site, site.mine, word, _filled(site, form)))
    assert type(error) is kind
    assert told in str(error)


#: Rules that cannot be, and what is told.
RULES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"protocol": "tcp", "port_min": 0}, "port_min"),
    ({"protocol": "tcp", "port_min": 70000}, "port_min"),
    ({"protocol": "tcp", "port_min": 80, "port_max": 70000}, "port_max"),
    ({"protocol": "tcp", "port_min": 90, "port_max": 80}, "90 is after 80"),
    ({"protocol": "tcp", "port_max": 80}, "needs the first port"),
    ({"protocol": "quic"}, "protocol"),
    ({"protocol": "tcp; drop table"}, "protocol"),
    ({"port_min": 80}, "tcp or udp"),
    ({"protocol": "icmp", "port_min": 80}, "tcp or udp"),
    ({"protocol": "tcp", "icmp_type": 8}, "of protocol icmp"),
    ({"protocol": "icmp", "icmp_type": 256}, "icmp_type"),
    ({"protocol": "icmp", "icmp_code": 0}, "needs the type"),
    ({"direction": "sideways"}, "direction"),
    ({"remote_cidr": "10.0.0.1/24"}, "host bits"),
    ({"remote_cidr": "10.0.0.0/24", "remote_group": "web"}, "not both"),
    ({"remote_group": "secret"}, "there is no security group 'secret'"),
)


@pytest.mark.parametrize(("rule", "told"), RULES, ids=[told for _rule, told in RULES])
def test_a_rule_that_cannot_be(site: Site, rule: dict[str, Any], told: str) -> None:
    form = {"action": "add-rule", "name": "web", **rule}
    error = _refused(site, lambda: _change(site, site.mine, "security-group", form))
    assert type(error) in (InvalidRequest, NotFound)
    assert told in str(error)


def test_a_network_in_use_stays(site: Site) -> None:
    for network, user in ((site.lab, site.port), (site.public, site.floating)):
        error = _refused(site, partial(site.store.networks.delete, network.id))
        assert isinstance(error, Conflict)
        assert user in str(error)


def test_a_quota_that_is_used_up(site: Site) -> None:
    quota = site.store.quota
    tenant = site.mine.tenant_id
    cases: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("floating_ips", "floating-ip", {"action": "create", "network": "public"}),
        ("security_groups", "security-group", {"action": "create", "name": "one-more"}),
        (
            "security_group_rules",
            "security-group",
            {"action": "add-rule", "name": "web", "protocol": "udp"},
        ),
        ("routers", "router", {"action": "create", "name": "one-more"}),
    )
    for resource, word, form in cases:
        used, limit = quota.standing(tenant)[resource]
        assert used > 0
        quota.set_limit(tenant, resource, used)
        error = _refused(site, partial(_change, site, site.mine, word, form))
        assert isinstance(error, QuotaExceeded)
        assert resource in error.message
        quota.set_limit(tenant, resource, limit)
