"""A domain's life on a real libvirt: defined, paused, running, limited, gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import etree

from blocks import changes
from blocks.commands import run
from blocks.errors import Conflict, HostFault, InvalidRequest, Transient, Unsupported
from blocks.hypervisor import LibvirtHost, port_rates
from blocks.resources import FlavorLimits
from tests.host.hypervisor_lab import LIMITS, Lab

pytestmark = pytest.mark.host


@pytest.fixture(name="lab")
def _lab(session_directory: Path, libvirtd: str, site: str) -> Iterator[Lab]:
    lab = Lab(session_directory / "hypervisor", libvirtd, site)
    try:
        yield lab
    finally:
        lab.clean()


def test_the_whole_life_twice_each(lab: Lab) -> None:
    """Every do and undo, repeated, changes something once only; virsh sees the same."""
    lab.make_files()
    xml = lab.xml()
    lab.host.validate(xml)
    story: tuple[tuple[str, Callable[[], None]], ...] = (
        ("shutoff", lambda: lab.host.define(xml)),
        ("paused", lambda: lab.host.start_paused(lab.id)),
        ("running", lambda: lab.host.resume(lab.id)),
        ("shut off", lambda: lab.host.destroy(lab.id)),
    )
    for expected, do in story:
        with changes.collecting() as first:
            do()
        with changes.collecting() as second:
            do()
        assert len(first) == 1 and lab.name in first[0].command
        assert second == []
        state = lab.virsh("domstate", lab.id).strip().replace(" ", "")
        assert state == expected.replace(" ", "") == lab.host.state(lab.id)
    with changes.collecting() as first:
        lab.host.undefine(lab.id)
    with changes.collecting() as second:
        lab.host.undefine(lab.id)
    assert [one.command.split()[:2] for one in first] == [["virsh", "undefine"]]
    assert second == []
    assert lab.host.state(lab.id) is None and lab.host.definition(lab.id) is None
    assert lab.name not in lab.virsh("list", "--all", "--name")


def test_files_keep_their_owners_and_the_tap_stays(lab: Lab) -> None:
    """Neither the base image nor the overlay is given away, while it runs and after."""
    directory = lab.make_files()
    files = [lab.base, directory / "disk.qcow2", directory / "config.iso"]
    before = [(path.stat().st_uid, path.stat().st_gid) for path in files]
    assert before[0] == (0, 0)
    lab.host.define(lab.xml())
    lab.host.start_paused(lab.id)
    assert [(path.stat().st_uid, path.stat().st_gid) for path in files] == before
    pid = _qemu_pid(lab)
    assert Path(f"/proc/{pid}").stat().st_uid == lab.host.qemu_identity()[0]
    assert "LOWER_UP" in run("ip", "link", "show", lab.tap).stdout
    lab.host.destroy(lab.id)
    assert [(path.stat().st_uid, path.stat().st_gid) for path in files] == before
    link = run("ip", "link", "show", lab.tap).stdout
    assert "LOWER_UP" not in link and "mtu 1450" in link


def _qemu_pid(lab: Lab) -> int:
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = status.read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if b"-uuid" in words and lab.id.encode() in words and b"-S" in words:
            return int(status.parent.name)
    raise AssertionError("no QEMU runs")


def test_qemu_runs_as_libvirt_says(lab: Lab) -> None:
    labels = etree.fromstring(lab.virsh("capabilities").encode()).findall(
        "host/secmodel[model='dac']/baselabel"
    )
    uid, gid = lab.host.qemu_identity()
    assert {label.text for label in labels} == {f"+{uid}:+{gid}"}


def test_limits_before_the_start_and_live(lab: Lab) -> None:
    """The limits are in the cgroup, in QEMU and in tc; a second time changes nothing."""
    lab.make_files()
    lab.host.define(lab.xml())
    with changes.collecting() as first:
        lab.host.apply_controls(lab.id, LIMITS)
    with changes.collecting() as second:
        lab.host.apply_controls(lab.id, LIMITS)
    assert {one.command.split()[0] for one in first} == {"virsh", "ip", "tc"}
    assert second == []
    assert lab.host.controls(lab.id)["live"] is False

    lab.host.start_paused(lab.id)
    found = lab.host.controls(lab.id)
    assert found == {
        "live": True,
        "cpu_shares": 512,
        "cpu_percent": 50,
        "memory_soft_limit_mib": 128 + 512,
        "disks": {"vda": {"iops": 100, "mib_s": 5}, "vdb": {"iops": 100, "mib_s": 5}},
        "interfaces": {lab.tap: {"to_guest_kib_s": 1000, "from_guest_kib_s": 1000}},
    }
    with changes.collecting() as again:
        lab.host.apply_controls(lab.id, LIMITS)
    assert again == []
    assert "cpu_shares     : 512" in lab.virsh("schedinfo", lab.id)
    ifb = port_rates.ifb_name(lab.tap)
    for device in (lab.tap, ifb):
        assert "rate 8192Kbit" in run("tc", "qdisc", "show", "dev", device).stdout
    redirection = run("tc", "filter", "show", "dev", lab.tap, "parent", "ffff:").stdout
    assert f"Redirect to device {ifb}" in redirection

    lab.host.apply_controls(lab.id, FlavorLimits(cpu_shares=256))
    assert lab.host.controls(lab.id)["cpu_shares"] == 256
    lab.host.undefine(lab.id)
    assert ifb not in run("ip", "-o", "link", "show").stdout
    assert "tbf" not in run("tc", "qdisc", "show", "dev", lab.tap).stdout


def test_a_rate_holds_back_what_passes(lab: Lab) -> None:
    """Far more than bucket and queue hold, at once, in each direction: some is dropped."""
    lab.make_files()
    frame = b"\xff" * 12 + b"\x88\xb5" + bytes(1400)
    guest = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        # As QEMU does: IFF_TAP | IFF_NO_PI. Without a holder the tap passes nothing.
        fcntl.ioctl(guest, 0x400454CA, struct.pack("16sH22x", lab.tap.encode(), 0x1002))
        port_rates.limit(lab.site, lab.id, lab.tap, 100)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
            host.bind((lab.tap, 0))
            for _ in range(400):
                with contextlib.suppress(OSError):  # the queue is full: ENOBUFS
                    host.send(frame)
                os.write(guest, frame)
        assert _dropped(lab.tap) > 0
        assert _dropped(port_rates.ifb_name(lab.tap)) > 0
    finally:
        os.close(guest)
        port_rates.forget(lab.site, lab.id, [lab.tap])


def _dropped(device: str) -> int:
    words = run("tc", "-s", "qdisc", "show", "dev", device, "root").stdout.split()
    return int(words[words.index("(dropped") + 1].rstrip(","))


def test_another_sites_domain_is_not_touched(lab: Lab) -> None:
    lab.make_files()
    lab.host.define(lab.xml())
    stranger = LibvirtHost(lab.uri, "tcg", "ffff" if lab.site != "ffff" else "fffe")
    assert lab.id not in {one.owner for one in stranger.inventory()}
    for touch in (stranger.start_paused, stranger.destroy, stranger.undefine):
        with pytest.raises(Conflict, match="mark"):
            touch(lab.id)
    [found] = [one for one in lab.host.inventory() if one.owner == lab.id]
    assert (found.kind, found.name, found.detail) == ("domain", lab.name, "shutoff")
    assert found.age_s is not None and found.age_s < 3600
    with pytest.raises(Conflict):
        stranger.remove(found)
    lab.host.remove(found)
    lab.host.remove(found)
    assert lab.host.state(lab.id) is None


def test_a_changed_definition_replaces_the_old_one(lab: Lab) -> None:
    lab.make_files()
    lab.host.define(lab.xml())
    bigger = lab.instance.flavor.model_copy(update={"ram_mib": 192})
    lab.instance = lab.instance.model_copy(update={"flavor": bigger})
    lab.host.define(lab.xml())
    assert "196608" in lab.virsh("dominfo", lab.id)


def test_what_cannot_be_is_told(lab: Lab) -> None:
    """Unsupported names all that is missing; errors are ours, with a hint."""
    directory = lab.directories.path(lab.id)
    with pytest.raises(Unsupported, match=r"machine type vax.*processor model Itanium"):
        lab.host.guest_spec(
            lab.instance, [lab.binding], [], directory, machine="vax", cpu_model="Itanium"
        )
    with pytest.raises(Conflict, match="no MAC"):
        port = lab.binding.port.model_copy(update={"mac": None})
        binding = lab.binding.model_copy(update={"port": port})
        lab.host.guest_spec(lab.instance, [binding], [], directory)
    with pytest.raises(HostFault, match="no domain"):
        lab.host.start_paused(lab.id)
    with pytest.raises(HostFault, match="shutoff"):
        lab.make_files()
        lab.host.define(lab.xml())
        lab.host.resume(lab.id)
    with pytest.raises(InvalidRequest, match="schema"):
        lab.host.validate(lab.xml().replace("<vcpu>1</vcpu>", "<vcpu>one</vcpu>"))
    (directory / "disk.qcow2").unlink()
    with pytest.raises(HostFault):
        lab.host.start_paused(lab.id)
    assert lab.host.state(lab.id) in ("shutoff", "crashed")


def test_features_and_size(lab: Lab) -> None:
    features = lab.host.features()
    assert features["accelerator"] == "tcg"
    assert "q35" in features["machines"] and "qemu64" in features["cpu_models"]
    assert features["qemu"] in run("qemu-system-x86_64", "--version").stdout
    vcpus, ram_mib = lab.host.totals()
    nodeinfo = lab.virsh("nodeinfo")
    assert f"{vcpus}\n" in nodeinfo and ram_mib > 256
    assert lab.host.load() >= 0


def test_kvm_only_where_the_processor_has_it(libvirtd: str, site: str) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    chosen = LibvirtHost(libvirtd, "auto", site).features()["accelerator"]
    if not flags & {"vmx", "svm"}:
        assert chosen == "tcg"
        with pytest.raises(Unsupported, match="KVM"):
            LibvirtHost(libvirtd, "kvm", site).features()
    with pytest.raises(InvalidRequest):
        LibvirtHost(libvirtd, "warp", site).features()


def test_threads_share_a_connection(lab: Lab) -> None:
    lab.make_files()
    lab.host.define(lab.xml())
    states: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: states.append(lab.host.state(lab.id))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["shutoff"] * 16


def test_no_libvirt_is_transient_with_a_hint(tmp_path: Path, site: str) -> None:
    host = LibvirtHost(f"qemu+unix:///system?socket={tmp_path}/none", "tcg", site)
    with pytest.raises(Transient) as caught:
        host.state(str(uuid.uuid4()))
    assert "libvirtd" in caught.value.hint
