"""What of a network differs from its record, on a real kernel: broken by hand, told, repaired."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from blocks import changes, marks
from blocks.resources import (
    Network,
    PortBinding,
    PortKind,
    SecurityGroupRequest,
    SecurityGroupRule,
)
from blocks.settings import Settings, settings
from blocks.state import Caller
from blocks.world import World
from tasks.drift import Drift, guest_ports, network_drift, port_differences
from tasks.port_bindings import RULES_STEP
from tasks.security_group_actions import ACTIONS
from tests.host.fabric_lab import Guest, Lab, ip, lab_at, wait_for
from tests.unit.cli_store import Filled

pytestmark = pytest.mark.host


@dataclass
class Scene:
    """The network `lab` of a state store, with one VM, realized on a host of the test's own."""

    filled: Filled
    lab: Lab
    here: Settings
    guest: Guest

    @property
    def network(self) -> Network:
        return self.filled.store.networks.get(self.filled.network.id)

    @property
    def binding(self) -> PortBinding:
        [found] = guest_ports(self.network, self.filled.store)
        return found.binding

    @property
    def tap(self) -> str:
        assert self.binding.port.tap
        return self.binding.port.tap

    @property
    def leg(self) -> str:
        [port] = self.filled.store.ports.list(kind=PortKind.DHCP, network_id=self.network.id)
        return marks.dhcp_leg_name(port.id)

    @property
    def bridge(self) -> str:
        return self.lab.fabric.segment_bridge(self.network)

    @property
    def files(self) -> Path:
        return self.lab.directory / "networks" / self.network.id

    def drift(self) -> Drift:
        return network_drift(self.network, self.filled.store, self.lab.fabric, self.here)

    def realize(self) -> None:
        """What creating the network and its VM does, once more."""
        fabric, store, network = self.lab.fabric, self.filled.store, self.network
        [subnet] = store.networks.subnets(network.id)
        [dhcp] = store.ports.list(kind=PortKind.DHCP, network_id=network.id)
        fabric.realize_segment(network, store.networks.peers(network.id, store.host))
        fabric.serve_dhcp(network, subnet, dhcp)
        fabric.serve_metadata(network)
        fabric.reserve(self.binding)
        fabric.put_metadata(self.binding, {"meta_data.json": b"{}"})
        fabric.plug(self.binding, None)
        fabric.protect(self.binding)

    def kill(self, pid_file: str) -> None:
        pid = int((self.files / pid_file).read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        wait_for("the process to end", lambda: not Path(f"/proc/{pid}/cmdline").exists())


@pytest.fixture(name="scene")
def _scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    settings.cache_clear()
    filled = Filled(tmp_path)
    store, network = filled.store, filled.network
    [subnet] = store.networks.subnets(network.id)
    dhcp = store.ports.plan(
        port_id=str(uuid.uuid4()),
        tenant_id=filled.tenant,
        network_id=network.id,
        kind=PortKind.DHCP,
        device_id=None,
        host="here",
    )
    store.ports.give_mac(dhcp.id)
    store.ports.give_address(dhcp.id, subnet.id)
    instance = filled.add_vm("web")
    [port] = store.ports.of_device(instance.id)
    store.ports.bind(port.id, "here", ())
    store.builds.update(instance.id, state="complete")
    with lab_at(tmp_path) as lab:
        lab.site = store.site
        lab.__post_init__()
        [found] = guest_ports(store.networks.get(network.id), store)
        scene = Scene(filled, lab, settings(), lab.cable(found.binding))
        scene.realize()
        yield scene
    store.database.dispose()
    settings.cache_clear()


def test_as_recorded_and_nothing_was_changed_by_the_look(scene: Scene) -> None:
    with changes.collecting() as made:
        assert scene.drift() == Drift(network=())
    assert made == []


def _nft_table(scene: Scene) -> None:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    ours = [
        line for line in listed.stdout.splitlines() if marks.firewall_table(scene.lab.site) in line
    ]
    assert ours
    subprocess.run(["nft", "delete", *ours[0].split()], check=True)


BREAKS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "the bridge is down": (lambda s: ip("link", "set", s.bridge, "down"), "is down"),
    "the tap is in no bridge": (lambda s: ip("link", "set", s.tap, "nomaster"), ""),
    "the tap's MTU": (lambda s: ip("link", "set", s.tap, "mtu", "1300"), "1300"),
    "dnsmasq is dead": (lambda s: s.kill("dhcp/dnsmasq.pid"), "dnsmasq does not run"),
    # Both of its servers live on in it, though nobody finds it by its name.
    "the DHCP namespace": (
        lambda s: ip("netns", "delete", marks.dhcp_namespace(s.network.id)),
        "is not there",
    ),
    "the DHCP leg": (
        lambda s: ip("-n", marks.dhcp_namespace(s.network.id), "link", "delete", s.leg),
        "has no leg",
    ),
    "its configuration": (
        lambda s: (s.files / "dhcp" / "dnsmasq.conf").write_text("port=0\n"),
        "configured otherwise",
    ),
    "the reservation": (
        lambda s: (s.files / "dhcp" / "hosts" / s.binding.port.id).unlink(),
        "reservation",
    ),
    "the metadata server is dead": (lambda s: s.kill("metadata/server.pid"), "metadata server"),
    "the rules": (_nft_table, "with the rules of all ports, is not there"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_difference_is_told_and_the_same_again_repairs_it(scene: Scene, name: str) -> None:
    break_it, word = BREAKS[name]
    break_it(scene)
    lines = scene.drift().lines
    assert lines and any(word in line for line in lines), lines
    assert len(lines) == len(set(lines))
    scene.realize()
    assert scene.drift().lines == []


@pytest.mark.parametrize("broken", ["the DHCP namespace", "the DHCP leg", "dnsmasq is dead"])
def test_a_lease_ends_also_where_dnsmasq_cannot_be_told(scene: Scene, broken: str) -> None:
    """Else a delete would fail on a host that drifted, or leave the address unusable."""
    port = scene.binding.port
    address = port.addresses[0].address
    leases = scene.files / "dhcp" / "leases"
    stranger = "9999999999 fa:16:3e:00:00:99 10.0.0.99 other *\n"
    # dnsmasq's file, as it is when the guest has a lease.
    scene.kill("dhcp/dnsmasq.pid")
    leases.write_text(f"9999999999 {port.mac} {address} web *\n{stranger}")
    scene.realize()
    assert scene.lab.fabric.lease(port) is not None
    BREAKS[broken][0](scene)
    scene.lab.fabric.release(port)
    assert scene.lab.fabric.lease(port) is None
    assert stranger in leases.read_text(), "the lease of another is left alone"
    scene.realize()
    assert scene.drift().lines == []


def test_a_guest_that_nobody_runs(scene: Scene) -> None:
    """A tap without carrier is told, unless the VM is known not to run, or a run is at work."""
    scene.guest.run("ip", "link", "set", "eth0", "down")
    wait_for("the carrier to go", lambda: not scene.lab.fabric.carrier(scene.binding.port))
    [line] = scene.drift().lines
    assert line == f"web (10.0.0.7): no QEMU holds {scene.tap}: the guest is cut off, or off"
    store = scene.filled.store
    drift = network_drift(
        scene.network, store, scene.lab.fabric, scene.here, runs=lambda _instance: False
    )
    assert drift == Drift(network=())
    build = store.builds.get(scene.binding.port.device_id or "")
    token = store.leases.acquire(build.id, "test")
    assert scene.drift() == Drift(network=(), under_way=("web",))
    store.leases.release(build.id, token)


def test_a_member_that_comes_is_no_difference_until_it_is_there(scene: Scene) -> None:
    """A VM that is being built is in its group before the others' rules let it in."""
    store, filled = scene.filled.store, scene.filled
    group = store.groups.ensure_default(filled.tenant)
    store.ports.bind(scene.binding.port.id, "here", (group,))
    scene.realize()
    assert scene.drift() == Drift(network=())
    new = filled.add_vm("new", address="10.0.0.8")
    [port] = store.ports.of_device(new.id)
    store.ports.bind(port.id, "elsewhere", (group,))
    assert scene.drift() == Drift(network=(), under_way=("web",))
    # What has nothing to do with it is told all the same.
    ip("link", "set", scene.tap, "mtu", "1300")
    lines = scene.drift().lines
    assert any("1300" in line for line in lines)
    assert not any("ingress-" in line for line in lines)
    scene.realize()
    # The control: one that is there, and the rules do not know it.
    later = filled.add_vm("later", address="10.0.0.9")
    [port] = store.ports.of_device(later.id)
    store.ports.bind(port.id, "elsewhere", (group,))
    for build in (new, later):
        store.builds.update(build.id, state="complete")
    [line] = scene.drift().lines
    assert f"ingress-{scene.binding.port.id}" in line


def test_a_change_of_a_group_is_no_difference_in_between(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody looks when the new rule is recorded, and not yet applied."""
    store, fabric = scene.filled.store, scene.lab.fabric
    group = store.groups.get(store.groups.ensure_default(scene.filled.tenant))
    store.ports.bind(scene.binding.port.id, "here", (group.id,))
    store.journal.intend(scene.binding.port.device_id or "", 1, RULES_STEP, "here")
    scene.realize()
    recorded, seen, at_rest = threading.Event(), threading.Event(), threading.Event()
    add_rule, rules_at_rest = store.groups.add_rule, fabric.rules_at_rest

    def add_and_wait(group_id: str, rule: SecurityGroupRule) -> bool:
        added = add_rule(group_id, rule)
        recorded.set()
        assert seen.wait(20)
        # As long as the rule is not applied, the second look has to wait.
        assert not at_rest.wait(0.5)
        return added

    @contextmanager
    def second_look() -> Iterator[None]:
        seen.set()
        with rules_at_rest():
            at_rest.set()
            yield

    monkeypatch.setattr(store.groups, "add_rule", add_and_wait)
    monkeypatch.setattr(fabric, "rules_at_rest", second_look)
    request = SecurityGroupRequest(action="add-rule", name="default", protocol="tcp", port_min=80)
    world = cast("World", SimpleNamespace(store=store, fabric=fabric))
    caller = cast("Caller", SimpleNamespace(tenant_id=scene.filled.tenant))
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(ACTIONS["add-rule"], world, caller, request)
        assert recorded.wait(20)
        # The control: what is recorded is not what is there.
        assert port_differences(scene.binding, fabric) != []
        assert scene.drift() == Drift(network=())
        assert change.result().startswith("default has the rule")
    assert scene.drift() == Drift(network=())


def test_another_hosts_network_is_not_looked_at_here(scene: Scene) -> None:
    network = scene.network.model_copy(update={"anchor_host": "elsewhere"})
    drift = network_drift(network, scene.filled.store, scene.lab.fabric, scene.here)
    assert drift.network is None and drift.lines == []
