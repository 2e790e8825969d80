"""Two hosts of one state store: what each does by itself so that their tunnels meet."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest

from blocks import marks
from blocks.hypervisor.guest import InterfaceSpec
from blocks.resources import Instance, Network, Port, PortKind
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.world import World
from tasks.interface_change import attach_interface, detach_interface
from tasks.network_restore import lost_here, repair, repair_each
from tasks.port_bindings import RULES_STEP, binding_of
from tasks.segments import differences_here, follow_hosts, follow_rules, realize_here
from tasks.steps_31_38_network import (
    realize_segments,
    release_reservations,
    remove_unused_segments,
    serve_dhcp,
)
from tasks.vm_build import VmBuild
from tests import sessions
from tests.host.fabric_lab import Guest, Wire, ip
from tests.host.test_fabric_dhcp import take_lease
from tests.host.underlay_lab import ANYONE, UPLINK, Host, shout, underlay_at
from tests.unit.cli_store import Filled

pytestmark = [pytest.mark.host, pytest.mark.slow]


@dataclass
class Member:
    """A host of the site: its own data plane, and the records that all share."""

    host: Host
    world: World
    filled: Filled

    @property
    def store(self) -> StateStore:
        return self.world.store

    @property
    def network(self) -> Network:
        return self.store.networks.get(self.filled.network.id)

    def follow(self) -> list[str]:
        return self.host.run(lambda: follow_hosts(self.world))

    def differences(self) -> list[str]:
        return self.host.run(lambda: differences_here(self.network, self.world))

    def guest(self, name: str, address: str, group: str | None = None) -> Guest:
        """A VM here, as far as the network knows of one; without a group, open to all."""
        request = {"name": name, "image": "micro", "networks": ["lab"]}
        instance: Instance = self.filled.add_vm(name, address=address, request=request)
        [port] = self.store.ports.of_device(instance.id)
        self.store.ports.bind(port.id, self.store.host, [group] if group else [])
        binding = binding_of(self.store, self.store.ports.get(port.id), name)
        if group is None:
            binding = binding.model_copy(update={"rules": ANYONE})
        fabric, network = self.world.fabric, binding.network
        self.host.run(lambda: realize_segments.do([network], self.world, fabric))
        self.host.run(lambda: serve_dhcp.do([binding], [self.dhcp_port], fabric))
        guest = self.host.cable(binding)
        self.host.run(lambda: fabric.plug(binding, None))
        self.host.run(lambda: fabric.protect(binding))
        self.store.journal.intend(instance.id, 1, RULES_STEP, self.store.host)
        return guest

    def mend(self) -> list[str]:
        """What a reconcile here finds of networks that others anchor, and repairs."""

        def mend() -> list[str]:
            found = lost_here(self.world)
            for network, _build, _why in found:
                repair_each(network, self.world, repair)
            return [text for _network, _build, why in found for text in why]

        return self.host.run(mend)

    @property
    def dhcp_port(self) -> Port:
        [port] = self.store.ports.list(kind=PortKind.DHCP, network_id=self.filled.network.id)
        return port

    def delete(self, guest: Guest) -> None:
        """What a VM's deletion undoes of its network."""
        port, fabric = guest.binding.port, self.world.fabric
        self.host.run(lambda: fabric.unprotect(port))
        self.host.run(lambda: fabric.unplug(port))
        self.host.run(lambda: release_reservations([port], fabric))
        self.leave(port)
        self.store.ports.delete(port.id)

    def leave(self, port: Port) -> None:
        """What the undo of step 31 does for one port."""
        fabric = self.world.fabric
        self.host.run(lambda: remove_unused_segments([port], fabric, self.store))


@pytest.fixture(name="two")
def _two(tmp_path: Path, session_directory: Path) -> Iterator[list[Member]]:
    """Two hosts; the first anchors the network `lab`, and serves it."""
    filled = Filled(tmp_path)
    sessions.note_site(session_directory, filled.store.site)
    with underlay_at(tmp_path, filled.store.site) as underlay:
        members = []
        for name in ("here", "there"):
            host = underlay.join(vswitch=False)
            store = filled.store if name == "here" else StateStore(tmp_path / "state.db", name)
            settings = Settings(home=tmp_path, host=name, underlay_ip=host.address)
            world = World(settings, store, use_blocks=False)
            # A libvirt is not what this is about.
            libvirt = SimpleNamespace(
                totals=lambda: (1, 1024),
                load=lambda: 0.0,
                features=lambda: {},
                qemu_identity=lambda: (None, None),
                state=lambda _instance: "running",
            )
            world.__dict__.update(fabric=host.lab.fabric, hypervisor=libvirt)
            members.append(Member(host, world, filled))
        _serve(members[0])
        yield members
        for member in members:
            member.store.database.dispose()


def _serve(anchor: Member) -> None:
    """What `create-network` leaves."""
    store, network = anchor.store, anchor.network
    [subnet] = store.networks.subnets(network.id)
    dhcp = store.ports.plan(
        port_id=str(uuid.uuid4()),
        tenant_id=network.tenant_id,
        network_id=network.id,
        kind=PortKind.DHCP,
        device_id=network.id,
        host=store.host,
    )
    store.ports.give_mac(dhcp.id)
    store.ports.give_address(dhcp.id, subnet.id)
    store.builds.open(
        build_id=network.id,
        catalogue="network",
        name=network.name,
        credentials="default",
        request={},
        request_id="r",
        flow_run_id=None,
        policy="rollback",
    )
    store.builds.update(network.id, state="complete")
    anchor.host.run(lambda: realize_here(network, anchor.world))
    fabric = anchor.world.fabric
    anchor.host.run(lambda: fabric.serve_dhcp(network, subnet, anchor.dhcp_port))
    anchor.host.run(lambda: fabric.serve_metadata(network))


def links(host: Host) -> set[str]:
    return {line.split()[0] for line in host.says("ip", "-br", "link").splitlines()}


def test_tunnels_follow_the_hosts_of_the_records(two: list[Member]) -> None:
    near, far = two
    here = near.guest("first", "10.0.0.7")
    here.configure()
    assert near.follow() == []

    there = far.guest("second", "10.0.0.8")
    there.configure()
    # The first host was not told yet: what follows is not there by itself.
    assert not here.pings(there.address)
    assert near.follow() == ["lab"]
    assert here.pings(there.address, 3)
    assert (near.follow(), far.follow()) == ([], [])

    # The second host moves to another address of the underlay.
    moved = IPv4Address("192.0.2.77")
    ip("-n", far.host.namespace, "address", "delete", f"{far.host.address}/24", "dev", UPLINK)
    ip("-n", far.host.namespace, "address", "replace", f"{moved}/24", "dev", UPLINK)
    far.world.settings = far.world.settings.model_copy(update={"underlay_ip": moved})
    assert far.follow() == ["lab"]
    assert not here.pings(there.address)
    # Whoever works on the network right now is not disturbed.
    token = near.store.leases.acquire(near.network.id, "delete")
    assert near.follow() == []
    near.store.leases.release(near.network.id, token)
    assert near.follow() == ["lab"]
    assert here.pings(there.address, 3)
    assert (near.differences(), far.differences()) == ([], [])


def test_a_host_that_the_last_port_left_keeps_nothing(two: list[Member]) -> None:
    near, far = two
    before = links(far.host)
    here = near.guest("first", "10.0.0.7")
    guests = [far.guest(f"far{last}", f"10.0.0.{last}") for last in (8, 9)]
    for guest in (here, *guests):
        guest.configure()
    near.follow()

    far.delete(guests[0])
    # As long as the other one is there, so is what it needs.
    assert far.host.run(lambda: far.world.fabric.dhcp_runs(far.network))
    assert guests[1].pings(far.dhcp_port.addresses[0].address)
    assert here.pings(guests[1].address, 3)
    assert near.follow() == []

    far.delete(guests[1])
    assert links(far.host) == before
    directory = far.host.directory / "networks" / far.network.id
    assert not directory.exists()
    assert far.host.run(far.world.fabric.inventory) == []
    assert near.follow() == ["lab"]
    assert near.differences() == []
    # Twice is as good as once, and the anchor keeps all of it.
    far.leave(guests[1].binding.port)
    near.delete(here)
    assert near.differences() == []
    assert near.host.run(lambda: near.world.fabric.dhcp_runs(near.network))


def test_rules_follow_the_members_on_other_hosts(two: list[Member]) -> None:
    near, far = two
    group = near.store.groups.ensure_default(near.filled.tenant)
    here = near.guest("first", "10.0.0.7", group)
    here.configure()
    there = far.guest("second", "10.0.0.8", group)
    there.configure()
    assert near.follow() == ["lab"]
    # The first host was not told of the new member: its rules let nobody else in.
    assert not there.pings(here.address)
    # The control: the other direction needs no more than what the second host knows.
    assert here.pings(there.address, 3)

    assert near.host.run(lambda: follow_rules(near.world)) != []
    assert there.pings(here.address, 3)
    assert near.host.run(lambda: follow_rules(near.world)) == []

    far.store.ports.bind(there.binding.port.id, far.store.host, ())
    assert near.host.run(lambda: follow_rules(near.world)) != []
    assert not there.pings(here.address)


def test_a_guests_port_is_repaired_on_a_host_that_does_not_anchor_its_network(
    two: list[Member],
) -> None:
    near, far = two
    group = near.store.groups.ensure_default(near.filled.tenant)
    here, there = near.guest("first", "10.0.0.7", group), far.guest("second", "10.0.0.8", group)
    for guest in (here, there):
        guest.configure()
        # The rest of what its build leaves.
        build = near.store.builds.get(guest.binding.port.device_id or "")
        near.store.builds.note(build.id, seed="00")
        near.store.builds.update(build.id, state="complete")
    near.follow()
    near.host.run(lambda: follow_rules(near.world))
    assert far.mend() != []
    assert far.mend() == []
    assert there.pings(here.address, 3)

    tap, port = there.binding.port.tap, there.binding.port
    ip("-n", far.host.namespace, "link", "set", str(tap), "mtu", "1300")
    files = far.host.directory / "networks" / far.network.id
    os.kill(int((files / "dhcp" / "dnsmasq.pid").read_text().split()[0]), signal.SIGKILL)
    (files / "dhcp" / "hosts" / port.id).unlink()
    far.host.says("nft", "flush", "ruleset")
    # Whoever works on the VM right now is not disturbed.
    token = far.store.leases.acquire(port.device_id or "", "delete")
    far.mend()
    assert far.host.says("nft", "list", "ruleset") == ""
    far.store.leases.release(port.device_id or "", token)
    told = "; ".join(far.mend())
    for word in ("dnsmasq does not run", "1300", "rules of all ports", port.addresses[0].address):
        assert str(word) in told, told
    assert far.mend() == []
    there.run("ip", "address", "flush", "dev", "eth0")
    assert take_lease(far.host.lab, there)["ip"] == "10.0.0.8"
    there.configure()
    assert there.pings(here.address, 3)
    # The anchor's own are its network's matter, whatever is broken.
    near.host.says("nft", "flush", "ruleset")
    assert near.mend() == []


def test_each_host_answers_its_own_guests(two: list[Member]) -> None:
    """The same DHCP server, by address and MAC address, is on both; neither hears the other."""
    near, far = two
    here, there = near.guest("first", "10.0.0.7"), far.guest("second", "10.0.0.8")
    assert near.follow() == ["lab"]
    namespace = marks.dhcp_namespace(near.network.id)
    server = near.host.run(lambda: Wire(namespace, marks.dhcp_leg_name(near.dhcp_port.id)))
    lease = take_lease(far.host.lab, there)
    assert lease["ip"] == "10.0.0.8"
    assert far.host.run(lambda: far.world.fabric.lease(there.binding.port)) is not None
    there.configure()
    address = far.dhcp_port.addresses[0].address
    assert there.pings(address, 3)
    # The control: all of that went to the first host, where its guests hear it...
    wire = Wire(here.namespace, "eth0")
    shout(there, b"from afar")
    wire.until(b"from afar")
    # ...and its server hears its own guests, but nobody of the other host.
    here.configure()
    shout(here, b"from near")
    heard = server.until(b"from near")
    assert not any(bytes.fromhex(there.mac.replace(":", "")) in frame for frame in heard)
    wire.close()
    server.close()


def test_an_interface_in_a_network_that_its_host_had_nothing_of(
    two: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hot-plug on a host that is new to the network: it gets all that a guest there needs."""
    _near, far = two
    before, store = links(far.host), far.store
    form = {"name": "second", "image": "micro", "networks": ["lab"], "flavor": "tiny"}
    instance = far.filled.add_vm("second", address=None, request=form)
    store.instances.update(instance.id, host=store.host)
    store.builds.note(instance.id, seed="00")
    build, [port] = store.builds.get(instance.id), store.ports.of_device(instance.id)
    guest = far.host.cable(binding_of(store, port, build.name))
    plugged: list[InterfaceSpec] = []
    # There is no guest: something that can be kept with the build.
    monkeypatch.setattr(VmBuild, "top_layer", Path("/nowhere"))
    kept = SimpleNamespace(model_dump=lambda **_: {})
    kept.with_root_layer = lambda _layer: kept
    vars(far.world.hypervisor).update(
        attach_interface=lambda _id, spec: plugged.append(spec),
        detach_interface=lambda _id, spec: plugged.remove(spec),
        qemu_identity=lambda: (0, 0),
        guest_spec=lambda *_: kept,
        compose=lambda _spec: "",
    )

    groups = [store.groups.ensure_default(far.filled.tenant)]
    attach = partial(attach_interface, far.world, build, far.network, port.id, groups)
    port = far.host.run(attach)
    assert [spec.tap for spec in plugged] == [guest.binding.port.tap]
    lease = take_lease(far.host.lab, guest)
    assert lease["ip"] == str(port.addresses[0].address)
    assert far.host.run(lambda: far.world.fabric.lease(port)) is not None
    assert far.differences() == []

    far.host.run(lambda: detach_interface(far.world, build, port.id))
    assert plugged == []
    assert links(far.host) == before
    assert far.host.run(far.world.fabric.inventory) == []
