"""A domain for Windows' installer, started on a real libvirt with media of the test's own.

There is no Windows here: what stands for the installer is a boot sector that says so, and a
volume without anything. Everything up to the installer's first instruction is real.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest
from lxml import etree

from blocks.errors import Unsupported
from blocks.hypervisor.guest import GuestSpec
from blocks.hypervisor.specify import adapt
from blocks.hypervisor.wishes import of_installed
from blocks.resources import Image, ImageFormat
from blocks.windows import WindowsAnswers, build_answers
from tests.host.hypervisor_lab import Lab, boot_sector
from tests.waiting import eventually

pytestmark = pytest.mark.host

SAYS = "The installer begins here"
ANSWERS = WindowsAnswers.model_validate(
    {"edition": 1, "accept_license": True, "password": "Passw0rd here", "firmware": "bios"}
)


@pytest.fixture(name="lab")
def _lab(session_directory: Path, libvirtd: str, site: str) -> Iterator[Lab]:
    lab = Lab(session_directory / "hypervisor", libvirtd, site)
    try:
        yield lab
    finally:
        lab.clean()


def installer(path: Path) -> Path:
    """A medium that a BIOS boots (El Torito, no emulation)."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3)
    code = boot_sector(SAYS).ljust(2048, b"\0")
    iso.add_fp(BytesIO(code), len(code), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1")
    iso.write(str(path))
    iso.close()
    return path


def media(lab: Lab, directory: Path) -> tuple[Path, Path]:
    """The installer's and the answers' medium, QEMU's to read."""
    answers = directory / "answers.iso"
    build_answers(answers, ANSWERS)
    both = installer(directory / "installer.iso"), answers
    uid, gid = lab.host.qemu_identity()
    subprocess.run(["chown", f"{uid}:{gid}", *both], check=True)
    return both


def plain(lab: Lab, directory: Path) -> GuestSpec:
    return lab.host.guest_spec(lab.instance, [lab.binding], [lab.volume], directory)


def started(lab: Lab, spec: GuestSpec) -> etree._Element:
    """Define and start it; the definition that libvirt runs."""
    xml = lab.host.compose(spec)
    lab.host.validate(xml)
    lab.host.define(xml)
    lab.host.start_paused(lab.id)
    lab.host.resume(lab.id)
    return etree.fromstring(lab.virsh("dumpxml", lab.id))


def says(log: Path, words: str) -> None:
    def there() -> bool:
        return re.search(words, log.read_text(errors="replace")) is not None

    eventually(there, f"{words!r} on the console")


def said(live: etree._Element, path: str, name: str) -> list[str]:
    """An attribute of all elements at a path."""
    return [str(one.get(name)) for one in live.findall(path)]


@pytest.mark.parametrize("virtio", [True, False])
def test_an_empty_disk_makes_the_installer_boot(lab: Lab, virtio: bool) -> None:
    directory = lab.make_files()
    known = lab.host.capabilities()
    wishes = of_installed("windows", "bios", virtio=virtio)
    spec = adapt(plain(lab, directory), known, wishes, media(lab, directory))
    live = started(lab, spec)
    # Its disk has no boot sector: the firmware goes on to the first drive.
    says(directory / "console.log", SAYS)
    drives = {Path(one).name for one in said(live, "devices/disk[@device='cdrom']/source", "file")}
    # Without virtio the config drive is in a drive, too: SATA has no read-only disks.
    assert drives == {"installer.iso", "answers.iso"} | (set() if virtio else {"config.iso"})
    buses = set(said(live, "devices/disk[@device='disk']/target", "bus"))
    models = set(said(live, "devices/interface/model", "type"))
    assert (buses, models) == (({"virtio"}, {"virtio"}) if virtio else ({"sata"}, {"e1000e"}))
    assert said(live, "clock", "offset") == ["localtime"]
    assert said(live, "cpu/topology", "sockets") == ["1"]
    assert (live.find("devices/tpm") is not None) == known.tpm
    lab.host.destroy(lab.id)
    assert lab.host.state(lab.id) == "shutoff"


@pytest.mark.parametrize("virtio", [True, False])
def test_a_vm_of_an_image_has_the_machine_that_it_asks_for(lab: Lab, virtio: bool) -> None:
    """Step 24's specification: by the image's system, and by what its installation told."""
    directory = lab.make_files(boot_sector(SAYS))
    image = Image(
        id="i1",
        tenant_id=None,
        name="server",
        format=ImageFormat.QCOW2,
        sha256="0" * 64,
        size_bytes=0,
        virtual_size_bytes=0,
        os="windows",
        path="/nowhere",
        properties=of_installed("windows", "bios", virtio=virtio).properties,
    )
    spec = lab.host.guest_spec(lab.instance, [lab.binding], [lab.volume], directory, image)
    live = started(lab, spec)
    says(directory / "console.log", SAYS)
    disks = said(live, "devices/disk/target", "dev")
    models = said(live, "devices/interface/model", "type")
    assert (disks, models) == (
        (["vda", "vdb", "vdz"], ["virtio"]) if virtio else (["sda", "sdb", "sdz"], ["e1000e"])
    )
    assert said(live, "clock", "offset") == ["localtime"]
    assert len(live.findall("devices/video")) == 1
    assert (live.find("devices/panic") is not None) == virtio


def test_an_empty_medium_is_no_installer_and_the_domain_runs_on(lab: Lab) -> None:
    directory = lab.make_files()
    empty = directory / "empty.iso"
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3)
    iso.write(str(empty))
    iso.close()
    wishes = of_installed("windows", "bios", virtio=True)
    spec = adapt(plain(lab, directory), lab.host.capabilities(), wishes, [empty])
    empty.chmod(0o644)
    started(lab, spec)
    says(directory / "console.log", "No bootable device|Boot failed")
    assert lab.host.state(lab.id) == "running"


@pytest.mark.slow
def test_with_uefi_the_firmware_looks_for_a_boot_loader(lab: Lab) -> None:
    directory = lab.make_files()
    known = lab.host.capabilities()
    spec = plain(lab, directory).model_copy(update={"ram_mib": 512})
    wishes = of_installed("windows", "uefi", virtio=True)
    if "efi" not in known.firmwares:
        with pytest.raises(Unsupported, match="UEFI"):
            adapt(spec, known, wishes)
        pytest.skip("this host has no UEFI firmware (ovmf)")
    live = started(lab, adapt(spec, known, wishes, media(lab, directory)))
    assert live.find("os/loader") is not None, "libvirt has found the firmware"
    nvram = Path(str(live.findtext("os/nvram")))
    assert nvram.parent == directory and nvram.exists()
    says(directory / "console.log", "BdsDxe|UEFI Interactive Shell|Shell>")
    lab.host.undefine(lab.id)
    assert not nvram.exists(), "the guest's firmware settings go with it"
