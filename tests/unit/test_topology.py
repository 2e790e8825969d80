"""The picture of networks, routers and VMs, drawn from a real state store."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from blocks.resources import Network, NetworkType, Pool, PortKind, Router, Subnet
from blocks.settings import settings
from deployments.cli.app import run
from tasks.network_build import NETWORK
from tasks.summary import render
from tasks.topology import GuestPlug, NetworkPicture, Topology, mermaid, topology
from tests.unit.cli_store import Filled


@pytest.fixture(name="filled")
def _filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    settings.cache_clear()
    filled = Filled(tmp_path)
    yield filled
    filled.store.database.dispose()
    settings.cache_clear()


def add_outside(filled: Filled) -> Network:
    network = filled.store.networks.create(
        Network(
            id=str(uuid.uuid4()),
            tenant_id=filled.tenant,
            name="ext",
            type=NetworkType.FLAT,
            external=True,
            zone=1,
            anchor_host="here",
        )
    )
    cidr = IPv4Network("172.24.1.0/24")
    subnet = Subnet(
        id=str(uuid.uuid4()),
        network_id=network.id,
        cidr=cidr,
        gateway=cidr[1],
        pools=(Pool(first=cidr[100], last=cidr[200]),),
        dhcp=False,
    )
    filled.store.networks.add_subnet(subnet)
    return network


def add_router(filled: Filled, name: str, inside: Network, outside: Network | None) -> str:
    store = filled.store
    router = Router(id=str(uuid.uuid4()), tenant_id=inside.tenant_id, name=name, host="here")
    store.routers.create(router)
    legs = [(inside, PortKind.ROUTER_INTERFACE)]
    if outside is not None:
        legs.append((outside, PortKind.ROUTER_GATEWAY))
    for network, kind in legs:
        port = store.ports.plan(
            port_id=str(uuid.uuid4()),
            tenant_id=inside.tenant_id,
            network_id=network.id,
            kind=kind,
            device_id=router.id,
            host="here",
        )
        [subnet] = store.networks.subnets(network.id)
        if kind is PortKind.ROUTER_INTERFACE:
            store.ports.give_gateway(port.id, subnet.id)
        else:
            store.ports.give_address(port.id, subnet.id)
    return router.id


def seed(filled: Filled) -> None:
    """The seed's network with two VMs, one of them with a floating IP, and a free one."""
    outside = add_outside(filled)
    add_router(filled, "r1", filled.network, outside)
    web = filled.add_vm("web", address="10.0.0.7")
    filled.add_vm("db", address="10.0.0.8")
    attached, free = (str(uuid.uuid4()) for _ in range(2))
    for one in (attached, free):
        filled.store.floating_ips.create(one, filled.tenant, outside.id)
    [port] = filled.store.ports.of_device(web.id)
    filled.store.floating_ips.attach(attached, port.id)


def diagram(filled: Filled, tenant: str | None = None, around: Network | None = None) -> str:
    return mermaid(topology(filled.store, tenant, around))


def test_the_seeds_network_as_mermaid(filled: Filled) -> None:
    seed(filled)
    segment = filled.store.networks.get(filled.network.id).segment_id
    drawn = diagram(filled)
    assert drawn.startswith("flowchart TB\n")
    lines = [line.strip() for line in drawn.splitlines() if "classDef" not in line]
    assert lines[1:] == [
        'n0o(["outside<br/>closed"]):::outside',
        "n0o --- n0",
        'n0[["ext<br/>172.24.1.0/24<br/>flat<br/>floating IP 172.24.1.102 is free"]]:::outside',
        f'n1[["lab<br/>10.0.0.0/24<br/>vxlan {segment}"]]:::network',
        'v0["db"]:::vm',
        'n1 ---|"10.0.0.8"| v0',
        'v1["web"]:::vm',
        'n1 ---|"10.0.0.7<br/>⇄ 172.24.1.101"| v1',
        'r0{{"r1<br/>router"}}:::router',
        'n0 ---|"172.24.1.100"| r0',
        'r0 ---|"10.0.0.1"| n1',
    ]


def test_of_many_that_are_alike_a_few_are_drawn(filled: Filled) -> None:
    seed(filled)
    for number in range(13):
        filled.add_vm(f"worker-{number:02}", address=f"10.0.0.{100 + number}")
    drawn = diagram(filled)
    # With `db` fourteen: two are told in a word. `web` has a floating IP.
    assert drawn.count(":::vm") == 1 + 12 + 1
    assert 'n1 --- n1m["and 2 more VMs"]:::vm' in drawn
    assert '"web"' in drawn
    assert "10.0.0.112" not in drawn
    assert "10.0.0.110" in drawn


def test_only_what_hangs_together(filled: Filled) -> None:
    """Two networks behind routers of their own hang together by the outside alone: not at all."""
    seed(filled)
    outside = next(one for one in filled.store.networks.list() if one.external)
    apart, alone = (filled.add_network(name, filled.tenant) for name in ("apart", "alone"))
    add_router(filled, "r2", apart, outside)
    names = {
        around.name: {one.network.name for one in topology(filled.store, None, around).networks}
        for around in (filled.network, apart, alone, outside)
    }
    assert names == {
        "lab": {"lab", "ext"},
        "apart": {"apart", "ext"},
        "alone": {"alone"},
        "ext": {"lab", "apart", "ext"},
    }
    routers = {one.name for one in topology(filled.store, None, filled.network).routers}
    assert routers == {"r1"}


def test_others_things_are_not_in_a_tenants_picture(filled: Filled) -> None:
    seed(filled)
    other = filled.add_tenant("other", "member")
    add_router(filled, "theirs", filled.add_network("secret", other), None)
    filled.add_vm("hidden", tenant=other, address="10.0.0.9")
    mine = diagram(filled, filled.tenant)
    assert not re.search("theirs|secret|hidden|10.0.0.9", mine)
    assert re.search("theirs", diagram(filled))
    yours = diagram(filled, other)
    assert '"secret<br/>' in yours and not re.search("web|db|r1|172.24.1.10", yours)


def test_a_tree_on_a_terminal(
    filled: Filled, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(filled)
    filled.add_network("alone", filled.tenant)
    numbers = {one.name: one.segment_id for one in filled.store.networks.list()}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["network", "show", "--topology"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "outside (closed)",
        "└─ ext 172.24.1.0/24 flat",
        "   ├─ router r1 172.24.1.100, SNAT",
        f"   │  └─ lab 10.0.0.0/24 vxlan {numbers['lab']}, router's 10.0.0.1",
        "   │     ├─ VM db 10.0.0.8",
        "   │     └─ VM web 10.0.0.7, floating IP 172.24.1.101",
        "   └─ floating IP 172.24.1.102, free",
        f"alone 10.0.0.0/24 vxlan {numbers['alone']}",
    ]


def test_mermaid_for_a_file_and_json(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    seed(filled)
    assert run(["network", "show", "lab", "--topology"]) == 0
    assert capsys.readouterr().out == diagram(filled)
    assert run(["network", "show", "lab", "--topology", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mermaid"] == diagram(filled)
    assert {one["name"]: len(one["vms"]) for one in found["networks"]} == {"ext": 0, "lab": 2}


def test_a_plain_show_needs_a_name(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    assert filled.network.name == "lab"
    assert run(["network", "show"]) == 2
    assert "which network" in capsys.readouterr().err
    assert run(["network", "show", "lab", "--check", "--topology"]) == 2
    assert "two views" in capsys.readouterr().err


def test_a_network_in_its_summary(filled: Filled) -> None:
    seed(filled)
    build, _new = filled.store.builds.open(
        build_id=filled.network.id,
        catalogue="network",
        name="lab",
        credentials="default",
        request={"name": "lab"},
        request_id="r",
        flow_run_id=None,
        policy="rollback",
    )
    assert "mermaid" not in render(NETWORK, filled.store, build)
    filled.store.builds.update(build.id, state="complete")
    text = render(NETWORK, filled.store, filled.store.builds.get(build.id))
    [block] = re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block == diagram(filled, filled.tenant, filled.network)


@pytest.mark.parametrize("name", ['a"]; click x', "`" * 5, "<script>", "a\nb", "x#y;"])
def test_a_label_holds_whatever_it_is_given(name: str) -> None:
    """Names are checked long before; a diagram does not depend on it."""
    guest = GuestPlug("id", name, (), ())
    network = Network(
        id="n", tenant_id="t", name="net", type=NetworkType.LOCAL, zone=1, anchor_host="h"
    )
    drawn = mermaid(Topology((NetworkPicture(network, (), (guest,)),), ()))
    [line] = [line for line in drawn.splitlines() if line.endswith(":::vm")]
    [label] = re.findall(r'^  v0\["([^"`<>\n]*)"\]:::vm$', line)
    assert re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label) == name
