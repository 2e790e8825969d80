"""A domain's XML from a guest specification (step 41), built with lxml, never by pasting.

Where a choice is not obvious:

- Every `<source>` has a DAC seclabel `relabel='no'`, the base image's too: libvirt's
  dynamic ownership would change the *shared* base's owner and leave it so. The instance
  directory gives the files to QEMU's user instead.
- The backing chain is spelled out, so that nothing is probed for its format.
- The serial console's log is begun anew at each start (`append='off'`): it tells of this
  boot alone. virtlogd writes it, so it survives QEMU.
- `<bios useserial='yes'>` lets SeaBIOS, and through it the boot loader, speak on the
  serial console: a disk without a boot sector is then seen at once.
- q35 takes no device on its root bus after the start: spare `pcie-root-port`s do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from lxml import etree

from blocks.hypervisor import windows
from blocks.hypervisor.guest import BackingFile, DiskSpec, GuestSpec, InterfaceSpec
from blocks.hypervisor.instance_dirs import NVRAM
from blocks.marks import DOMAIN_METADATA_URI
from blocks.resources import ImageFormat

#: Devices on PCIe root ports besides disks and interfaces: virtio-serial and virtio-rng.
_OTHER_DEVICES = 2
#: Drives that one SATA controller has.
_SATA_PORTS = 6
#: libvirt's domain type for each accelerator.
DOMAIN_TYPE = {"kvm": "kvm", "tcg": "qemu"}


def compose_domain(spec: GuestSpec, chains: Mapping[str, Sequence[BackingFile]]) -> str:
    """The domain's XML.

    Args:
        spec: The guest.
        chains: For each disk's target the files below it, nearest first.

    Returns:
        The XML; the same specification always gives the same text.
    """
    root = etree.Element("domain", type=DOMAIN_TYPE[spec.accelerator])
    _text(root, "name", spec.domain)
    _text(root, "uuid", spec.instance_id)
    mark = _mark(root, spec)
    _text(root, "memory", str(spec.ram_mib), unit="MiB")
    _text(root, "vcpu", str(spec.vcpus))
    _system(root, spec)
    features = etree.SubElement(root, "features")
    etree.SubElement(features, "acpi")
    etree.SubElement(features, "apic")
    if spec.system == "windows":
        windows.add_features(features, spec)
    cpu = _cpu(root, spec)
    if spec.system == "windows":
        windows.add_topology(cpu, spec)
        windows.add_clock(root, spec)
    else:
        etree.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "destroy" if spec.ends_at_reboot else "restart")
    _text(root, "on_crash", "destroy")
    power = etree.SubElement(root, "pm")
    etree.SubElement(power, "suspend-to-mem", enabled="no")
    etree.SubElement(power, "suspend-to-disk", enabled="no")
    devices = etree.SubElement(root, "devices")
    _text(devices, "emulator", str(spec.emulator))
    disks = [_disk(devices, disk, chains.get(disk.target, ())) for disk in spec.disks]
    media = [_medium(devices, medium, number) for number, medium in enumerate(spec.media)]
    if media:
        _boot_in_order(disks[0], media[0])
    _place_on_sata(devices)
    _controllers(devices, spec)
    for interface in spec.interfaces:
        _interface(devices, interface)
    _consoles(devices, spec)
    _small_devices(devices, spec)
    if spec.system == "windows":
        windows.add_devices(devices, spec)
    mark.set("digest", hashlib.sha256(etree.tostring(root)).hexdigest())
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def compose_interface(spec: InterfaceSpec) -> str:
    """The XML of one interface, to be plugged into a guest that is there already."""
    devices = etree.Element("devices")
    _interface(devices, spec)
    return etree.tostring(devices[0], pretty_print=True, encoding="unicode")


def describe_source(disk: etree._Element, path: Path, chain: Sequence[BackingFile]) -> None:
    """Have a qcow2 disk of a domain that is there be another file; nothing else changes.

    Args:
        disk: Its element.
        path: The file.
        chain: The files below it, nearest first.
    """
    for old in (*disk.findall("source"), *disk.findall("backingStore")):
        disk.remove(old)
    _source(disk, str(path))
    _chain(disk, chain, None)


def compose_disk(spec: DiskSpec, chain: Sequence[BackingFile]) -> str:
    """The XML of one disk, to be plugged into a guest that is there already.

    Args:
        spec: The disk.
        chain: The files below it, nearest first.
    """
    devices = etree.Element("devices")
    _disk(devices, spec, chain)
    return etree.tostring(devices[0], pretty_print=True, encoding="unicode")


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    etree.SubElement(parent, tag, attributes).text = text


def _mark(root: etree._Element, spec: GuestSpec) -> etree._Element:
    """Our mark, in libvirt's metadata: what makes the domain ours.

    It gets the definition's digest, so that a second define of the same one is seen to be
    one, whatever libvirt made of the first.
    """
    metadata = etree.SubElement(root, "metadata")
    return etree.SubElement(
        metadata,
        f"{{{DOMAIN_METADATA_URI}}}instance",
        {
            "site": spec.site,
            "id": spec.instance_id,
            "tenant": spec.tenant_id,
            "name": spec.name,
            "generation": str(spec.generation),
            "created": spec.created_at.isoformat(),
        },
        nsmap={"fifty": DOMAIN_METADATA_URI},
    )


def _system(root: etree._Element, spec: GuestSpec) -> None:
    """How it starts: from its disk, or from a medium where that has no boot loader yet."""
    system = etree.SubElement(root, "os")
    if spec.firmware == "uefi":
        system.set("firmware", "efi")
    _text(system, "type", "hvm", arch="x86_64", machine=spec.machine)
    if spec.firmware == "uefi":
        firmware = etree.SubElement(system, "firmware")
        etree.SubElement(firmware, "feature", enabled="no", name="secure-boot")
        # With the guest's other files: removed with them, also where libvirt has forgotten it.
        _text(system, "nvram", str(spec.console_log.with_name(NVRAM)))
    if not spec.media:
        etree.SubElement(system, "boot", dev="hd")
    if spec.firmware == "bios":
        etree.SubElement(system, "bios", useserial="yes")


def _cpu(root: etree._Element, spec: GuestSpec) -> etree._Element:
    cpu = etree.SubElement(root, "cpu", mode=spec.cpu.mode)
    if spec.cpu.mode == "custom":
        cpu.set("match", "exact")
        _text(cpu, "model", spec.cpu.model or "", fallback="forbid")
    return cpu


def _source(parent: etree._Element, path: str, secret: UUID | None = None) -> None:
    source = etree.SubElement(parent, "source", file=path)
    etree.SubElement(source, "seclabel", model="dac", relabel="no")
    if secret is not None:
        encryption = etree.SubElement(source, "encryption", format="luks")
        etree.SubElement(encryption, "secret", type="passphrase", uuid=str(secret))


def _disk(devices: etree._Element, disk: DiskSpec, chain: Sequence[BackingFile]) -> etree._Element:
    # QEMU has no read-only disks on SATA, but drives for media.
    device = "cdrom" if disk.readonly and disk.bus == "sata" else "disk"
    element = etree.SubElement(devices, "disk", type="file", device=device)
    # writeback: a base image is read once into the host's page cache, for all guests;
    # the guest's flushes still reach the disk.
    driver = etree.SubElement(
        element, "driver", name="qemu", type=disk.format.value, cache="writeback"
    )
    if not disk.readonly:
        driver.set("discard", "unmap")
    _source(element, str(disk.path), disk.secret)
    if disk.format is ImageFormat.QCOW2:
        _chain(element, chain, disk.secret)
    etree.SubElement(element, "target", dev=disk.target, bus=disk.bus)
    if disk.readonly:
        etree.SubElement(element, "readonly")
    if disk.serial:
        _text(element, "serial", disk.serial)
    etree.SubElement(element, "alias", name=disk.alias)
    return element


def _chain(disk: etree._Element, chain: Sequence[BackingFile], secret: UUID | None) -> None:
    below = disk
    for backing in chain:
        below = etree.SubElement(below, "backingStore", type="file")
        etree.SubElement(below, "format", type=backing.format.value)
        _source(below, str(backing.path), secret if backing.encrypted else None)
    etree.SubElement(below, "backingStore")


def _medium(devices: etree._Element, path: Path, number: int) -> etree._Element:
    """A drive with a medium; from the end of the alphabet, so that it never meets a disk."""
    element = etree.SubElement(devices, "disk", type="file", device="cdrom")
    etree.SubElement(element, "driver", name="qemu", type=ImageFormat.RAW.value)
    _source(element, str(path))
    etree.SubElement(element, "target", dev=f"sd{chr(ord('z') - number)}", bus="sata")
    etree.SubElement(element, "readonly")
    etree.SubElement(element, "alias", name=f"ua-medium-{number}")
    return element


def _boot_in_order(*drives: etree._Element) -> None:
    """Have the firmware try these, one after the other: the root disk, the installer's medium.

    Of `<boot dev='cdrom'/>` libvirt makes the drive with the lowest letter, and no other.
    """
    for order, drive in enumerate(drives, 1):
        etree.SubElement(drive, "boot", order=str(order))


def _place_on_sata(devices: etree._Element) -> None:
    """Say where on the machine's own SATA controller each is, six to a controller.

    libvirt would go by the letter, and for `sdz` plug four controllers more.
    """
    drives = [one for one in devices.findall("disk") if one.find("target[@bus='sata']") is not None]
    for number, drive in enumerate(drives):
        etree.SubElement(
            drive,
            "address",
            type="drive",
            controller=str(number // _SATA_PORTS),
            bus="0",
            target="0",
            unit=str(number % _SATA_PORTS),
        )


def _controllers(devices: etree._Element, spec: GuestSpec) -> None:
    etree.SubElement(devices, "controller", type="usb", model="none")
    if "q35" not in spec.machine:
        return
    etree.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    used = len(spec.disks) + len(spec.interfaces) + _OTHER_DEVICES
    for _ in range(used + spec.spare_ports):
        etree.SubElement(devices, "controller", type="pci", model="pcie-root-port")


def _interface(devices: etree._Element, interface: InterfaceSpec) -> None:
    element = etree.SubElement(devices, "interface", type="ethernet")
    etree.SubElement(element, "mac", address=interface.mac)
    etree.SubElement(element, "target", dev=interface.tap, managed="no")
    etree.SubElement(element, "model", type=interface.model)
    etree.SubElement(element, "mtu", size=str(interface.mtu))
    etree.SubElement(element, "alias", name=interface.alias)
    etree.SubElement(element, "rom", enabled="no")


def _consoles(devices: etree._Element, spec: GuestSpec) -> None:
    serial = etree.SubElement(devices, "serial", type="pty")
    etree.SubElement(serial, "log", file=str(spec.console_log), append="off")
    etree.SubElement(serial, "target", type="isa-serial", port="0")
    console = etree.SubElement(devices, "console", type="pty")
    etree.SubElement(console, "target", type="serial", port="0")
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def _small_devices(devices: etree._Element, spec: GuestSpec) -> None:
    rng = etree.SubElement(devices, "rng", model="virtio")
    if spec.rng == "builtin":
        etree.SubElement(rng, "backend", model="builtin")
    else:
        _text(rng, "backend", "/dev/urandom", model="random")
    etree.SubElement(devices, "memballoon", model="none")
    if spec.panic_device:
        etree.SubElement(devices, "panic", model="isa")
