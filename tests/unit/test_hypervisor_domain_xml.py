"""The domain's XML, by libvirt's own schema and by what must be in it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from blocks.errors import Unsupported
from blocks.hypervisor.capabilities import Capabilities
from blocks.hypervisor.domain_xml import compose_domain, compose_interface
from blocks.hypervisor.guest import BackingFile, CpuSpec, DiskSpec, GuestSpec, InterfaceSpec
from blocks.hypervisor.specify import adapt
from blocks.hypervisor.wishes import Wishes, of_installed
from blocks.marks import DOMAIN_METADATA_URI
from blocks.resources import ImageFormat

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")


def spec(changed: dict[str, object] | None = None, directory: str = "/home/fifty") -> GuestSpec:
    instance = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    volume = str(uuid.UUID(int=7))
    values: dict[str, object] = {
        "instance_id": instance,
        "tenant_id": "t1",
        "site": "a1b2",
        "name": "web-1",
        "domain": "fifty-3f2504e0-web-1",
        "generation": 2,
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
        "accelerator": "tcg",
        "emulator": Path("/usr/bin/qemu-system-x86_64"),
        "machine": "q35",
        "cpu": CpuSpec(mode="custom", model="qemu64"),
        "vcpus": 2,
        "ram_mib": 256,
        "disks": (
            _disk(f"{directory}/disk.qcow2", "vda", "ua-root"),
            _disk(f"{directory}/v.qcow2", "vdb", f"ua-volume-{volume}", serial=volume[:20]),
            _disk(f"{directory}/config.iso", "vdz", "ua-config", ImageFormat.RAW, readonly=True),
        ),
        "interfaces": (
            InterfaceSpec(tap="tap0", mac="fa:16:3e:00:00:01", mtu=1450, alias="ua-port-1"),
        ),
        "console_log": Path(directory) / "console.log",
    }
    return GuestSpec.model_validate(values | (changed or {}))


def _disk(
    path: str,
    target: str,
    alias: str,
    form: ImageFormat = ImageFormat.QCOW2,
    serial: str | None = None,
    readonly: bool = False,
) -> DiskSpec:
    return DiskSpec(
        path=Path(path), format=form, target=target, alias=alias, serial=serial, readonly=readonly
    )


BASE = BackingFile(path=Path("/home/fifty/cache/base"), format=ImageFormat.RAW)


def tree(guest: GuestSpec) -> etree._Element:
    return etree.fromstring(compose_domain(guest, {"vda": [BASE]}))


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not installed")
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"accelerator": "kvm", "cpu": CpuSpec(mode="host-model")},
        {"machine": "pc", "panic_device": False, "rng": "urandom", "interfaces": ()},
        {"cpu": CpuSpec(mode="maximum"), "spare_ports": 0},
        {"system": "windows"},
        {
            "system": "windows",
            "accelerator": "kvm",
            "cpu": CpuSpec(mode="host-model"),
            "firmware": "uefi",
            "tpm": True,
            "panic_device": False,
            "media": (Path("/home/fifty/installer.iso"), Path("/home/fifty/answers.iso")),
        },
    ],
)
def test_the_schema_takes_it(changed: dict[str, object]) -> None:
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    assert schema.validate(tree(spec(changed))), schema.error_log


def test_no_file_changes_its_owner() -> None:
    """Every source, the base's too, has relabel='no'; the chain is closed."""
    root = tree(spec())
    sources = root.findall(".//disk//source")
    assert {source.get("file") for source in sources} == {
        "/home/fifty/disk.qcow2",
        "/home/fifty/cache/base",
        "/home/fifty/v.qcow2",
        "/home/fifty/config.iso",
    }
    for source in sources:
        label = source.find("seclabel")
        assert label is not None
        assert (label.get("model"), label.get("relabel")) == ("dac", "no")
    below = root.findall(".//disk")[0].find("backingStore")
    assert below is not None and below.find("backingStore") is not None
    form = below.find("format")
    assert form is not None and form.get("type") == "raw"


def test_the_mark() -> None:
    mark = tree(spec()).find(f"metadata/{{{DOMAIN_METADATA_URI}}}instance")
    assert mark is not None
    assert (mark.get("site"), mark.get("id"), mark.get("generation")) == (
        "a1b2",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "2",
    )


def test_equal_guests_equal_text_and_other_guests_another_digest() -> None:
    assert compose_domain(spec(), {}) == compose_domain(spec(), {})

    def digest(guest: GuestSpec) -> str | None:
        mark = tree(guest).find(f"metadata/{{{DOMAIN_METADATA_URI}}}instance")
        return None if mark is None else mark.get("digest")

    assert digest(spec()) != digest(spec({"ram_mib": 512}))


def test_what_would_break_out_of_xml_does_not() -> None:
    hostile = "/home/<&>'\"]]>/x"
    root = tree(spec(directory=hostile))
    source = root.find(".//disk/source")
    assert source is not None and source.get("file") == f"{hostile}/disk.qcow2"
    assert root.findtext("devices/emulator") == "/usr/bin/qemu-system-x86_64"


def test_devices_and_spare_ports() -> None:
    root = tree(spec())
    ports = root.findall("devices/controller[@model='pcie-root-port']")
    assert len(ports) == 3 + 1 + 2 + 4
    drive = root.findall("devices/disk")[-1]
    assert drive.find("readonly") is not None
    assert drive.find("target").get("dev") == "vdz"  # type: ignore[union-attr]
    log = root.find("devices/serial/log")
    assert log is not None and log.get("append") == "off"
    target = root.find("devices/interface/target")
    assert target is not None and (target.get("dev"), target.get("managed")) == ("tap0", "no")


def test_one_interface_is_as_in_the_whole() -> None:
    guest = spec()
    [whole] = tree(guest).findall("devices/interface")
    alone = etree.fromstring(compose_interface(guest.interfaces[0]))
    whole.tail = None
    assert etree.canonicalize(alone, strip_text=True) == etree.canonicalize(whole, strip_text=True)


def test_windows_has_what_it_asks_for() -> None:
    media = (Path("/home/fifty/installer.iso"), Path("/home/fifty/answers.iso"))
    kvm = {"accelerator": "kvm", "cpu": CpuSpec(mode="host-model")}
    root = tree(spec({"system": "windows", "media": media, "tpm": True, **kvm}))
    hyperv = {one.tag: dict(one.attrib) for one in root.findall("features/hyperv/*")}
    assert hyperv["spinlocks"] == {"state": "on", "retries": "8191"}
    assert {"relaxed", "vapic", "vpindex", "synic", "stimer"} <= set(hyperv)
    tried = {boot.get("order"): boot.getparent() for boot in root.findall("devices/disk/boot")}
    files = [tried[order].find("source").get("file") for order in ("1", "2")]  # type: ignore[union-attr]
    assert files == ["/home/fifty/disk.qcow2", str(media[0])], "disk, then installer"
    assert len(tried) == 2 and root.find("os/boot") is None
    drives = root.findall("devices/disk[@device='cdrom']")
    assert [one.find("target").get("dev") for one in drives] == ["sdz", "sdy"]  # type: ignore[union-attr]
    assert all(one.find("readonly") is not None for one in drives)
    assert root.find("devices/tpm/backend").get("version") == "2.0"  # type: ignore[union-attr]
    assert root.find("cpu/topology").get("cores") == "2"  # type: ignore[union-attr]
    assert root.find("devices/graphics") is None, "its screen is on no network"
    # Hyper-V's interfaces are KVM's; under emulation there are none.
    emulated = tree(spec({"system": "windows"}))
    assert emulated.find("features/hyperv") is None
    assert emulated.find("clock/timer[@name='hypervclock']") is None
    # What others have has not changed.
    assert tree(spec()).find("devices/video") is None


def test_a_guest_is_adapted_and_its_disks_are_moved_off_the_drives() -> None:
    known = Capabilities(
        accelerator="tcg",
        emulator=Path("/usr/bin/qemu-system-x86_64"),
        libvirt="9.0.0",
        qemu="7.2.0",
        machines=frozenset({"q35"}),
        cpu_modes=frozenset({"custom"}),
        cpu_models=("qemu64",),
        disk_buses=frozenset({"virtio", "sata"}),
        rng_backends=frozenset(),
        max_vcpus=8,
        firmwares=frozenset({"bios"}),
    )
    media = (Path("/home/fifty/a.iso"), Path("/home/fifty/b.iso"))
    wants_uefi = of_installed("windows", "uefi", virtio=True)
    with pytest.raises(Unsupported, match=r"lacks UEFI firmware \(ovmf\) for this guest"):
        adapt(spec(), known, wants_uefi, media)
    guest = adapt(spec(), known, of_installed("windows", "bios", virtio=False), media)
    assert [disk.target for disk in guest.disks] == ["sda", "sdb", "sdx"]
    assert {one.model for one in guest.interfaces} == {"e1000e"}
    root = tree(guest)
    targets = [str(one.get("dev")) for one in root.findall("devices/disk/target")]
    assert sorted(targets) == ["sda", "sdb", "sdx", "sdy", "sdz"]
    assert {one.get("bus") for one in root.findall("devices/disk/target")} == {"sata"}
    units = [str(one.get("unit")) for one in root.findall("devices/disk/address")]
    assert units == ["0", "1", "2", "3", "4"], "one controller is enough"
    sata = root.findall("devices/disk[@device='cdrom']/source")
    files = {str(one.get("file")) for one in sata}
    assert files == {*map(str, media), "/home/fifty/config.iso"}, "SATA has no read-only disks"
    drivers = of_installed("windows", "bios", virtio=True)
    with_tpm = replace(known, tpm=True)
    assert [adapt(spec(), with_tpm, one).tpm for one in (drivers, Wishes())] == [True, False]
    assert not adapt(spec(), known, drivers).tpm
    with_drivers = adapt(spec(), known, drivers, media)
    assert [disk.target for disk in with_drivers.disks] == ["vda", "vdb", "vdz"]
    without = replace(known, disk_buses=frozenset({"virtio"}))
    with pytest.raises(Unsupported, match="SATA drives"):
        adapt(spec(), without, drivers, media)
