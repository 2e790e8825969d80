"""What a guest with Windows has in its domain that others have not (step 41).

As Nova does it for images with `os_type=windows` (`LibvirtDriver._get_guest_config`): Hyper-V's
paravirtual interfaces, which KVM speaks; a clock in local time that catches up; a screen. And
as `virt-install --os-variant` has it: one socket, as Windows counts licences by sockets; a TPM.
"""

from __future__ import annotations

from lxml import etree

from blocks.hypervisor.guest import GuestSpec

#: Each needs some before it (QEMU's documentation, "Hyper-V Enlightenments").
_HYPERV = (
    *("relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer"),
    *("frequencies", "tlbflush", "ipi"),
)
_SPINLOCK_RETRIES = "8191"


def add_features(features: etree._Element, spec: GuestSpec) -> None:
    """Hyper-V's interfaces: without them Windows polls, and its clocks drift. KVM has them."""
    if spec.accelerator == "kvm":
        hyperv = etree.SubElement(features, "hyperv", mode="custom")
        for name in _HYPERV:
            feature = etree.SubElement(hyperv, name, state="on")
            if name == "spinlocks":
                feature.set("retries", _SPINLOCK_RETRIES)
    etree.SubElement(features, "vmport", state="off")


def add_topology(cpu: etree._Element, spec: GuestSpec) -> None:
    """All processors in one socket: editions for desktops use two sockets at most."""
    etree.SubElement(cpu, "topology", sockets="1", cores=str(spec.vcpus), threads="1")


def add_clock(root: etree._Element, spec: GuestSpec) -> None:
    """Windows takes the hardware's clock for local time."""
    clock = etree.SubElement(root, "clock", offset="localtime")
    etree.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    etree.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    etree.SubElement(clock, "timer", name="hpet", present="no")
    if spec.accelerator == "kvm":
        etree.SubElement(clock, "timer", name="hypervclock", present="yes")


def add_devices(devices: etree._Element, spec: GuestSpec) -> None:
    """A screen, which Setup does not start without, on no network; and a TPM if there is one."""
    video = etree.SubElement(devices, "video")
    etree.SubElement(video, "model", type="vga", vram="16384", heads="1")
    if spec.tpm:
        tpm = etree.SubElement(devices, "tpm", model="tpm-crb")
        etree.SubElement(tpm, "backend", type="emulator", version="2.0")
