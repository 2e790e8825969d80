"""From an instance to its guest specification, checked against the host (step 24)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from blocks.errors import Conflict, Unsupported
from blocks.hypervisor.capabilities import Capabilities
from blocks.hypervisor.guest import (
    CONFIG_DRIVE_DEVICE,
    CpuSpec,
    DiskSpec,
    GuestSpec,
    InterfaceSpec,
)
from blocks.hypervisor.instance_dirs import CONFIG_DRIVE, CONSOLE_LOG, DISK
from blocks.hypervisor.secrets import secret_id
from blocks.hypervisor.wishes import Wishes, lacking, wishes_of
from blocks.marks import domain_name
from blocks.resources import Image, ImageFormat, Instance, PortBinding, Volume


def specify(
    known: Capabilities,
    site: str,
    instance: Instance,
    bindings: Sequence[PortBinding],
    volumes: Sequence[Volume],
    directory: Path,
    image: Image | None,
    machine: str,
    cpu_model: str | None,
) -> GuestSpec:
    """The specification of an instance's guest; see `LibvirtHost.guest_spec`.

    Raises:
        Unsupported: The host lacks something; the message names all of it.
        Conflict: A port or volume is not complete yet.
    """
    flavor = instance.flavor
    cpu = choose_cpu(known, cpu_model)
    missing = []
    if machine not in known.machines:
        missing.append(f"the machine type {machine}")
    if "virtio" not in known.disk_buses:
        missing.append("virtio disks")
    if flavor.vcpus > known.max_vcpus:
        missing.append(f"{flavor.vcpus} processors ({known.max_vcpus} at most)")
    if cpu is None:
        missing.append(f"the processor model {cpu_model or 'of the host'}")
    if missing or cpu is None:
        raise Unsupported(
            f"this host's QEMU {known.qemu} ({known.accelerator}) lacks {', '.join(missing)}"
        )
    spec = GuestSpec(
        instance_id=instance.id,
        tenant_id=instance.tenant_id,
        site=site,
        name=instance.name,
        domain=domain_name(instance.id, instance.name),
        generation=instance.generation,
        created_at=instance.created_at,
        accelerator=known.accelerator,
        emulator=known.emulator,
        machine=machine,
        cpu=cpu,
        vcpus=flavor.vcpus,
        ram_mib=flavor.ram_mib,
        disks=_disks(instance, volumes, directory),
        interfaces=tuple(interface_spec(binding) for binding in bindings),
        console_log=directory / CONSOLE_LOG,
        rng="builtin" if "builtin" in known.rng_backends else "urandom",
    )
    if image is None:
        return spec
    if image.encrypted:
        spec = spec.with_encrypted_root(UUID(secret_id(instance.id)))
    return adapt(spec, known, wishes_of(image))


def adapt(
    spec: GuestSpec, known: Capabilities, wishes: Wishes, media: Sequence[Path] = ()
) -> GuestSpec:
    """A guest's specification as its image, or its installer, needs it.

    Args:
        spec: The guest, as `specify` has it for an image that asks for nothing.
        known: What this host can do.
        wishes: What is asked for.
        media: ISO files for its drives: the installer's first.

    Raises:
        Unsupported: This host lacks something; the message names all of it.
    """
    missing = lacking(wishes, known.firmwares, known.disk_buses, tpm=known.tpm)
    if media and wishes.disk_bus != "sata" and "sata" not in known.disk_buses:
        missing.append("SATA drives")
    if missing:
        raise Unsupported(f"this host lacks {', '.join(missing)} for this guest")
    disks = spec.disks
    if wishes.disk_bus == "sata":
        disks = tuple(
            disk.model_copy(update={"target": f"sd{disk.target[-1]}"})
            for disk in _off_the_drives(disks, len(media))
        )
    windows = wishes.system == "windows"
    return spec.model_copy(
        update={
            "system": wishes.system,
            "firmware": wishes.firmware,
            # Without the driver of pvpanic Windows would show an unknown device.
            "panic_device": not windows or wishes.disk_bus == "virtio",
            # Windows takes one where there is one.
            "tpm": wishes.tpm or (windows and known.tpm),
            "media": tuple(media),
            "disks": disks,
            "interfaces": tuple(
                one.model_copy(update={"model": wishes.vif_model}) for one in spec.interfaces
            ),
        }
    )


def _off_the_drives(disks: Sequence[DiskSpec], drives: int) -> list[DiskSpec]:
    """The disks, those at the end of the alphabet moved to before the drives' letters."""
    first_drive = ord("z") - drives + 1
    free = first_drive - 1
    moved = []
    for disk in disks:
        if ord(disk.target[-1]) >= first_drive:
            moved.append(disk.model_copy(update={"target": f"{disk.target[:-1]}{chr(free)}"}))
            free -= 1
        else:
            moved.append(disk)
    return moved


def choose_cpu(known: Capabilities, model: str | None) -> CpuSpec | None:
    """The processor to use: the one of a name, or the quickest; None where there is no such."""
    candidates: list[CpuSpec] = []
    if model == "maximum":
        candidates = [CpuSpec(mode="maximum")]
    elif model is not None:
        candidates = [CpuSpec(mode="custom", model=model)]
    elif known.accelerator == "kvm":
        candidates = [CpuSpec(mode="host-model"), CpuSpec(mode="host-passthrough")]
    else:
        # qemu64 is about 9 % quicker under emulation: its guests use fewer features.
        candidates = [CpuSpec(mode="custom", model="qemu64"), CpuSpec(mode="maximum")]
    for cpu in candidates:
        if cpu.mode in known.cpu_modes and (cpu.model is None or cpu.model in known.cpu_models):
            return cpu
    return None


def _disks(instance: Instance, volumes: Sequence[Volume], directory: Path) -> tuple[DiskSpec, ...]:
    disks = [
        DiskSpec(
            path=directory / DISK,
            format=ImageFormat.QCOW2,
            target="vda",
            alias="ua-root",
            serial=instance.id[:20],
        )
    ]
    disks += [volume_disk(volume) for volume in volumes if volume.plugged]
    disks.append(
        DiskSpec(
            path=directory / CONFIG_DRIVE,
            format=ImageFormat.RAW,
            target=CONFIG_DRIVE_DEVICE,
            alias="ua-config-drive",
            readonly=True,
        )
    )
    return tuple(disks)


def volume_disk(volume: Volume) -> DiskSpec:
    """The guest's disk on a volume.

    Raises:
        Conflict: The volume is not complete yet.
    """
    if volume.path is None:
        raise Conflict(f"the volume {volume.id} has no path yet")
    return DiskSpec(
        path=Path(volume.path),
        format=ImageFormat.QCOW2,
        target=volume.device,
        alias=f"ua-volume-{volume.id}",
        serial=volume.id[:20],
    )


def interface_spec(binding: PortBinding, image: Image | None = None) -> InterfaceSpec:
    """The guest's interface on a port.

    Args:
        binding: The port.
        image: The guest's, which may ask for another model than virtio's.

    Raises:
        Conflict: The port is not complete yet.
    """
    port = binding.port
    if port.mac is None or port.tap is None:
        raise Conflict(
            f"the port {port.id} has no {'MAC address' if port.mac is None else 'tap'} yet"
        )
    return InterfaceSpec(
        tap=port.tap,
        mac=port.mac,
        mtu=binding.network.mtu,
        alias=f"ua-port-{port.id}",
        model=wishes_of(image).vif_model if image is not None else "virtio",
    )
