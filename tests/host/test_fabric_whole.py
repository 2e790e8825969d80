"""The fabric as a whole: a port proven, everything twice, nothing left."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes, marks
from blocks.errors import Conflict
from blocks.fabric import NetworkFabric
from blocks.resources import PortBinding, Router
from tests.host.fabric_lab import Lab, Net, ip, lab_at

pytestmark = pytest.mark.host


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


def build(lab: Lab, binding: PortBinding, net: Net, outside: Net, router: Router) -> None:
    """All that steps 31 to 37 do, in their order."""
    fabric = lab.fabric
    fabric.check(net.network)
    fabric.realize_segment(net.network)
    fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
    fabric.reserve(binding)
    fabric.realize_segment(outside.network)
    fabric.realize_outside(outside.network, outside.subnet)
    fabric.realize_router(router)
    fabric.connect_outside(router)
    fabric.serve_metadata(net.network)
    fabric.put_metadata(binding, {"meta_data.json": json.dumps({"uuid": "i-1"}).encode()})
    fabric.plug(binding, None)
    fabric.protect(binding)


def take_down(lab: Lab, binding: PortBinding, net: Net, outside: Net, router: Router) -> None:
    """The undo of each, in reverse."""
    fabric = lab.fabric
    fabric.unprotect(binding.port)
    fabric.unplug(binding.port)
    fabric.drop_metadata(binding.port)
    fabric.stop_metadata(net.network)
    fabric.disconnect_outside(router)
    fabric.remove_router(router)
    fabric.remove_outside(outside.network)
    assert fabric.remove_segment(outside.network)
    fabric.release(binding.port)
    fabric.stop_dhcp(net.network)
    assert fabric.remove_segment(net.network)


def world(lab: Lab) -> dict[str, object]:
    """What other tools see of this host: links, rules, namespaces, processes, files."""
    home = str(lab.directory)
    processes = [
        line
        for line in subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        if home in line
    ]
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    own = [name for name in ip("netns").splitlines() if name.startswith("fifty-")]
    files = sorted(str(path) for path in (lab.directory / "networks").glob("[!.]*"))
    return {
        "links": sorted(line.split()[0] for line in ip("-br", "link").splitlines()),
        "rules": rules.stdout,
        "namespaces": [n for n in own if any(i in n for i in lab.ids)],
        "processes": processes,
        "files": files,
    }


def test_everything_twice_is_once_and_undone_twice_is_nothing(lab: Lab) -> None:
    net, outside = lab.net(realize=False), lab.net("198.51.100.0/24", realize=False, external=True)
    router = lab.router(net, outside=outside)
    binding = lab.binding(net, 11)
    lab.ids = [net.network.id, outside.network.id, router.id]
    before = world(lab)

    build(lab, binding, net, outside, router)
    assert lab.fabric.prove(binding, router) == []
    built = world(lab)
    with changes.collecting() as second:
        build(lab, binding, net, outside, router)
    assert second == []
    assert world(lab) == built
    assert built != before

    take_down(lab, binding, net, outside, router)
    assert world(lab) == before
    assert lab.fabric.inventory() == []
    with changes.collecting() as again:
        take_down(lab, binding, net, outside, router)
    assert again == []


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        ("link set {tap} mtu 1300", "MTU 1300"),
        ("link set {tap} nomaster", "not in the bridge"),
        ("link set {tap} down", "is down"),
        ("link set {tap} alias other", "alias"),
        ("link delete {tap}", "no link"),
        ("link set {bridge} mtu 1300", "MTU 1300"),
        ("link set {bridge} type bridge nf_call_iptables 0", "hides its frames"),
        ("-n {router} address delete 10.5.0.1/24 dev {leg}", "addresses"),
        ("-n {router} route delete default", "default route"),
        ("netns exec {router} nft flush ruleset", "is not there"),
        ("netns exec {router} sysctl -qw net.ipv4.ip_forward=0", "does not forward"),
        ("netns exec {router} true", ""),
    ],
)
def test_a_port_is_proven_only_if_all_is_there(lab: Lab, harm: str, word: str) -> None:
    """Each harm is seen and named, and the same steps again mend it."""
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0")
    net, outside = lab.net(realize=False), lab.net("198.51.100.0/24", realize=False, external=True)
    router, binding = lab.router(net, outside=outside), lab.binding(net, 11)
    build(lab, binding, net, outside, router)
    assert lab.fabric.prove(binding, router) == []
    values = {
        "tap": binding.port.tap,
        "bridge": marks.bridge_name(net.network.id),
        "router": marks.router_namespace(router.id),
        "leg": marks.router_leg_name(router.legs[0].port.id),
    }
    ip(*harm.format(**values).split())
    wrong = lab.fabric.prove(binding, router)
    assert bool(wrong) is bool(word)
    assert not word or any(word in text for text in wrong), wrong
    if word == "alias":
        ip(
            "link",
            "set",
            str(binding.port.tap),
            "alias",
            marks.link_alias(lab.site, "port", binding.port.id),
        )
    build(lab, binding, net, outside, router)
    assert lab.fabric.prove(binding, router) == []


def test_servers_and_files_are_part_of_the_proof(lab: Lab) -> None:
    net = lab.served()
    binding = lab.binding(net, 11)
    fabric = lab.fabric
    fabric.plug(binding, None)
    fabric.protect(binding)
    said = "\n".join(fabric.prove(binding))
    assert "reservation" in said
    assert "metadata server" in said
    fabric.reserve(binding)
    fabric.serve_metadata(net.network)
    assert fabric.prove(binding) == ["there is no metadata for 10.5.0.11"]
    fabric.put_metadata(binding, {"meta_data.json": b"{}"})
    assert fabric.prove(binding) == []
    fabric.unprotect(binding.port)
    assert any("with the rules of all ports" in text for text in fabric.prove(binding))


def test_what_is_left_is_found_by_its_marks_and_removed(lab: Lab) -> None:
    """Nothing but the inventory knows of it: the records are gone."""
    net, outside = (
        lab.net(realize=False),
        lab.net("198.51.100.0/24", realize=False, external=True, outside="uplink"),
    )
    router, binding = lab.router(net, outside=outside), lab.binding(net, 11)
    lab.ids = [net.network.id, outside.network.id, router.id]
    before = world(lab)
    ip("link", "add", "others", "type", "bridge")
    ip("link", "set", "others", "alias", "fifty:ffff:network:x")
    build(lab, binding, net, outside, router)

    fabric = NetworkFabric(lab.directory / "networks", lab.site, "lab")
    found = fabric.inventory()
    kinds = {each.kind for each in found}
    of_guests = {"reservation", "metadata"}
    assert kinds == {"process", "nft", "link", "namespace", "directory", *of_guests}
    owners = {each.owner for each in found}
    assert {net.network.id, outside.network.id, router.id, binding.port.id} <= owners
    for each in found:
        fabric.remove(each)
    assert fabric.inventory() == []
    for each in found:
        fabric.remove(each)
    ip("link", "delete", "others")
    assert world(lab) == before


def test_a_pid_file_with_anothers_pid_stops_nobody_but_the_server(lab: Lab) -> None:
    net = lab.served()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        path = lab.directory / "networks" / net.network.id / "dhcp" / "dnsmasq.pid"
        path.write_text(f"{bystander.pid}\n")
        lab.fabric.stop_dhcp(net.network)
        assert bystander.poll() is None
        assert not [found for found in lab.fabric.inventory() if found.kind == "process"]
    finally:
        bystander.kill()
        bystander.wait()


def test_a_namespace_whose_maker_was_killed_is_made_whole_or_removed(lab: Lab) -> None:
    net = lab.net()
    path = Path("/run/netns") / marks.dhcp_namespace(net.network.id)
    path.touch()
    lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
    assert "10.5.0.2/24" in ip("-n", path.name, "address", "show")
    lab.fabric.stop_dhcp(net.network)
    path.touch()
    lab.fabric.stop_dhcp(net.network)
    assert not path.exists()
    path.touch()
    (lab.directory / "networks" / net.network.id).mkdir()
    (left,) = [found for found in lab.fabric.inventory() if found.kind == "namespace"]
    lab.fabric.remove(left)
    assert not path.exists()


def test_a_namespace_of_another_site_is_a_conflict(lab: Lab) -> None:
    net = lab.net()
    name = marks.dhcp_namespace(net.network.id)
    ip("netns", "add", name)
    try:
        with pytest.raises(Conflict, match="not ours"):
            lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
        assert not [found for found in lab.fabric.inventory() if found.kind == "namespace"]
    finally:
        ip("netns", "delete", name)


def test_threads_and_a_running_event_loop_are_no_hindrance(lab: Lab) -> None:
    """Many ports at once, from threads of a process whose event loop runs (as Prefect's does)."""
    net = lab.served()
    bindings = [lab.binding(net, last) for last in range(20, 36)]

    def port(binding: PortBinding) -> list[str]:
        lab.fabric.realize_segment(net.network)
        lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
        lab.fabric.reserve(binding)
        lab.fabric.serve_metadata(net.network)
        lab.fabric.put_metadata(binding, {"meta_data.json": b"{}"})
        lab.fabric.plug(binding, None)
        lab.fabric.protect(binding)
        return lab.fabric.prove(binding)

    async def many() -> list[list[str]]:
        assert port(bindings[0]) == []
        return await asyncio.gather(*(asyncio.to_thread(port, each) for each in bindings[1:]))

    assert asyncio.run(many()) == [[]] * (len(bindings) - 1)
    found = lab.fabric.inventory()
    assert len([each for each in found if each.kind == "process"]) == 2
    assert {each.owner for each in found if each.kind == "nft"} == {
        binding.port.id for binding in bindings
    }


KILLED = """
import os, sys, threading
from pathlib import Path
from blocks.fabric import NetworkFabric
from blocks.resources import Network, Port, PortBinding, Subnet
directory, site, after_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
network, subnet, dhcp_port, binding = (
    kind.model_validate_json(sys.stdin.readline()) for kind in (Network, Subnet, Port, PortBinding)
)
fabric = NetworkFabric(Path(directory), site, "lab")
threading.Timer(after_s, lambda: os._exit(9)).start()
while True:
    fabric.realize_segment(network)
    fabric.serve_dhcp(network, subnet, dhcp_port)
    fabric.reserve(binding)
    fabric.serve_metadata(network)
    fabric.plug(binding, None)
    fabric.protect(binding)
    fabric.unprotect(binding.port)
    fabric.unplug(binding.port)
    fabric.stop_metadata(network)
    fabric.release(binding.port)
    fabric.stop_dhcp(network)
    fabric.remove_segment(network)
"""


def test_a_process_killed_anywhere_leaves_what_do_and_undo_cope_with(lab: Lab) -> None:
    net = lab.net(realize=False)
    binding = lab.binding(net, 11)
    lab.ids = [net.network.id]
    before = world(lab)
    records = (net.network, net.subnet, net.dhcp_port, binding)
    for number in range(8):
        words = [str(lab.directory / "networks"), lab.site, str(0.05 + 0.037 * number)]
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, *words],
            input="\n".join(record.model_dump_json() for record in records),
            text=True,
            check=False,
        )
        assert killed.returncode == 9
        if number % 2:
            lab.fabric.realize_segment(net.network)
            lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
            lab.fabric.reserve(binding)
            lab.fabric.serve_metadata(net.network)
            lab.fabric.put_metadata(binding, {"meta_data.json": b"{}"})
            lab.fabric.plug(binding, None)
            lab.fabric.protect(binding)
            assert lab.fabric.prove(binding) == []
        lab.fabric.unprotect(binding.port)
        lab.fabric.unplug(binding.port)
        lab.fabric.stop_metadata(net.network)
        lab.fabric.release(binding.port)
        lab.fabric.stop_dhcp(net.network)
        assert lab.fabric.remove_segment(net.network)
        assert world(lab) == before
        assert lab.fabric.inventory() == []
