"""What is given out is given out once, whoever asks at the same time: real processes, one store."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from blocks.errors import Conflict, HostFault, InvalidRequest, QuotaExceeded
from blocks.resources import Host, Network, NetworkType, Pool, PortKind, Subnet
from blocks.state import StateStore

ASKER = """
import json, sys
from pathlib import Path
from blocks.errors import FiftyError
from blocks.state import StateStore
store, what = StateStore(Path(sys.argv[1]), "h"), sys.argv[2]
got = []
for name in sys.argv[3:]:
    try:
        if what == "address":
            got.append(str(store.ports.give_address(name, "subnet")[0]))
        elif what == "mac":
            got.append(store.ports.give_mac(name)[0])
        elif what == "quota":
            store.quota.reserve("tenant", name, {"instances": 1})
            got.append(name)
        elif what == "claim":
            store.hosts.claim(name, "h", {"vcpus": 1, "ram_mib": 10, "disk_gib": 1})
            got.append(name)
        elif what == "lease":
            got.append(store.leases.acquire("build", "create"))
            input()
    except FiftyError as error:
        got.append(type(error).__name__)
print(json.dumps(got))
"""


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    """A store with a tenant, a network of 40 addresses, and a host."""
    store = StateStore(tmp_path / "state.db", "h")
    store.initialize()
    with store.database.write() as session:
        from blocks.state.tables import TenantRow

        session.add(TenantRow(id="tenant", name="tenant"))
    network = Network(
        id="network",
        tenant_id="tenant",
        name="n",
        type=NetworkType.LOCAL,
        zone=0,
        anchor_host="h",
    )
    store.networks.create(network)
    store.networks.add_subnet(
        Subnet(
            id="subnet",
            network_id="network",
            cidr=IPv4Network("10.0.0.0/24"),
            gateway=IPv4Address("10.0.0.1"),
            pools=(Pool(first=IPv4Address("10.0.0.10"), last=IPv4Address("10.0.0.49")),),
        )
    )
    store.hosts.report(Host(name="h", vcpus=2, ram_mib=1000, disk_gib=100, ram_ratio=1.0))
    return store


def _ports(store: StateStore, count: int) -> list[str]:
    names = [str(uuid.uuid4()) for _ in range(count)]
    for name in names:
        store.ports.plan(
            port_id=name,
            tenant_id="tenant",
            network_id="network",
            kind=PortKind.COMPUTE,
            device_id=None,
        )
    return names


def _ask(store: StateStore, what: str, names: list[str], processes: int) -> list[str]:
    """Let several processes ask at once, each for its share."""
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER, str(store.database.path), what, *names[n::processes]],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    said = [asker.communicate(timeout=120)[0] for asker in askers]
    return [got for line in said for got in json.loads(line)]


def test_no_address_is_given_out_twice(store: StateStore) -> None:
    got = _ask(store, "address", _ports(store, 40), 4)
    assert sorted(map(IPv4Address, got)) == [IPv4Address(f"10.0.0.{n}") for n in range(10, 50)]


def test_the_pools_last_address_is_given_out_once_when_five_ask(store: StateStore) -> None:
    for port in _ports(store, 39):
        store.ports.give_address(port, "subnet")
    got = _ask(store, "address", _ports(store, 5), 5)
    assert sorted(got) == ["10.0.0.49", *["Conflict"] * 4]


def test_several_pools_are_used_one_after_the_other(store: StateStore) -> None:
    """The gaps between them are nobody's, unless somebody asks for one of them."""
    pools = (("10.1.0.20", "10.1.0.21"), ("10.1.0.5", "10.1.0.5"), ("10.1.0.40", "10.1.0.41"))
    store.networks.add_subnet(
        Subnet(
            id="pools",
            network_id="network",
            cidr=IPv4Network("10.1.0.0/24"),
            gateway=IPv4Address("10.1.0.40"),
            pools=tuple(Pool.model_validate({"first": a, "last": b}) for a, b in pools),
        )
    )
    *ports, between, last = _ports(store, 6)
    got = [str(store.ports.give_address(port, "pools")[0]) for port in ports]
    assert got == ["10.1.0.20", "10.1.0.21", "10.1.0.5", "10.1.0.41"]
    assert store.ports.give_address(between, "pools", IPv4Address("10.1.0.30"))[1]
    with pytest.raises(Conflict, match="no address is free"):
        store.ports.give_address(last, "pools")
    store.ports.take_addresses(ports[0])
    assert str(store.ports.give_address(last, "pools")[0]) == got[0]


def test_no_mac_is_given_out_twice(store: StateStore) -> None:
    got = _ask(store, "mac", _ports(store, 40), 4)
    assert len(set(got)) == 40


def test_quota_is_never_exceeded(store: StateStore) -> None:
    store.quota.set_limit("tenant", "instances", 7)
    got = _ask(store, "quota", [f"owner{n}" for n in range(20)], 4)
    assert got.count("QuotaExceeded") == 13


def test_what_an_owner_holds_grows_and_shrinks_within_the_quota(store: StateStore) -> None:
    store.quota.set_limit("tenant", "ports", 3)
    store.quota.reserve("tenant", "vm", {"ports": 1, "instances": 1})
    assert [store.quota.resize("tenant", "vm", "ports", n) for n in (2, 2, 3)] == [
        True,
        False,
        True,
    ]
    with pytest.raises(QuotaExceeded, match="1 more asked for, 3 of 3"):
        store.quota.resize("tenant", "vm", "ports", 4)
    assert store.quota.resize("tenant", "vm", "ports", 1)
    assert store.quota.resize("tenant", "other", "ports", 2)
    assert store.quota.release("vm") == 2


def test_a_host_is_never_claimed_beyond_its_totals(store: StateStore) -> None:
    got = _ask(store, "claim", [f"instance{n}" for n in range(40)], 4)
    assert got.count("HostFault") == 40 - 2 * 16


def test_a_taken_or_wrong_address_is_refused(store: StateStore) -> None:
    first, second = _ports(store, 2)
    wanted = IPv4Address("10.0.0.77")
    assert store.ports.give_address(first, "subnet", wanted) == (wanted, True)
    assert store.ports.give_address(first, "subnet", wanted) == (wanted, False)
    refused: list[tuple[str, type[Exception]]] = [
        ("10.0.0.77", Conflict),
        ("10.0.0.1", Conflict),
        ("10.0.1.1", InvalidRequest),
        ("10.0.0.255", InvalidRequest),
    ]
    for address, error in refused:
        with pytest.raises(error):
            store.ports.give_address(second, "subnet", IPv4Address(address))


def test_a_reservation_is_all_or_nothing_and_can_be_repeated(store: StateStore) -> None:
    store.quota.reserve("tenant", "a", {"instances": 1, "cores": 2})
    store.quota.reserve("tenant", "a", {"instances": 1, "cores": 2})
    assert store.quota.held("a") == {"instances": (1, False), "cores": (2, False)}
    with pytest.raises(QuotaExceeded) as refusal:
        store.quota.reserve("tenant", "b", {"instances": 1, "cores": 500, "volumes": 900})
    assert len(refusal.value.details) == 2
    assert store.quota.held("b") == {}


def test_a_claim_that_does_not_fit_says_what_is_lacking(store: StateStore) -> None:
    with pytest.raises(HostFault) as fault:
        store.hosts.claim("i", "h", {"vcpus": 1, "ram_mib": 1001, "disk_gib": 1})
    assert fault.value.details == ("ram_mib: 1001 asked for, 1000 free",)


def test_a_claim_grows_and_shrinks_with_its_volumes(store: StateStore) -> None:
    """To the host's last GiB; what is more is refused, and the claim is as it was."""
    [host] = store.hosts.list()
    all_of_it = int(host.disk_gib * host.disk_ratio)
    store.hosts.claim("other", "h", {"vcpus": 1, "ram_mib": 10, "disk_gib": 2})
    store.hosts.claim("i", "h", {"vcpus": 1, "ram_mib": 10, "disk_gib": 1})
    assert [store.hosts.resize("i", size) for size in (3, 3, all_of_it - 2)] == [True, False, True]
    with pytest.raises(HostFault) as fault:
        store.hosts.resize("i", all_of_it)
    assert fault.value.details == ("disk_gib: 2 asked for, 0 free",)
    assert store.hosts.list()[0].claimed_disk_gib == all_of_it
    assert store.hosts.resize("i", 1)
    assert store.hosts.list()[0].claimed_disk_gib == 3
    assert not store.hosts.resize("nobody", 1)


def test_a_lease_is_held_by_one_and_free_when_its_holder_is_dead(store: StateStore) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", ASKER, str(store.database.path), "lease", "x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        _until(lambda: store.leases.held("build") == "create")
        with pytest.raises(Conflict):
            store.leases.acquire("build", "resume")
        assert store.leases.forget_dead() == []
    finally:
        holder.kill()
        holder.wait()
    assert store.leases.forget_dead() == ["build"]
    token = store.leases.acquire("build", "resume")
    assert store.leases.renew("build", token)
    store.leases.release("build", token)
    assert store.leases.held("build") is None


def _until(true: Callable[[], bool]) -> None:
    from tests.waiting import eventually

    eventually(true, "lease", limit_s=60)
