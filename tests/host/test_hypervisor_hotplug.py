"""Interfaces plugged into guests that are there, on a real libvirt and QEMU."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lxml import etree

from blocks import changes
from blocks.commands import run
from blocks.errors import Conflict, HostFault, Transient
from blocks.hypervisor import port_rates
from blocks.hypervisor.guest import InterfaceSpec
from tests.host.hypervisor_lab import LIMITS, Lab, boot_sector

pytestmark = pytest.mark.host


class Taps:
    """Further taps for a lab's guest, each with the interface that is to open it."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self._lab = lab
        self._stack = stack
        self._made = 0

    def interface(self) -> InterfaceSpec:
        self._made += 1
        tap = f"{self._lab.tap[:13]}x{self._made}"
        uid, _gid = self._lab.host.qemu_identity()
        run("ip", "tuntap", "add", "mode", "tap", "name", tap, "user", str(uid))
        self._stack.callback(
            subprocess.run, ["ip", "link", "delete", tap], check=False, capture_output=True
        )
        run("ip", "link", "set", tap, "mtu", "1450", "up")
        return InterfaceSpec(
            tap=tap, mac=f"fa:16:3e:00:01:{self._made:02x}", mtu=1450, alias=f"ua-port-{tap}"
        )


@pytest.fixture(name="lab")
def _lab(session_directory: Path, libvirtd: str, site: str) -> Iterator[Lab]:
    lab = Lab(session_directory / "hotplug", libvirtd, site)
    try:
        yield lab
    finally:
        lab.clean()


@pytest.fixture(name="taps")
def _taps(lab: Lab) -> Iterator[Taps]:
    with ExitStack() as stack:
        yield Taps(lab, stack)


def defined(lab: Lab, *options: str) -> list[str]:
    """The taps in the domain's definition, as virsh shows it."""
    xml = etree.fromstring(lab.virsh("dumpxml", *options, lab.id).encode())
    return [str(target.get("dev")) for target in xml.findall("devices/interface/target")]


def has_carrier(tap: str) -> bool:
    return "LOWER_UP" in run("ip", "link", "show", tap).stdout


def test_into_a_guest_that_runs(lab: Lab, taps: Taps) -> None:
    """QEMU opens the tap; a second time changes nothing; the definition has it, too."""
    lab.start(boot_sector("up"))
    lab.host.apply_controls(lab.id, LIMITS)
    new = taps.interface()
    assert not has_carrier(new.tap)
    with changes.collecting() as first:
        lab.host.attach_interface(lab.id, new)
    with changes.collecting() as second:
        lab.host.attach_interface(lab.id, new)
    assert first[0].command.startswith(f"virsh attach-device {lab.name}")
    assert second == []
    assert has_carrier(new.tap)
    assert defined(lab) == defined(lab, "--inactive") == [lab.tap, new.tap]
    assert lab.host.interfaces(lab.id)[new.mac] == new.tap
    rates = lab.host.controls(lab.id)["interfaces"]
    assert rates[new.tap] == rates[lab.tap] == {"to_guest_kib_s": 1000, "from_guest_kib_s": 1000}


def test_what_was_plugged_in_is_there_after_the_next_start(lab: Lab, taps: Taps) -> None:
    lab.start(boot_sector("up"))
    new = taps.interface()
    lab.host.attach_interface(lab.id, new)
    lab.host.destroy(lab.id)
    assert not has_carrier(new.tap)
    # The definition that the steps know is the one of the creation: it changes nothing.
    lab.host.define(lab.xml())
    lab.host.start_paused(lab.id)
    assert has_carrier(new.tap) and defined(lab) == [lab.tap, new.tap]


def test_an_alias_is_one_interface_only(lab: Lab, taps: Taps) -> None:
    lab.start(boot_sector("up"))
    new, other = taps.interface(), taps.interface()
    lab.host.attach_interface(lab.id, new)
    with pytest.raises(Conflict, match="another interface"):
        lab.host.attach_interface(lab.id, other.model_copy(update={"alias": new.alias}))
    assert not has_carrier(other.tap)


def test_when_no_slot_is_left(lab: Lab, taps: Taps) -> None:
    """Four devices fit; the fifth is refused, and nowhere to be found afterwards."""
    lab.start(boot_sector("up"))
    fitting = [taps.interface() for _ in range(4)]
    for one in fitting:
        lab.host.attach_interface(lab.id, one)
    fifth = taps.interface()
    with pytest.raises(Conflict, match="no free slot"):
        lab.host.attach_interface(lab.id, fifth)
    assert fifth.tap not in {*defined(lab), *defined(lab, "--inactive")}
    assert all(has_carrier(one.tap) for one in fitting) and not has_carrier(fifth.tap)


def test_a_guest_that_does_not_let_go(lab: Lab, taps: Taps) -> None:
    """A boot sector answers no eject: told so; after its stop, the interface is gone."""
    lab.start(boot_sector("up"))
    lab.host.apply_controls(lab.id, LIMITS)
    new = taps.interface()
    lab.host.attach_interface(lab.id, new)
    with pytest.raises(Transient, match="not let go"):
        lab.host.detach_interface(lab.id, new, timeout_s=1.0)
    assert defined(lab, "--inactive") == [lab.tap]
    lab.host.destroy(lab.id)
    lab.host.detach_interface(lab.id, new)
    with changes.collecting() as again:
        lab.host.detach_interface(lab.id, new)
    assert again == []
    links = run("ip", "-o", "link", "show").stdout
    assert port_rates.ifb_name(new.tap) not in links
    assert port_rates.ifb_name(lab.tap) in links


def test_into_a_guest_that_is_off_and_out_again(lab: Lab, taps: Taps) -> None:
    lab.make_files()
    lab.host.define(lab.xml())
    new = taps.interface()
    lab.host.attach_interface(lab.id, new)
    assert defined(lab, "--inactive") == [lab.tap, new.tap] and not has_carrier(new.tap)
    lab.host.detach_interface(lab.id, new)
    assert defined(lab, "--inactive") == [lab.tap]


def test_without_a_domain(lab: Lab, taps: Taps) -> None:
    new = taps.interface()
    with pytest.raises(HostFault, match="knows no domain"):
        lab.host.attach_interface(lab.id, new)
    with changes.collecting() as nothing:
        lab.host.detach_interface(lab.id, new)
    assert nothing == []
